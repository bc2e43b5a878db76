// A metric's sealed values, made ready to be shown. Pure.
import type { MetricValues } from '../api/types';
import { label } from './format';

/** Most windows that the server tells at once. */
export const WINDOWS = 2_000;

export type Course = { starts: number[]; lines: (number | null)[][] };

/**
 * One aggregate of each series, window by window. A gap of several windows has no value at its start, and neither has the first window
 * of a stretch in which nothing was sealed: a line is broken there.
 */
export function course(told: MetricValues, aggregate: number): Course {
  const starts: number[] = [];
  const lines: (number | null)[][] = told.series.map(() => []);
  let end: number | undefined;
  told.windows.forEach((window, at) => {
    if (end !== undefined && window.start > end) {
      starts.push(end);
      for (const line of lines) line.push(null);
    }
    starts.push(window.start);
    for (const [row, line] of lines.entries()) line.push(told.series[row]?.values[aggregate]?.[at] ?? null);
    end = window.end;
  });
  return { starts, lines };
}

/** The mean of what is there, nothing of nothing. */
export function average(values: (number | null)[]): number | undefined {
  const there = values.filter((value) => value !== null);
  return there.length === 0 ? undefined : there.reduce((sum, value) => sum + value, 0) / there.length;
}

/** The last that is there. */
export const newest = (values: (number | null)[]) => values.findLast((value) => value !== null);

/** Label values in words, in the order of the metric's groups; with their names where an earlier revision had other groups. */
export function seriesName(series: MetricValues['series'][number], group: string[]): string {
  if (series.other) return 'all others';
  const names = Object.keys(series.labels);
  if (names.length === 0) return 'all';
  const same = names.length === group.length && group.every((name) => Object.hasOwn(series.labels, name));
  return same
    ? group.map((name) => label(series.labels[name])).join(', ')
    : names.map((name) => `${name} = ${label(series.labels[name])}`).join(', ');
}
