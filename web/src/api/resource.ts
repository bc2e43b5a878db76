// What a page shows while the server is asked: the last answer stays until the next is there, an older question is given up, a server
// that is down is asked again. What changes by itself is asked for again when the event stream tells of it.
import { useCallback, useEffect, useRef, useState } from 'preact/hooks';
import { ApiError } from './client';
import { isOpen, onChange, type Topic } from './live';

export type Resource<T> = {
  data: T | undefined;
  error: ApiError | undefined;
  /** Whether a question is open. */
  loading: boolean;
  reload: () => void;
  stop: () => void;
};

type Options = {
  /** Milliseconds from question to question. */
  every?: number;
  /** What tells that the answer may be another; `every` is then for when nobody tells. */
  topics?: Topic[];
  on?: boolean;
};

/** Milliseconds between two answers to changes: one who watches a busy project asks no more often. */
const CALM_MS = 1_000;
/** Changes are told, but time passes too: so many times less often it is asked all the same. */
const RARELY = 6;

/** Milliseconds until a server that could not be reached is asked again. */
const RETRY_MS = 2_000;

export function useResource<T>(
  key: string,
  load: (signal: AbortSignal) => Promise<T>,
  { every, topics, on = true }: Options = {},
): Resource<T> {
  const [data, setData] = useState<T>();
  const [error, setError] = useState<ApiError>();
  const [loading, setLoading] = useState(on);
  const [round, setRound] = useState(0);
  const open = useRef<AbortController | undefined>(undefined);
  const latest = useRef(load);
  latest.current = load;

  useEffect(() => {
    if (!on) return;
    const abort = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    open.current = abort;
    const asked = Date.now();
    let answered = false;
    let changed = false;
    const again = () => setRound((round) => round + 1);
    // An answer on its way is waited for, so that many changes cannot keep it away for ever.
    const follow = () => {
      if (answered && changed) timer ??= setTimeout(again, Math.max(asked + CALM_MS - Date.now(), 0));
    };
    const quiet = topics
      ? onChange(topics, () => {
          if (changed) return;
          changed = true;
          clearTimeout(timer);
          timer = undefined;
          follow();
        })
      : () => {};
    setLoading(true);
    latest.current(abort.signal).then(
      (answer) => {
        if (abort.signal.aborted) return;
        setData(() => answer);
        setError(undefined);
        setLoading(false);
        answered = true;
        follow();
        if (every && !changed) timer = setTimeout(again, topics && isOpen() ? RARELY * every : every);
      },
      (fault: unknown) => {
        if (abort.signal.aborted) return;
        const told = fault instanceof ApiError ? fault : new ApiError(0, 'This page has a fault', String(fault));
        setError(told);
        setLoading(false);
        answered = true;
        follow();
        if ((told.status === 0 || every) && !changed) timer = setTimeout(again, every ?? RETRY_MS);
      },
    );
    return () => {
      abort.abort();
      quiet();
      clearTimeout(timer);
    };
  }, [key, round, on, every]);

  const reload = useCallback(() => setRound((round) => round + 1), []);
  const stop = useCallback(() => {
    open.current?.abort();
    setLoading(false);
  }, []);
  return { data, error, loading, reload, stop };
}
