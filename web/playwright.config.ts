import { defineConfig } from '@playwright/test';

// Debian's Chromium against the real program; each test starts its own server on a free port and stops it by its pid.
export default defineConfig({
  testDir: 'e2e',
  timeout: 60_000,
  workers: 2,
  fullyParallel: true,
  reporter: [['list']],
  outputDir: process.env.CRASHMETER_E2E_OUT ?? 'test-results',
  use: {
    viewport: { width: 1280, height: 860 },
    launchOptions: {
      executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
      args: ['--no-sandbox', '--disable-dev-shm-usage'],
    },
  },
});
