// A store's state in words: a glyph, a word and the reason, never colour alone.
import type { Attempt, StoreStatus } from '../api/types';
import { shown } from '../model/format';
import { relative } from '../model/time';

type Told = { glyph: string; word: string; tone: string; reason: string };

export function told(status: StoreStatus, now: number): Told {
  const { state, reason = '', next_attempt } = status.status;
  const next = next_attempt === undefined ? '' : `; next try ${relative(next_attempt, now)}`;
  switch (state) {
    case 'idle':
    case 'sending':
      return status.attempts.length === 0
        ? {
            glyph: '○',
            word: 'Waiting for the first window',
            tone: 'soft',
            reason: `it ends ${relative(status.next_window_end, now)}`,
          }
        : {
            glyph: '●',
            word: 'Sending',
            tone: 'good',
            reason: status.last_success ? `last success ${relative(status.last_success, now)}` : '',
          };
    case 'retrying':
      return { glyph: '▲', word: 'Failing', tone: 'bad', reason: `${reason}${next}` };
    case 'throttled':
      return { glyph: '◐', word: 'Throttled', tone: 'warn', reason: `${reason}${next}` };
    case 'needs-attention':
      return { glyph: '▲', word: 'Needs attention', tone: 'bad', reason: `${reason}${next}` };
    case 'paused':
      return { glyph: '❙❙', word: 'Paused', tone: 'warn', reason: `${shown(status.points.open)} points wait` };
    case 'held':
      return { glyph: '❙❙', word: 'Held', tone: 'warn', reason };
    case 'disabled':
      return { glyph: '–', word: 'Not enabled', tone: 'soft', reason: 'it gets no new windows' };
    case 'read':
      return {
        glyph: '●',
        word: 'Being read',
        tone: 'good',
        reason: status.last_read ? `${status.last_read.reader}, ${relative(status.last_read.at, now)}` : '',
      };
    case 'never-read':
      return { glyph: '○', word: 'Waiting for the first read', tone: 'soft', reason: 'give the store the URL' };
    case 'not-read':
      return {
        glyph: '▲',
        word: 'Not read',
        tone: 'bad',
        reason: status.last_read ? `the last read was ${relative(status.last_read.at, now)}` : '',
      };
    default:
      return { glyph: '?', word: state, tone: 'soft', reason };
  }
}

export function Status({ status, now }: { status: StoreStatus; now: number }) {
  const { glyph, word, tone, reason } = told(status, now);
  return (
    <div>
      <span class={`status ${tone}`}>
        <span aria-hidden="true">{glyph}</span> <strong>{word}</strong>
      </span>
      {reason !== '' && <div class="soft small">{reason}</div>}
    </div>
  );
}

export const good = (attempt: Attempt) => attempt.outcome === 'ok';

/** The last attempts, oldest first; the summary says the same in words. */
export function Ticks({ attempts }: { attempts: Attempt[] }) {
  const last = attempts.slice(0, 30).reverse();
  if (last.length === 0) return <span class="soft">–</span>;
  const failed = last.filter((one) => !good(one) && one.outcome !== 'partial').length;
  return (
    <span class="ticks" role="img" aria-label={`${last.length - failed} of the last ${last.length} attempts went well`}>
      {last.map((one, at) => (
        <i key={at} class={good(one) ? '' : one.outcome === 'partial' ? 'part' : 'bad'} title={`${one.outcome}: ${one.text}`} />
      ))}
    </span>
  );
}
