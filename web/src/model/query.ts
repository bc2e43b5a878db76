// The query of Explore: as an address, as the server's grammar, as words. Pure.
import type { Attribute, QueryBody } from '../api/types';
import { readSpan, type Span, writeSpan } from './time';

export type Filter = { attribute: string; operator: string; value: string };
export type Aggregate = { operator: string; attribute: string };
export type View = 'table' | 'list';
export type ExploreQuery = {
  filters: Filter[];
  group: string[];
  aggregates: Aggregate[];
  span: Span;
  /** Name of a column, `-` before it for descending; empty for most reports first. */
  sort: string;
  view: View;
  columns: string[];
};

export const ERRORS: Aggregate = { operator: 'unique', attribute: '_tx' };
export const DEFAULT: ExploreQuery = {
  filters: [],
  group: [],
  aggregates: [ERRORS],
  span: { back: '24h' },
  sort: '',
  view: 'table',
  columns: ['timestamp', 'error.type', 'error.message', 'application.version'],
};

/** Operators with what people read; those without a value last. */
export const OPERATORS: Record<string, { label: string; valueless?: true; kinds: string }> = {
  equal: { label: '=', kinds: 'text number boolean' },
  'not-equal': { label: '≠', kinds: 'text number boolean' },
  contains: { label: 'contains', kinds: 'text' },
  'not-contains': { label: 'does not contain', kinds: 'text' },
  'regular-expression': { label: 'matches', kinds: 'text' },
  'inverse-regular-expression': { label: 'does not match', kinds: 'text' },
  'at-least': { label: '≥', kinds: 'number' },
  'at-most': { label: '≤', kinds: 'number' },
  'greater-than': { label: '>', kinds: 'number' },
  'less-than': { label: '<', kinds: 'number' },
  'is-set': { label: 'is set', valueless: true, kinds: 'text number boolean' },
  'is-not-set': { label: 'is not set', valueless: true, kinds: 'text number boolean' },
};

export const AGGREGATES: Record<string, string> = {
  count: 'count',
  unique: 'distinct values',
  sum: 'sum',
  min: 'least',
  max: 'greatest',
  mean: 'mean',
  first: 'first',
  last: 'last',
};

export type ValueKind = 'text' | 'number' | 'boolean';

export function kindOf(attribute: Attribute | undefined): ValueKind {
  if (!attribute || attribute.texts >= Math.max(attribute.numbers, attribute.booleans)) return 'text';
  return attribute.numbers >= attribute.booleans ? 'number' : 'boolean';
}

export const operatorsOf = (kind: ValueKind) => Object.keys(OPERATORS).filter((name) => OPERATORS[name]?.kinds.includes(kind));

export const aggregateName = (aggregate: Aggregate) =>
  aggregate.operator === 'unique' && aggregate.attribute === '_tx' ? 'Errors' : `${aggregate.operator}(${aggregate.attribute})`;

export const filterName = (filter: Filter) => {
  const operator = OPERATORS[filter.operator];
  return `${filter.attribute} ${operator?.label ?? filter.operator}${operator?.valueless ? '' : ` ${filter.value === '' ? '(empty)' : filter.value}`}`;
};

/** An attribute's name in an address, where `~` parts it from what follows. */
const escaped = (name: string) => name.replaceAll('%', '%25').replaceAll('~', '%7E');
const unescaped = (name: string) => name.replaceAll('%7E', '~').replaceAll('%25', '%');

/** Reads an address; what it does not know is left out and told. */
export function readQuery(search: string): { query: ExploreQuery; notices: string[] } {
  const given = new URLSearchParams(search);
  const notices: string[] = [];
  const query: ExploreQuery = { ...DEFAULT, aggregates: [] };
  query.filters = given.getAll('f').flatMap((text) => {
    const [name, operator, ...rest] = text.split('~');
    const attribute = name && unescaped(name);
    if (attribute && operator && Object.hasOwn(OPERATORS, operator)) return [{ attribute, operator, value: rest.join('~') }];
    notices.push(`The filter "${text}" of this link is not understood and was left out.`);
    return [];
  });
  query.group = [...new Set(given.getAll('g').filter((name) => name !== ''))];
  query.aggregates = given.getAll('a').flatMap((text) => {
    const at = text.indexOf('~');
    const [operator, attribute] = [text.slice(0, at), text.slice(at + 1)];
    if (at > 0 && attribute !== '' && Object.hasOwn(AGGREGATES, operator)) return [{ operator, attribute }];
    notices.push(`The aggregate "${text}" of this link is not understood and was left out.`);
    return [];
  });
  if (query.aggregates.length === 0) query.aggregates = DEFAULT.aggregates;
  const span = readSpan(given.get('t'));
  if (given.has('t') && !span)
    notices.push(`The time frame "${given.get('t')}" of this link is not understood; the last 24 hours are shown.`);
  query.span = span ?? DEFAULT.span;
  query.sort = given.get('s') ?? '';
  query.view = given.get('view') === 'list' ? 'list' : 'table';
  if (given.has('c')) query.columns = given.getAll('c').filter((name) => name !== '');
  return { query, notices };
}

