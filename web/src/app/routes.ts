// Every address of the page on one screen, and how to go to one.
import { useEffect, useState } from 'preact/hooks';

export type Route =
  | { page: 'home' | 'login' | 'system' | 'audit-log' | 'account' }
  | { page: 'explore' | 'start' | 'metric-export' | 'attributes' | 'access'; project: string }
  | { page: 'report'; project: string; tx: string }
  | { page: 'new-store'; project: string }
  | { page: 'store'; project: string; store: string }
  | { page: 'metric'; project: string; set: string; metric: string };

export const paths = {
  explore: (project: string, search = '') => `/p/${encodeURIComponent(project)}/explore${search}`,
  start: (project: string) => `/p/${encodeURIComponent(project)}/start`,
  report: (project: string, tx: number | string) => `/p/${encodeURIComponent(project)}/reports/${tx}`,
  metricExport: (project: string) => `/p/${encodeURIComponent(project)}/settings/metric-export`,
  newStore: (project: string, search = '') => `/p/${encodeURIComponent(project)}/settings/metric-export/stores/new${search}`,
  store: (project: string, store: string, tab = '') =>
    `/p/${encodeURIComponent(project)}/settings/metric-export/stores/${encodeURIComponent(store)}${tab === '' ? '' : `?tab=${tab}`}`,
  metric: (project: string, set: string, metric: string, search = '') =>
    `/p/${encodeURIComponent(project)}/settings/metric-export/sets/${encodeURIComponent(set)}/metrics/${encodeURIComponent(metric)}${search}`,
  attributes: (project: string) => `/p/${encodeURIComponent(project)}/settings/attributes`,
  access: (project: string) => `/p/${encodeURIComponent(project)}/settings/access`,
  auditLog: (only: Record<string, string | number> = {}) => {
    const search = new URLSearchParams(Object.entries(only).map(([name, value]) => [name, String(value)])).toString();
    return search === '' ? '/audit-log' : `/audit-log?${search}`;
  },
};

/** The page of a path; undefined for an address that is none. */
export function readRoute(path: string): Route | undefined {
  const parts = path.split('/').filter((part) => part !== '');
  const texts = parts.map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  });
  const [first, project, second, third, fourth, fifth, sixth, seventh] = texts;
  if (first === undefined) return { page: 'home' };
  if (texts.length === 1 && (first === 'login' || first === 'system' || first === 'audit-log' || first === 'account'))
    return { page: first };
  if (first !== 'p' || project === undefined) return undefined;
  if (texts.length === 3 && (second === 'explore' || second === 'start')) return { page: second, project };
  if (texts.length === 4 && second === 'reports' && third) return { page: 'report', project, tx: third };
  if (second !== 'settings') return undefined;
  if (texts.length === 4 && (third === 'metric-export' || third === 'attributes' || third === 'access'))
    return { page: third, project };
  if (texts.length === 6 && third === 'metric-export' && fourth === 'stores' && fifth !== undefined) {
    return fifth === 'new' ? { page: 'new-store', project } : { page: 'store', project, store: fifth };
  }
  if (texts.length === 8 && third === 'metric-export' && fourth === 'sets' && sixth === 'metrics')
    return { page: 'metric', project, set: fifth as string, metric: seventh as string };
  return undefined;
}

/** Goes to an address of this page; Back comes back. */
export function go(address: string, replace = false) {
  if (address === location.pathname + location.search) return;
  if (replace) history.replaceState(null, '', address);
  else history.pushState(null, '', address);
  dispatchEvent(new PopStateEvent('popstate'));
}

export function useAddress(): { path: string; search: string } {
  const read = () => ({ path: location.pathname, search: location.search });
  const [address, setAddress] = useState(read);
  useEffect(() => {
    const changed = () => setAddress(read());
    addEventListener('popstate', changed);
    return () => removeEventListener('popstate', changed);
  }, []);
  return address;
}

/** Links stay links: a plain click goes without loading anew, every other click is the browser's. */
export function followLink(event: MouseEvent) {
  const link = (event.target as Element | null)?.closest?.('a');
  if (!link || event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey)
    return;
  const url = new URL(link.href, location.href);
  if (url.origin !== location.origin || link.target !== '' || link.hasAttribute('download') || !readRoute(url.pathname)) return;
  event.preventDefault();
  go(url.pathname + url.search);
}
