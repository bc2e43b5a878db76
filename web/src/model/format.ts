// How values are written. Pure.

const whole = new Intl.NumberFormat('en-US', { maximumFractionDigits: 2 });

/** `412,345`; text as it is; a dash for nothing. */
export function shown(value: unknown): string {
  if (value === null || value === undefined) return '–';
  if (typeof value === 'number') return whole.format(value);
  if (typeof value === 'string') return value;
  return JSON.stringify(value);
}

/** `412k` for axes. */
export const short = (value: number) =>
  new Intl.NumberFormat('en-US', { notation: 'compact', maximumFractionDigits: 1 }).format(value);

export function bytes(count: number): string {
  if (count < 1024) return `${count} B`;
  const units = ['KiB', 'MiB', 'GiB', 'TiB'];
  let value = count;
  let at = -1;
  do {
    value /= 1024;
    at += 1;
  } while (value >= 1024 && at < units.length - 1);
  return `${value.toFixed(1)} ${units[at]}`;
}

/** A label's value: missing is not the word for it. */
export const label = (value: unknown) =>
  value === null || value === undefined ? '(none)' : value === '' ? '(empty)' : String(value);

const LIGHT = ['#2f6fde', '#c2410c', '#0f766e', '#9333ea', '#b45309', '#be185d', '#4d7c0f', '#0369a1'];
const DARK = ['#7fb0ff', '#ff9b6b', '#4fd1c0', '#c99bff', '#f2c14e', '#ff8fbf', '#a3d65c', '#6cc8f5'];

/** Colours of lines and swatches. */
export const palette = (dark: boolean) => (dark ? DARK : LIGHT);

/** A table as CSV (RFC 4180). What a spreadsheet would take for a formula gets a quote before it. */
export function csv(columns: string[], rows: unknown[][]): string {
  const cell = (value: unknown) => {
    const text = value === null || value === undefined ? '' : String(value);
    const safe = typeof value === 'string' && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  return [columns, ...rows].map((row) => row.map(cell).join(',')).join('\r\n');
}
