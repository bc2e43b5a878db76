// Metric Export of a project: its stores with how they are doing, its sets with their metrics. Renewed by itself.
import { useState } from 'preact/hooks';
import { type ApiError, ask, get, of } from '../api/client';
import { useResource } from '../api/resource';
import type { Adapter, Metric, MetricSet, Store, StoreStatus } from '../api/types';
import { may, useApp, useNow } from '../app/context';
import { paths } from '../app/routes';
import { describe, fromBody, writeQuery } from '../model/query';
import { Dialog, Empty, ErrorBox, Loading, Scroll } from '../ui/parts';
import { Status, Ticks } from './status';

/** Milliseconds from look to look while no changes are told. */
export const EVERY_MS = 5_000;

export function MetricExport({ project }: { project: string }) {
  const { me } = useApp();
  const now = useNow();
  const editor = may(me, 'edit');
  const sets = useResource<MetricSet[]>('sets', (signal) => get(of(project, 'metric-sets'), signal), {
    every: EVERY_MS,
    topics: ['configuration'],
  });
  const stores = useResource<Store[]>('stores', (signal) => get(of(project, 'metric-stores'), signal), {
    every: EVERY_MS,
    topics: ['configuration'],
  });
  const adapters = useResource<Adapter[]>('adapters', (signal) => get('/adapters', signal));
  const names = stores.data?.map((store) => store.name) ?? [];
  const statuses = useResource<Map<string, StoreStatus>>(
    names.join('\u0001'),
    async (signal) => {
      const each = names.map(
        async (name) => [name, await get<StoreStatus>(of(project, 'metric-stores', name, 'status'), signal)] as const,
      );
      return new Map(await Promise.all(each));
    },
    { every: EVERY_MS, topics: ['stores', 'configuration'], on: names.length > 0 },
  );
  const [error, setError] = useState<ApiError>();
  const [deleting, setDeleting] = useState<Metric>();

  const act = async (method: string, path: string) => {
    setError(undefined);
    try {
      await ask(method, path);
      stores.reload();
      sets.reload();
      statuses.reload();
    } catch (fault) {
      setError(fault as ApiError);
    }
  };
  if (sets.error && !sets.data) return <main id="page">{<ErrorBox error={sets.error} retry={sets.reload} />}</main>;
  if (!sets.data || !stores.data) return <Loading />;
  const title = (adapter: string) => adapters.data?.find((one) => one.name === adapter);

  return (
    <main id="page">
      <div class="spread">
        <h1>Metric Export</h1>
        {editor && sets.data.length > 0 && (
          <a class="button main" href={paths.newStore(project)}>
            Add store
          </a>
        )}
      </div>
      {(sets.error ?? stores.error ?? statuses.error) && (
        <div class="notice warn">The server does not answer; this is how it was before.</div>
      )}
      {error && <ErrorBox error={error} />}

      {sets.data.length === 0 && stores.data.length === 0 ? (
        <Empty title="Nothing is exported yet">
          <ol class="steps">
            <li>
              <strong>Make a metric in Explore</strong>: query what you want to watch, then Export as metric.
            </li>
            <li>Add a store: Datadog, Grafana, Graphite, InfluxDB, Prometheus, Circonus.</li>
            <li>See the first point with the next whole window.</li>
          </ol>
          <a class="button main" href={paths.explore(project)}>
            Create a metric set in Explore
          </a>
        </Empty>
      ) : (
        <>
          <section class="panel">
            <h2>Metric stores</h2>
            {stores.data.length === 0 ? (
              <p class="soft">None yet. The sets below go nowhere until a store has them.</p>
            ) : (
              <Scroll label="Metric stores">
                <table>
                  <thead>
                    <tr>
                      <th>Store</th>
                      <th>Sets</th>
                      <th class="number">Period</th>
                      <th>Status</th>
                      <th>Last attempts</th>
                      <th>
                        <span class="hidden">Actions</span>
                      </th>
                    </tr>
                  </thead>
                  <tbody>
                    {stores.data.map((store) => {
                      const status = statuses.data?.get(store.name);
                      const adapter = title(store.adapter);
                      const push = adapter?.direction === 'push';
                      return (
                        <tr key={store.name}>
                          <td>
                            <a href={paths.store(project, store.name)}>{store.name}</a>
                            <div class="soft small">{adapter?.title ?? store.adapter}</div>
                          </td>
                          <td>{store.sets.join(', ') || <span class="soft">none</span>}</td>
                          <td class="number">{store.period} s</td>
                          <td>{status ? <Status status={status} now={now} /> : <span class="soft">…</span>}</td>
                          <td>{status && push ? <Ticks attempts={status.attempts} /> : <span class="soft">–</span>}</td>
                          <td>
                            {push && editor && (
                              <span class="row">
                                <button
                                  type="button"
                                  onClick={() => act('POST', of(project, 'metric-stores', store.name, 'send-now'))}
                                >
                                  Send now
                                </button>
                                <button
                                  type="button"
                                  onClick={() =>
                                    act('POST', of(project, 'metric-stores', store.name, store.paused ? 'resume' : 'pause'))
                                  }
                                >
                                  {store.paused ? 'Resume' : 'Pause'}
                                </button>
                              </span>
                            )}
                          </td>
                        </tr>
                      );
                    })}
                  </tbody>
                </table>
              </Scroll>
            )}
          </section>

          {sets.data.map((set) => (
            <section class="panel" key={set.name}>
              <div class="spread">
                <h2>{set.name}</h2>
                <span class="soft">{set.stores.length === 0 ? 'goes to no store' : `goes to ${set.stores.join(', ')}`}</span>
              </div>
              <Scroll label={`Metrics of ${set.name}`}>
                <table>
                  <thead>
                    <tr>
                      <th>Metric</th>
                      <th>Query</th>
                      <th>
                        <span class="hidden">Actions</span>
                      </th>
                    </tr>
                  </thead>
                  <tbody>
                    {set.metrics.map((metric) => {
                      const explored = fromBody(metric.query);
                      return (
                        <tr key={metric.name}>
                          <td>
                            <a href={paths.metric(project, set.name, metric.name)}>{metric.name}</a>
                          </td>
                          <td>
                            {describe(metric.query)}
                            {metric.warnings.map((warning) => (
                              <div class="warn small" key={warning}>
                                {warning}
                              </div>
                            ))}
                          </td>
                          <td>
                            <span class="row end">
                              {explored.exact && (
                                <a class="button" href={paths.explore(project, writeQuery(explored.query))}>
                                  Open in Explore
                                </a>
                              )}
                              {editor && (
                                <button type="button" class="danger" onClick={() => setDeleting(metric)}>
                                  Delete
                                </button>
                              )}
                            </span>
                          </td>
                        </tr>
                      );
                    })}
                  </tbody>
                </table>
                {set.metrics.length === 0 && <p class="soft">No metric is in it.</p>}
              </Scroll>
            </section>
          ))}
        </>
      )}
      {deleting && (
        <Dialog title={`Delete ${deleting.name}?`} close={() => setDeleting(undefined)}>
          <p>
            Its series stop in {sets.data.find((set) => set.name === deleting.set)?.stores.join(', ') || 'no store'} with the next
            window. What was exported stays there.
          </p>
          <div class="row end">
            <button type="button" onClick={() => setDeleting(undefined)}>
              Keep it
            </button>
            <button
              type="button"
              class="danger"
              onClick={() => {
                act('DELETE', of(project, 'metric-sets', deleting.set, 'metrics', deleting.name));
                setDeleting(undefined);
              }}
            >
              Delete
            </button>
          </div>
        </Dialog>
      )}
    </main>
  );
}
