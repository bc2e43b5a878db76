// Names and values as lines of text, for people who type them: `name=value`. Not a file format; nothing is escaped.

export type Pairs = Record<string, string>;

export const toLines = (pairs: Pairs): string =>
  Object.entries(pairs)
    .map(([name, value]) => `${name}=${value}`)
    .join('\n');

/** The pairs of the lines, or what is wrong with a line. A value may hold further equals signs. */
export function fromLines(text: string): { pairs: Pairs; fault?: string } {
  const pairs = new Map<string, string>();
  for (const [at, raw] of text.split('\n').entries()) {
    const line = raw.trim();
    if (line === '') continue;
    const equals = line.indexOf('=');
    const name = line.slice(0, Math.max(equals, 0)).trim();
    if (name === '') return { pairs: {}, fault: `line ${at + 1} is not name=value` };
    if (pairs.has(name)) return { pairs: {}, fault: `line ${at + 1} gives ${name} again` };
    pairs.set(name, line.slice(equals + 1).trim());
  }
  return { pairs: Object.fromEntries(pairs) };
}
