// Time frames and how times are written. Pure.

/** From and to: seconds before now as a text like `24h`, or Unix seconds. */
export type Span = { back: string } | { from: number; to: number };

export const FRAMES: [string, string][] = [
  ['15m', 'Last 15 minutes'],
  ['1h', 'Last hour'],
  ['6h', 'Last 6 hours'],
  ['24h', 'Last 24 hours'],
  ['7d', 'Last 7 days'],
  ['30d', 'Last 30 days'],
];
const UNITS: Record<string, number> = { s: 1, m: 60, h: 3600, d: 86400 };

/** Seconds of `15m`; undefined where it is none. */
export function seconds(text: string): number | undefined {
  const found = /^(\d{1,6})([smhd])$/.exec(text);
  return found ? Number(found[1]) * (UNITS[found[2] as string] as number) : undefined;
}

export function readSpan(text: string | null): Span | undefined {
  if (text === null) return undefined;
  const back = /^-([^.]+)\.\.now$/.exec(text)?.[1];
  if (back && seconds(back)) return { back };
  const fixed = /^(\d{1,12})\.\.(\d{1,12})$/.exec(text);
  const [from, to] = [Number(fixed?.[1]), Number(fixed?.[2])];
  return fixed && from < to ? { from, to } : undefined;
}

export const writeSpan = (span: Span) => ('back' in span ? `-${span.back}..now` : `${span.from}..${span.to}`);

/** Bounds in Unix seconds. */
export function bounds(span: Span, now: number): { from: number; to: number } {
  if ('back' in span) return { from: now - (seconds(span.back) ?? 86400), to: now };
  return span;
}

const STEPS = [1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 43200, 86400];

/** A step that makes about sixty of the frame. */
export const stepOf = (from: number, to: number) =>
  STEPS.find((step) => (to - from) / step <= 80) ?? 86400 * Math.ceil((to - from) / 86400 / 80);

export type Zone = 'UTC' | 'local';

export function clock(unix: number, zone: Zone, withDate = true): string {
  const options: Intl.DateTimeFormatOptions = { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' };
  if (withDate) Object.assign(options, { year: 'numeric', month: 'short', day: '2-digit' });
  if (zone === 'UTC') options.timeZone = 'UTC';
  return `${new Intl.DateTimeFormat('en-GB', options).format(unix * 1000)}${zone === 'UTC' ? ' UTC' : ''}`;
}

/** `12 s ago`, `in 3 min`. */
export function relative(unix: number, now: number): string {
  const off = Math.abs(now - unix);
  const text =
    off < 60
      ? `${Math.round(off)} s`
      : off < 3600
        ? `${Math.round(off / 60)} min`
        : off < 86400
          ? `${Math.round(off / 3600)} h`
          : `${Math.round(off / 86400)} d`;
  return unix <= now ? `${text} ago` : `in ${text}`;
}
