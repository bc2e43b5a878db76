import { expect, test, vi } from 'vitest';
import { onChange, readEvents } from './live';

test('events are read as they come, however they are cut', () => {
  const text =
    'event: opened\ndata: {"version":"1","page":null}\n\n:\n\nevent: changed\ndata: {"topics":["reports","stores"]}\n\nevent: cha';
  for (let at = 0; at <= text.length; at += 1) {
    const first = readEvents(text.slice(0, at));
    const second = readEvents(first.rest + text.slice(at));
    const names = [...first.events, ...second.events].map((event) => event.name);
    expect(names).toEqual(['opened', 'changed']);
    expect(second.rest).toBe('event: cha');
  }
});

test('who no longer listens is not told', () => {
  const changed = vi.fn();
  const stop = onChange(['stores'], changed);
  stop();
  expect(changed).not.toHaveBeenCalled();
});
