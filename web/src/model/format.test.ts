import { expect, test } from 'vitest';
import { bytes, csv, label, shown } from './format';
import { bounds, clock, readSpan, relative, seconds, stepOf, writeSpan } from './time';

test('values are written so that missing, empty and zero differ', () => {
  expect([shown(null), shown(0), shown(1234567.891), shown(''), shown(false)]).toEqual(['–', '0', '1,234,567.89', '', 'false']);
  expect([label(null), label(''), label('x'), label(0)]).toEqual(['(none)', '(empty)', 'x', '0']);
  expect([bytes(0), bytes(1023), bytes(1024), bytes(5 * 1024 ** 3)]).toEqual(['0 B', '1023 B', '1.0 KiB', '5.0 GiB']);
});

test('a table becomes CSV that no spreadsheet runs', () => {
  expect(
    csv(
      ['a', 'b'],
      [
        ['x,"y"', 1],
        [null, -2.5],
      ],
    ),
  ).toBe('a,b\r\n"x,""y""",1\r\n,-2.5');
  for (const formula of ['=1+1', '+1', '-1', '@x', '\tx']) expect(csv(['a'], [[formula]])).toContain(`'${formula}`);
});

test('time frames', () => {
  expect([seconds('15m'), seconds('7d'), seconds('5'), seconds('x'), seconds('9999999d')]).toEqual([
    900,
    604800,
    undefined,
    undefined,
    undefined,
  ]);
  for (const text of ['-15m..now', '100..200']) expect(writeSpan(readSpan(text) as never)).toBe(text);
  for (const text of ['200..100', '-x..now', '', '1..', null]) expect(readSpan(text)).toBeUndefined();
  expect(bounds({ back: '1h' }, 10_000)).toEqual({ from: 6_400, to: 10_000 });
  for (const wide of [60, 3_600, 86_400, 30 * 86_400, 3_000 * 86_400]) {
    const buckets = wide / stepOf(0, wide);
    expect(buckets).toBeGreaterThan(3);
    expect(buckets).toBeLessThanOrEqual(80);
  }
});

test('times are written in the zone that was chosen', () => {
  expect(clock(1_764_000_000, 'UTC')).toBe('24 Nov 2025, 16:00:00 UTC');
  expect(clock(1_764_000_000, 'UTC', false)).toBe('16:00:00 UTC');
  expect([relative(100, 112), relative(300, 112), relative(0, 200_000)]).toEqual(['12 s ago', 'in 3 min', '2 d ago']);
});
