// What every page may know: who is here, which zone times are shown in.
import { createContext } from 'preact';
import { useContext, useEffect, useState } from 'preact/hooks';
import type { Me } from '../api/types';
import { clock, relative, type Zone } from '../model/time';

export type Context = { me: Me; zone: Zone; dark: boolean; projects: string[] };

export const AppContext = createContext<Context | undefined>(undefined);

export function useApp(): Context {
  const context = useContext(AppContext);
  if (!context) throw new Error('outside of the shell');
  return context;
}

const RANK: Record<string, number> = { query: 1, edit: 2, admin: 3 };
export const may = (me: Me, scope: 'edit' | 'admin') => (RANK[me.scope] ?? 0) >= (RANK[scope] ?? 9);

/** Unix seconds, renewed every second while `on`. */
export function useNow(on = true): number {
  const [now, setNow] = useState(() => Date.now() / 1000);
  useEffect(() => {
    if (!on) return;
    const timer = setInterval(() => setNow(Date.now() / 1000), 1000);
    return () => clearInterval(timer);
  }, [on]);
  return now;
}

export { clock, relative };
