import { describe, expect, it } from 'vitest';
import { fromLines, toLines } from './pairs';

describe('pairs as lines', () => {
  it('reads what it writes', () => {
    for (const pairs of [{}, { env: 'prod' }, { a: 'b=c', __proto__x: '', 'error.type': 'kind' }])
      expect(fromLines(toLines(pairs))).toEqual({ pairs });
  });
  it('passes over blanks and names the line at fault', () => {
    expect(fromLines('\n  env = prod \n')).toEqual({ pairs: { env: 'prod' } });
    expect(fromLines('a=1\nb')).toEqual({ pairs: {}, fault: 'line 2 is not name=value' });
    expect(fromLines('=1').fault).toBe('line 1 is not name=value');
    expect(fromLines('a=1\n\na=2').fault).toBe('line 3 gives a again');
    expect(Object.keys(fromLines('__proto__=1').pairs)).toEqual(['__proto__']);
  });
});
