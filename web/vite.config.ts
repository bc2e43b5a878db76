import { defineConfig } from 'vitest/config';

// The page may lie below any path: everything is asked for from the root of the server that gave it.
export default defineConfig({
  base: '/',
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
  build: { license: { fileName: 'assets/licenses.md' }, assetsInlineLimit: 0, modulePreload: { polyfill: false } },
  test: { include: ['src/**/*.test.ts'] },
  server: { proxy: { '/api': 'http://127.0.0.1:6098' } },
});
