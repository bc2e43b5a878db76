// How the server is doing: its own figures, and the balance of every store of every project.
import { get, of } from '../api/client';
import { useResource } from '../api/resource';
import type { Store, StoreStatus } from '../api/types';
import { useApp, useNow } from '../app/context';
import { paths } from '../app/routes';
import { EVERY_MS } from '../export/MetricExport';
import { Status } from '../export/status';
import { bytes, shown } from '../model/format';
import { ErrorBox, Loading, Scroll } from '../ui/parts';

type Row = { project: string; store: Store; status: StoreStatus };

/** Lines of `/metrics` that say most, with what they mean. */
const FIGURES: [RegExp, string][] = [
  [/^crashmeter_submissions_total\{outcome="accepted"\} (.+)$/m, 'Reports accepted since the start'],
  [/^crashmeter_submissions_total\{outcome="duplicate"\} (.+)$/m, 'Repeats recognised'],
  [/^crashmeter_submissions_total\{outcome="refused"\} (.+)$/m, 'Submissions refused'],
  [/^crashmeter_ledger_imbalance (.+)$/m, 'Points by which the ledgers are off'],
];
const SUSPECT = /^crashmeter_clock_suspect 1$/m;
const FREE = /^crashmeter_disk_free_bytes (.+)$/m;
const RESERVE = /^crashmeter_disk_reserve_bytes (.+)$/m;

export function System() {
  const { projects } = useApp();
  const now = useNow();
  const page = useResource<string>(
    'metrics',
    async (signal) => {
      const reply = await fetch('/metrics', { signal });
      return reply.text();
    },
    { every: EVERY_MS },
  );
  const rows = useResource<Row[]>(
    'balances',
    async (signal) => {
      const each = projects.map(async (project) => {
        const stores = await get<Store[]>(of(project, 'metric-stores'), signal);
        return Promise.all(
          stores.map(async (store) => ({
            project,
            store,
            status: await get<StoreStatus>(of(project, 'metric-stores', store.name, 'status'), signal),
          })),
        );
      });
      return (await Promise.all(each)).flat();
    },
    { every: EVERY_MS },
  );
  const bytesIn = (line: RegExp) => Number(line.exec(page.data ?? '')?.[1] ?? Number.NaN);
  const [free, reserve] = [bytesIn(FREE), bytesIn(RESERVE)];
  return (
    <main id="page">
      <h1>System</h1>
      {free < reserve && (
        <div class="notice bad" role="alert">
          The disk is nearly full: reports are refused until more than {bytes(reserve)} are free. Make room, or keep fewer reports
          with <code>--retain-size</code> or <code>--retain-days</code>.
        </div>
      )}
      {SUSPECT.test(page.data ?? '') && (
        <div class="notice bad" role="alert">
          The server's clock is not believed: it has stepped ahead, or was far ahead of all reports when the server started.
          Windows go on by the time that has really passed. Set the clock right; a step that was meant is taken after ten minutes.
        </div>
      )}
      {page.error && <ErrorBox error={page.error} retry={page.reload} />}
      <section class="panel">
        <h2>Server</h2>
        {page.data ? (
          <dl class="pairs">
            {FIGURES.map(([line, title]) => {
              const value = line.exec(page.data ?? '')?.[1];
              return value === undefined
                ? null
                : [<dt key={title}>{title}</dt>, <dd key={`${title}=`}>{shown(Number(value))}</dd>];
            })}
            <dt>Free on the disk</dt>
            <dd>{bytes(free)}</dd>
          </dl>
        ) : (
          <Loading />
        )}
        <p class="small">
          <a href="/metrics" target="_blank" rel="noreferrer">
            /metrics
          </a>{' '}
          ·{' '}
          <a href="/api/openapi.json" target="_blank" rel="noreferrer">
            the API
          </a>{' '}
          ·{' '}
          <a href="/assets/licenses.md" target="_blank" rel="noreferrer">
            licences of what this page is made of
          </a>
        </p>
      </section>
      <section class="panel">
        <h2>Balance of every push store</h2>
        <p class="soft small">Every point that a store is owed has one fate; what is due is the sum of the fates.</p>
        {rows.error && <ErrorBox error={rows.error} retry={rows.reload} />}
        {!rows.data ? (
          <Loading />
        ) : (
          <Scroll label="Balances">
            <table>
              <thead>
                <tr>
                  <th>Store</th>
                  <th>Status</th>
                  {['due', 'confirmed', 'sent', 'refused', 'excluded', 'open', 'expired', 'cancelled'].map((fate) => (
                    <th key={fate} class="number">
                      {fate}
                    </th>
                  ))}
                  <th>Adds up</th>
                </tr>
              </thead>
              <tbody>
                {rows.data.map(({ project, store, status }) => (
                  <tr key={`${project}\u0001${store.name}`}>
                    <td>
                      <a href={paths.store(project, store.name)}>
                        {project} / {store.name}
                      </a>
                    </td>
                    <td>
                      <Status status={status} now={now} />
                    </td>
                    {(['due', 'confirmed', 'sent', 'refused', 'excluded', 'open', 'expired', 'cancelled'] as const).map(
                      (fate) => (
                        <td key={fate} class="number">
                          {shown(status.points[fate])}
                        </td>
                      ),
                    )}
                    <td class={status.imbalance === '0' ? 'good' : 'bad'}>
                      {status.imbalance === '0' ? '✓ yes' : `▲ off by ${status.imbalance}`}
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
            {rows.data.length === 0 && <p class="soft">There is no store yet.</p>}
          </Scroll>
        )}
      </section>
    </main>
  );
}
