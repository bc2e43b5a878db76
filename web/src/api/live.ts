// What changes on the server: one event stream a project, which says of what kind a change was; pages that show such things ask again.
// While there is no stream, pages ask from time to time instead (resource.ts).
import { useEffect, useState } from 'preact/hooks';
import { of, session } from './client';

export type Topic = 'reports' | 'refusals' | 'configuration' | 'stores';
type Event = { name: string; data: { topics?: Topic[]; page?: string | null } };

/** Milliseconds until a lost stream is opened again: the first time, and at most. */
const FIRST_MS = 1_000;
const LONGEST_MS = 30_000;
/** Milliseconds without a word after which a stream counts as lost; the server says something every 15 s. */
const SILENT_MS = 40_000;
/** Milliseconds without a stream after which people are told. */
const TELL_MS = 3_000;

const listeners = new Set<(topics: Topic[] | 'all') => void>();
/** Whether changes are told at present. */
let open = false;

export const isOpen = () => open;

/** Calls `changed` when one of the topics has changed, or may have. Returns how to stop it. */
export function onChange(topics: Topic[], changed: () => void): () => void {
  const listener = (told: Topic[] | 'all') => {
    if (told === 'all' || told.some((topic) => topics.includes(topic))) changed();
  };
  listeners.add(listener);
  return () => listeners.delete(listener);
}

const tell = (topics: Topic[] | 'all') => {
  for (const listener of [...listeners]) listener(topics);
};

/** Takes whole events out of a text, and leaves the rest. */
export function readEvents(text: string): { events: Event[]; rest: string } {
  const blocks = text.split('\n\n');
  const rest = blocks.pop() ?? '';
  const events: Event[] = [];
  for (const block of blocks) {
    const field = (name: string) =>
      block
        .split('\n')
        .find((line) => line.startsWith(`${name}: `))
        ?.slice(name.length + 2);
    const data = field('data');
    if (data !== undefined) events.push({ name: field('event') ?? '', data: JSON.parse(data) });
  }
  return { events, rest };
}

export type Live = { lost: boolean; outdated: boolean };

/** Keeps the stream of a project open while a page of it is shown. */
export function useLive(project: string | undefined): Live {
  const [live, setLive] = useState<Live>({ lost: false, outdated: false });
  useEffect(() => {
    if (project === undefined) return;
    const abort = new AbortController();
    let page: string | null | undefined;
    let lostSince: number | undefined;
    let wait = FIRST_MS;
    let timer: ReturnType<typeof setTimeout> | undefined;
    let warn: ReturnType<typeof setTimeout> | undefined;

    const heard = (event: Event) => {
      if (event.name === 'changed') return tell(event.data.topics ?? []);
      if (event.name !== 'opened') return;
      open = true;
      wait = FIRST_MS;
      clearTimeout(warn);
      page ??= event.data.page;
      const outdated = page !== event.data.page;
      setLive({ lost: false, outdated });
      // What changed while nothing was told is not known.
      if (lostSince !== undefined) tell('all');
      lostSince = undefined;
    };
    const connect = async () => {
      const stream = new AbortController();
      const stop = () => stream.abort();
      abort.signal.addEventListener('abort', stop);
      let silent = setTimeout(stop, SILENT_MS);
      try {
        const reply = await fetch(`/api/v1${of(project, 'events')}`, {
          headers: { 'x-crashmeter-page': '1' },
          credentials: 'same-origin',
          signal: stream.signal,
        });
        if (reply.status === 401) session.ended();
        if (!reply.ok || !reply.body) throw new Error(`HTTP ${reply.status}`);
        const reader = reply.body.getReader();
        const decoder = new TextDecoder();
        let text = '';
        for (;;) {
          const { done, value } = await reader.read();
          if (done) break;
          clearTimeout(silent);
          silent = setTimeout(stop, SILENT_MS);
          const read = readEvents(text + decoder.decode(value, { stream: true }));
          text = read.rest;
          for (const event of read.events) heard(event);
        }
      } catch {
        // Lost, refused or given up: the same follows.
      }
      clearTimeout(silent);
      abort.signal.removeEventListener('abort', stop);
      open = false;
      if (abort.signal.aborted) return;
      if (lostSince === undefined) {
        lostSince = Date.now();
        warn = setTimeout(() => setLive((live) => ({ ...live, lost: true })), TELL_MS);
      }
      timer = setTimeout(connect, wait);
      wait = Math.min(2 * wait, LONGEST_MS);
    };
    connect();
    return () => {
      abort.abort();
      open = false;
      clearTimeout(timer);
      clearTimeout(warn);
      setLive({ lost: false, outdated: false });
    };
  }, [project]);
  return live;
}
