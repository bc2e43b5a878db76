// How long a person waits for a thousand rows: from the click that asks for them until they are painted, with the server's work.
// Prints one line of JSON with the milliseconds of each run; `make bench` reads it. No test: it passes whatever it takes.

import { expect, logIn, submit, test } from '../e2e/server';

const ROWS = 1_000;
const RUNS = 15;

test('a thousand rows', async ({ page, server }) => {
  test.setTimeout(300_000);
  const url = await server.project('shooter');
  await Promise.all(
    Array.from({ length: 20 }, async (_, lane) => {
      for (let at = 0; at < 55; at += 1) await submit(url, { hostname: `host-${lane}-${at}`, guid: `player-${at}` });
    }),
  );
  await logIn(page, server);
  const runs: number[] = [];
  for (let run = 0; run < RUNS; run += 1) {
    await page.goto(`${server.url}/p/shooter/explore?g=hostname&a=unique%7E_tx&a=unique%7Eguid`);
    await expect(page.getByRole('table').getByRole('row')).toHaveCount(102);
    const took = await page.evaluate(async (rows) => {
      const button = [...document.querySelectorAll('button')].find((one) => one.textContent?.startsWith('Show up to'));
      if (!button) throw new Error('there is no button for more rows');
      const began = performance.now();
      button.click();
      const frame = () => new Promise((done) => requestAnimationFrame(done));
      while (document.querySelectorAll('table tbody tr').length < rows) await frame();
      // The frame that holds them is painted when the next one begins.
      await frame();
      await frame();
      return performance.now() - began;
    }, ROWS);
    runs.push(took);
  }
  console.log(JSON.stringify({ name: `${ROWS} rows from click to paint`, milliseconds: runs }));
});
