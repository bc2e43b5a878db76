// Sealed values as they are shown: nothing that was not sealed becomes a 0.
import { expect, test } from 'vitest';
import type { MetricValues } from '../api/types';
import { average, course, newest, seriesName } from './values';

const window = (start: number, end: number, outcome: string) => ({
  start,
  end,
  outcome,
  matched: 0,
  folded: 0,
  backfilled: false,
});

test('lines break where nothing was sealed', () => {
  const told: MetricValues = {
    period: 10,
    from: 0,
    to: 100,
    aggregates: [{ name: 'count', operator: 'count', attribute: '_tx' }],
    windows: [window(0, 10, 'sealed'), window(10, 40, 'gap'), window(40, 50, 'sealed'), window(70, 80, 'sealed')],
    series: [
      { labels: {}, other: false, sum: 5, values: [[2, null, 0, 3]] },
      { labels: {}, other: true, sum: 0, values: [] },
    ],
    more: 0,
  };
  expect(course(told, 0)).toEqual({
    starts: [0, 10, 40, 50, 70],
    lines: [
      [2, null, 0, null, 3],
      [null, null, null, null, null],
    ],
  });
});

test('averages are of what is there', () => {
  expect([average([2, null, 0, 4]), average([null]), average([])]).toEqual([2, undefined, undefined]);
  expect([newest([2, 0, null]), newest([null])]).toEqual([0, undefined]);
});

test('series are named by their labels', () => {
  const named = (labels: Record<string, string | null>, group: string[], other = false) =>
    seriesName({ labels, other, sum: 0, values: [] }, group);
  expect(named({ a: 'x', b: null }, ['b', 'a'])).toBe('(none), x');
  expect(named({ a: 'x' }, ['b'])).toBe('a = x');
  expect([named({}, []), named({}, ['a'], true)]).toEqual(['all', 'all others']);
});
