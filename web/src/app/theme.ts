// Light or dark, UTC or local, single letters as keys or not: kept in this browser.
import { useEffect, useState } from 'preact/hooks';
import type { Zone } from '../model/time';

export type Theme = 'system' | 'light' | 'dark';

const read = (key: string) => {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
};
const write = (key: string, value: string) => {
  try {
    localStorage.setItem(key, value);
  } catch {
    // A browser that keeps nothing still shows everything.
  }
};

export const readTheme = (): Theme => {
  const kept = read('theme');
  return kept === 'light' || kept === 'dark' ? kept : 'system';
};

export function applyTheme(theme: Theme) {
  if (theme === 'system') document.documentElement.removeAttribute('data-theme');
  else document.documentElement.setAttribute('data-theme', theme);
  write('theme', theme);
  dispatchEvent(new Event('themechange'));
}

const isDark = () => {
  const theme = document.documentElement.getAttribute('data-theme');
  return theme ? theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
};

/** Whether the page is dark just now. */
export function useDark(): boolean {
  const [dark, setDark] = useState(isDark);
  useEffect(() => {
    const changed = () => setDark(isDark());
    const media = matchMedia('(prefers-color-scheme: dark)');
    media.addEventListener('change', changed);
    addEventListener('themechange', changed);
    return () => {
      media.removeEventListener('change', changed);
      removeEventListener('themechange', changed);
    };
  }, []);
  return dark;
}

export const readZone = (): Zone => (read('zone') === 'local' ? 'local' : 'UTC');
export const writeZone = (zone: Zone) => write('zone', zone);

export const readKeys = () => read('keys') !== 'off';
export const writeKeys = (on: boolean) => write('keys', on ? 'on' : 'off');
