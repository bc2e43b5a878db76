import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  AGGREGATES,
  DEFAULT,
  type ExploreQuery,
  filterBody,
  fromBody,
  inFoldOrder,
  OPERATORS,
  queryBody,
  readQuery,
  writeQuery,
} from './query';

// Any text, with what has a meaning in addresses and in JavaScript's own objects.
const text = fc.oneof(
  fc.string({ unit: 'grapheme', maxLength: 30 }),
  fc.constantFrom(
    'a~b',
    '%7E',
    '%257E',
    '%',
    '~',
    'a&b=c#d',
    '+ +',
    '__proto__',
    'constructor',
    'toString',
    'ä\u0301',
    '\u202E',
    '"\\',
  ),
  fc.string({ minLength: 2_000, maxLength: 2_000 }),
);
const name = text.filter((text) => text !== '');
const filter = fc.record({ attribute: name, operator: fc.constantFrom(...Object.keys(OPERATORS)), value: text });
const aggregate = fc.record({ operator: fc.constantFrom(...Object.keys(AGGREGATES)), attribute: name });
const span = fc.oneof(
  fc.record({ back: fc.constantFrom('15m', '24h', '7d', '90s') }),
  fc.tuple(fc.nat(2_000_000_000), fc.integer({ min: 1, max: 100_000 })).map(([from, wide]) => ({ from, to: from + wide })),
);
const query: fc.Arbitrary<ExploreQuery> = fc.record({
  filters: fc.array(filter, { maxLength: 4 }),
  group: fc.uniqueArray(name, { maxLength: 3 }),
  aggregates: fc.array(aggregate, { minLength: 1, maxLength: 4 }),
  span,
  sort: text,
  view: fc.constantFrom('table' as const, 'list' as const),
  columns: fc.array(name, { minLength: 1, maxLength: 4 }),
});

describe('the address', () => {
  test('holds any query, and nothing of it is lost or told', () => {
    fc.assert(
      fc.property(query, (query) => {
        const address = writeQuery(query);
        const url = new URL(`http://x/p/y/explore${address}`);
        expect(readQuery(url.search)).toEqual({ query, notices: [] });
      }),
      { numRuns: 500 },
    );
  });

  test('of the default is empty', () => {
    expect(writeQuery(DEFAULT)).toBe('');
    expect(readQuery('')).toEqual({ query: DEFAULT, notices: [] });
  });

  test('of any text is read without a fault, and what is not understood is told', () => {
    fc.assert(
      fc.property(text, (text) => {
        expect(readQuery(`?f=${text}&a=${text}&t=${text}`).query.aggregates).not.toEqual([]);
      }),
    );
    expect(readQuery('?f=a~constructor~b').notices).toHaveLength(1);
    expect(readQuery('?a=toString~b').notices).toHaveLength(1);
    expect(readQuery('?t=5..3').query.span).toEqual(DEFAULT.span);
  });
});

describe('the grammar', () => {
  test('several equals of one attribute mean any of them; all else must hold', () => {
    const is = (attribute: string, value: string, operator = 'equal') => ({ attribute, operator, value });
    expect(filterBody([])).toEqual([]);
    expect(filterBody([is('a', '1'), is('b', 'x', 'contains'), is('a', '2')])).toEqual([
      { b: [['contains', 'x']], a: [['equal', '1']] },
      { b: [['contains', 'x']], a: [['equal', '2']] },
    ]);
    expect(filterBody([is('a', 'ignored', 'is-set')])).toEqual([{ a: [['is-set']] }]);
    const many = [0, 1, 2, 3, 4].flatMap((n) => [is('a', `${n}`), is('b', `${n}`)]);
    expect(() => filterBody(many)).toThrow('too many alternatives');
  });

  test('holds any name as a key of its own', () => {
    fc.assert(
      fc.property(query, (query) => {
        let body: ReturnType<typeof queryBody>;
        try {
          body = queryBody(query);
        } catch (error) {
          expect(String(error)).toContain('too many alternatives');
          return;
        }
        expect(new Set(Object.keys(body.fold ?? {}))).toEqual(new Set(query.aggregates.map((one) => one.attribute)));
        for (const one of body.filter ?? []) {
          expect(new Set(Object.keys(one))).toEqual(new Set(query.filters.map((filter) => filter.attribute)));
        }
        const back = fromBody(JSON.parse(JSON.stringify(body)));
        expect(new Set(back.query.aggregates)).toEqual(new Set(query.aggregates));
      }),
    );
  });

  test('a saved query that chips cannot say is told as such', () => {
    expect(fromBody({ filter: [{ a: [['equal', '1']] }], group: ['b'], fold: { _tx: [['unique']] } }).exact).toBe(true);
    expect(fromBody({ filter: [{ a: [['equal', '1']] }, { b: [['equal', '2']] }], fold: { _tx: [['unique']] } }).exact).toBe(
      false,
    );
    expect(fromBody({ fold: { a: [['histogram']] } }).exact).toBe(false);
  });

  test('aggregates come back by attribute', () => {
    const list = [
      { operator: 'max', attribute: 'a' },
      { operator: 'unique', attribute: 'b' },
      { operator: 'min', attribute: 'a' },
    ];
    expect(inFoldOrder(list).map((one) => `${one.operator} ${one.attribute}`)).toEqual(['max a', 'min a', 'unique b']);
  });
});