const same = (a: unknown, b: unknown) => JSON.stringify(a) === JSON.stringify(b);

/** The address of a query; defaults are left out. */
export function writeQuery(query: ExploreQuery): string {
  const search = new URLSearchParams();
  for (const filter of query.filters) search.append('f', `${escaped(filter.attribute)}~${filter.operator}~${filter.value}`);
  for (const name of query.group) search.append('g', name);
  if (!same(query.aggregates, DEFAULT.aggregates))
    for (const one of query.aggregates) search.append('a', `${one.operator}~${one.attribute}`);
  if (!same(query.span, DEFAULT.span)) search.set('t', writeSpan(query.span));
  if (query.sort !== '') search.set('s', query.sort);
  if (query.view !== 'table') search.set('view', query.view);
  if (!same(query.columns, DEFAULT.columns)) for (const name of query.columns) search.append('c', name);
  const text = search.toString();
  return text === '' ? '' : `?${text}`;
}

type Conditions = Record<string, [string, string?][]>;

/** Most alternatives that chips are multiplied out to. */
const ALTERNATIVES_MAX = 20;

/**
 * Filters in the grammar: conditions of one object must all hold, objects are alternatives. Several `=` of one attribute mean any of
 * them, as people expect of chips, so they are multiplied out.
 */
export function filterBody(filters: Filter[]): Conditions[] {
  let alternatives: Conditions[] = [{}];
  const add = (to: Conditions, attribute: string, condition: [string, string?]): Conditions => ({
    ...to,
    [attribute]: [...(Object.hasOwn(to, attribute) ? (to[attribute] ?? []) : []), condition],
  });
  for (const { attribute, operator, value } of filters.filter((one) => one.operator !== 'equal')) {
    const condition: [string, string?] = OPERATORS[operator]?.valueless ? [operator] : [operator, value];
    alternatives = alternatives.map((one) => add(one, attribute, condition));
  }
  for (const attribute of new Set(filters.filter((one) => one.operator === 'equal').map((one) => one.attribute))) {
    const values = filters.filter((one) => one.operator === 'equal' && one.attribute === attribute).map((one) => one.value);
    if (alternatives.length * values.length > ALTERNATIVES_MAX)
      throw new Error(`too many alternatives: at most ${ALTERNATIVES_MAX}`);
    alternatives = alternatives.flatMap((one) => values.map((value) => add(one, attribute, ['equal', value])));
  }
  return alternatives.filter((one) => Object.keys(one).length > 0);
}

export function queryBody(query: Pick<ExploreQuery, 'filters' | 'group' | 'aggregates'>): QueryBody {
  const fold = new Map<string, [string][]>();
  for (const { operator, attribute } of query.aggregates) {
    fold.set(attribute, [...(fold.get(attribute) ?? []), [operator]]);
  }
  return { filter: filterBody(query.filters), group: query.group, fold: Object.fromEntries(fold) };
}

/** Aggregates in the order in which the server answers: by attribute, as `fold` names them. */
export function inFoldOrder(aggregates: Aggregate[]): Aggregate[] {
  const attributes = [...new Set(aggregates.map((one) => one.attribute))];
  return attributes.flatMap((attribute) => aggregates.filter((one) => one.attribute === attribute));
}

/** A saved metric's query as Explore shows it; `exact` tells whether chips can say all of it. */
export function fromBody(body: QueryBody): { query: ExploreQuery; exact: boolean } {
  const filters: Filter[] = [];
  for (const conditions of body.filter ?? []) {
    for (const [attribute, list] of Object.entries(conditions)) {
      for (const [operator, value] of list) {
        const filter = { attribute, operator, value: value === undefined ? '' : String(value) };
        if (!filters.some((known) => same(known, filter))) filters.push(filter);
      }
    }
  }
  const aggregates = Object.entries(body.fold ?? {}).flatMap(([attribute, list]) =>
    list.map(([operator]) => ({ operator, attribute })),
  );
  const query = {
    ...DEFAULT,
    filters,
    group: body.group ?? [],
    aggregates: aggregates.length > 0 ? aggregates : DEFAULT.aggregates,
  };
  const sorted = (filter: Conditions[]) => filter.map((one) => JSON.stringify(Object.entries(one).sort())).sort();
  let exact =
    filters.every((one) => Object.hasOwn(OPERATORS, one.operator)) &&
    aggregates.every((one) => Object.hasOwn(AGGREGATES, one.operator));
  try {
    exact &&= same(sorted(filterBody(filters)), sorted((body.filter ?? []) as Conditions[]));
  } catch {
    exact = false;
  }
  return { query, exact };
}

/** A metric's query in one line. */
export function describe(body: QueryBody): string {
  const { query } = fromBody(body);
  const by = query.group.length > 0 ? ` by ${query.group.join(', ')}` : '';
  const where = query.filters.length > 0 ? ` where ${query.filters.map(filterName).join(' and ')}` : '';
  return `${query.aggregates.map(aggregateName).join(', ')}${by}${where}`;
}
