import { defineConfig } from '@playwright/test';
import tests from './playwright.config';

// `make bench`: one browser at a time, nothing beside it.
export default defineConfig({ ...tests, testDir: 'bench', testMatch: '*.ts', workers: 1 });
