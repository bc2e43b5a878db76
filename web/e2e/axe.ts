// Runs axe-core in a page, under its own strict policy: the script is handed over by the browser's driver, not by the page.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import type { Page } from '@playwright/test';

const source = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const RULES = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'];

type Violation = { id: string; nodes: { target: string[]; failureSummary?: string }[] };

/** What breaks a rule of WCAG 2.2 A or AA: the rule, the place, and why. */
export async function faultsOf(page: Page): Promise<string[]> {
  await page.evaluate(source);
  const found = await page.evaluate(
    (rules) =>
      (window as unknown as { axe: { run: (what: Document, how: unknown) => Promise<{ violations: Violation[] }> } }).axe
        .run(document, { runOnly: { type: 'tag', values: rules } })
        .then((result) => result.violations),
    RULES,
  );
  return found.flatMap((one) => one.nodes.map((node) => `${one.id} at ${node.target.join(' ')}: ${node.failureSummary ?? ''}`));
}
