// What a page shows while the server is asked: the last answer stays until the next is there, an older question is given up, a server
// that is down is asked again.
import { useCallback, useEffect, useRef, useState } from 'preact/hooks';
import { ApiError } from './client';

export type Resource<T> = {
  data: T | undefined;
  error: ApiError | undefined;
  /** Whether a question is open. */
  loading: boolean;
  reload: () => void;
  stop: () => void;
};

type Options = { every?: number; on?: boolean };

/** Milliseconds until a server that could not be reached is asked again. */
const RETRY_MS = 2_000;

export function useResource<T>(
  key: string,
  load: (signal: AbortSignal) => Promise<T>,
  { every, on = true }: Options = {},
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
    setLoading(true);
    latest.current(abort.signal).then(
      (answer) => {
        if (abort.signal.aborted) return;
        setData(() => answer);
        setError(undefined);
        setLoading(false);
        if (every) timer = setTimeout(() => setRound((round) => round + 1), every);
      },
      (fault: unknown) => {
        if (abort.signal.aborted) return;
        const told = fault instanceof ApiError ? fault : new ApiError(0, 'This page has a fault', String(fault));
        setError(told);
        setLoading(false);
        if (told.status === 0 || every) timer = setTimeout(() => setRound((round) => round + 1), every ?? RETRY_MS);
      },
    );
    return () => {
      abort.abort();
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
