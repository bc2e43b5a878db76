// One store: how it is doing and what to paste on its side, the exact bytes, the attempts, its settings.
import { useState } from 'preact/hooks';
import { type ApiError, ask, get, of, post } from '../api/client';
import { useResource } from '../api/resource';
import type { Adapter, MetricSet, Outcome, Snippet, Store, StoreStatus, Wire } from '../api/types';
import { may, useApp, useNow } from '../app/context';
import { go, paths } from '../app/routes';
import { bytes, shown } from '../model/format';
import { clock } from '../model/time';
import { Code, Copy, Dialog, Empty, ErrorBox, Loading, Scroll } from '../ui/parts';
import { EVERY_MS } from './MetricExport';
import { StoreForm } from './StoreForm';
import { good, Status, Ticks } from './status';
import { WireView } from './WireView';

const TABS = [
  ['', 'Overview'],
  ['output', 'Output'],
  ['attempts', 'Attempts'],
  ['configure', 'Configure'],
] as const;

export function StorePage({ project, name, search }: { project: string; name: string; search: string }) {
  const { me } = useApp();
  const now = useNow();
  const editor = may(me, 'edit');
  const path = of(project, 'metric-stores', name);
  const tab = new URLSearchParams(search).get('tab') ?? '';
  // A form that somebody fills in must not change under their hands; saving tells them.
  const editing = tab === 'configure';
  const store = useResource<Store>(
    `store ${editing}`,
    (signal) => get(path, signal),
    editing ? {} : { topics: ['configuration'] },
  );
  const status = useResource<StoreStatus>('status', (signal) => get(`${path}/status`, signal), {
    every: EVERY_MS,
    topics: ['stores', 'configuration'],
  });
  const adapters = useResource<Adapter[]>('adapters', (signal) => get('/adapters', signal));
  const [error, setError] = useState<ApiError>();
  const [outcome, setOutcome] = useState<Outcome>();
  const [deleting, setDeleting] = useState(false);
  const adapter = adapters.data?.find((one) => one.name === store.data?.adapter);

  const act = async (work: () => Promise<unknown>) => {
    setError(undefined);
    setOutcome(undefined);
    try {
      await work();
      store.reload();
      status.reload();
    } catch (fault) {
      setError(fault as ApiError);
    }
  };
  if (store.error && !store.data) return <main id="page">{<ErrorBox error={store.error} retry={store.reload} />}</main>;
  if (!store.data || !adapter) return <Loading />;
  const push = adapter.direction === 'push';
  return (
    <main id="page">
      <p>
        <a href={paths.metricExport(project)}>Metric Export</a>
      </p>
      <div class="spread">
        <h1>
          {name} <span class="soft">{adapter.title}</span>
        </h1>
        {editor && (
          <span class="row">
            {push && (
              <>
                <button type="button" onClick={() => act(() => ask('POST', `${path}/send-now`))}>
                  Send now
                </button>
                <button
                  type="button"
                  onClick={() => act(() => ask('POST', `${path}/${store.data?.paused ? 'resume' : 'pause'}`))}
                >
                  {store.data.paused ? 'Resume' : 'Pause'}
                </button>
              </>
            )}
            <button type="button" onClick={() => act(async () => setOutcome(await post<Outcome>(`${path}/test`, {})))}>
              {push ? 'Send a test' : 'Is it read?'}
            </button>
            <button type="button" class="danger" onClick={() => setDeleting(true)}>
              Delete
            </button>
          </span>
        )}
      </div>
      {error && <ErrorBox error={error} />}
      {outcome && (
        <div class={['confirmed', 'sent', 'read'].includes(outcome.outcome) ? 'notice good' : 'notice bad'} role="status">
          <strong>{outcome.outcome}</strong>: {outcome.detail}
        </div>
      )}
      <nav class="tabs" aria-label="Of this store">
        {TABS.map(([id, text]) => (
          <a key={id} href={paths.store(project, name, id)} aria-current={tab === id ? 'page' : undefined}>
            {text}
          </a>
        ))}
      </nav>
      {tab === '' && (
        <Overview
          project={project}
          store={store.data}
          push={push}
          status={status.data}
          now={now}
          editor={editor}
          rotated={store.reload}
        />
      )}
      {tab === 'output' && (
        <Output
          path={path}
          newest={status.data?.newest_sealed_window ?? null}
          chosen={new URLSearchParams(search).get('window')}
        />
      )}
      {tab === 'attempts' && status.data && <Attempts status={status.data} push={push} project={project} name={name} />}
      {tab === 'configure' &&
        (editor ? <Configure project={project} adapter={adapter} store={store.data} /> : <p>This needs the role editor.</p>)}
      {deleting && (
        <Dialog title={`Delete the store ${name}?`} close={() => setDeleting(false)}>
          <p>
            It gets no further window
            {push && status.data ? `; ${shown(status.data.points.open)} points that it has not got yet are cancelled` : ''}. What
            it has got stays there.
          </p>
          <div class="row end">
            <button type="button" onClick={() => setDeleting(false)}>
              Keep it
            </button>
            <button
              type="button"
              class="danger"
              onClick={() => act(() => ask('DELETE', path).then(() => go(paths.metricExport(project))))}
            >
              Delete
            </button>
          </div>
        </Dialog>
      )}
    </main>
  );
}

type OverviewProps = {
  project: string;
  store: Store;
  push: boolean;
  status: StoreStatus | undefined;
  now: number;
  editor: boolean;
  rotated: () => void;
};

function Overview({ project, store, push, status, now, editor, rotated }: OverviewProps) {
  const snippets = useResource<Snippet[]>(`snippets ${store.revision} ${store.url ?? ''}`, (signal) =>
    get(of(project, 'metric-stores', store.name, 'snippets'), signal),
  );
  const { zone } = useApp();
  const [revealed, setRevealed] = useState(false);
  return (
    <>
      <div class="grid2">
        <section class="panel">
          <h2>Status</h2>
          {status ? <Status status={status} now={now} /> : <Loading />}
          {status?.will_expire && <div class="notice bad">{status.will_expire.detail}</div>}
          {status?.metadata?.failure && (
            <div class="notice">
              Units and descriptions were not taken ({status.metadata.failure}). Points are not touched by that.
            </div>
          )}
          {status?.backfill && !status.backfill.outcome && (
            <div class="notice">
              Filling from stored reports: {clock(status.backfill.next, zone)} of {clock(status.backfill.from, zone)} –{' '}
              {clock(status.backfill.to, zone)}.
            </div>
          )}
          {status?.gaps.map((gap) => (
            <div class="notice" key={gap.from}>
              Gap from {clock(gap.from, zone)} to {clock(gap.to, zone)}: the server took no reports, and a 0 would be a lie.
            </div>
          ))}
          {status && push && (
            <p>
              <Ticks attempts={status.attempts} />
            </p>
          )}
        </section>
        {status && push && (
          <section class="panel">
            <h2>Points, all time</h2>
            <dl class="pairs">
              {(['due', 'confirmed', 'sent', 'refused', 'excluded', 'open', 'expired', 'cancelled'] as const).map((fate) => [
                <dt key={fate}>{fate}</dt>,
                <dd key={`${fate}=`}>{shown(status.points[fate])}</dd>,
              ])}
            </dl>
            <p class={status.imbalance === '0' ? 'good small' : 'bad'}>
              {status.imbalance === '0' ? '✓ they add up' : `▲ off by ${status.imbalance}`}
            </p>
          </section>
        )}
        {!push && store.url && (
          <section class="panel">
            <h2>Address</h2>
            <dl class="pairs">
              <dt>URL</dt>
              <dd class="mono">
                {store.url} <Copy text={store.url} />
              </dd>
              {store.username && [
                <dt key="user">User</dt>,
                <dd key="user=" class="mono">
                  {store.username} <Copy text={store.username} />
                </dd>,
              ]}
              {store.password && [
                <dt key="password">Password</dt>,
                <dd key="password=" class="mono">
                  {revealed ? store.password : '••••••••'}{' '}
                  <button type="button" onClick={() => setRevealed(!revealed)}>
                    {revealed ? 'Hide' : 'Show'}
                  </button>{' '}
                  <Copy text={store.password} />
                </dd>,
              ]}
            </dl>
            {editor && (
              <p>
                <button
                  type="button"
                  onClick={() => ask('POST', of(project, 'metric-stores', store.name, 'rotate')).then(rotated)}
                >
                  New address
                </button>{' '}
                <span class="soft small">the old one works for an hour more</span>
              </p>
            )}
          </section>
        )}
      </div>
      {snippets.error && <ErrorBox error={snippets.error} retry={snippets.reload} />}
      {snippets.data && snippets.data.length > 0 && (
        <section class="panel">
          <h2>To paste on its side</h2>
          {snippets.data.map((snippet) => (
            <details key={snippet.title}>
              <summary>{snippet.title}</summary>
              <Code text={snippet.text} label={snippet.title} />
            </details>
          ))}
        </section>
      )}
    </>
  );
}

/** The bytes of a window: of the one chosen, or of the newest, as they come. */
function Output({ path, newest, chosen }: { path: string; newest: number | null; chosen: string | null }) {
  const asked = chosen === null ? '' : `?window=${encodeURIComponent(chosen)}`;
  const wire = useResource<Wire>(`wire ${chosen ?? newest}`, (signal) => get(`${path}/preview${asked}`, signal));
  if (wire.error?.status === 409) {
    return (
      <Empty title="Nothing yet">
        <p>{wire.error.message}</p>
      </Empty>
    );
  }
  if (wire.error) return <ErrorBox error={wire.error} retry={wire.reload} />;
  return wire.data ? (
    <section class="panel">
      <WireView wire={wire.data} />
    </section>
  ) : (
    <Loading />
  );
}

type AttemptsProps = { status: StoreStatus; push: boolean; project: string; name: string };

function Attempts({ status, push, project, name }: AttemptsProps) {
  const { zone } = useApp();
  const [failed, setFailed] = useState(false);
  if (!push) return <p class="soft">This store reads us: there is nothing to attempt.</p>;
  const attempts = status.attempts.filter((one) => !failed || !good(one));
  return (
    <section class="panel">
      <label class="row">
        <input type="checkbox" checked={failed} onChange={(event) => setFailed(event.currentTarget.checked)} /> Only those that
        failed
      </label>
      {attempts.length === 0 ? (
        <p class="soft">None.</p>
      ) : (
        <Scroll label="Attempts">
          <table>
            <thead>
              <tr>
                <th>When</th>
                <th>Window</th>
                <th>Outcome</th>
                <th class="number">Points</th>
                <th class="number">Bytes</th>
                <th class="number">ms</th>
                <th>What the store said</th>
              </tr>
            </thead>
            <tbody>
              {attempts.map((one, at) => (
                <tr key={at}>
                  <td class="nowrap">{clock(one.at, zone)}</td>
                  <td class="nowrap">
                    <a href={`${paths.store(project, name, 'output')}&window=${one.window_start}`} title="What was sent">
                      {clock(one.window_start, zone, false)}
                    </a>
                  </td>
                  <td class={good(one) ? 'good' : 'bad'}>
                    {good(one) ? '● ' : '▲ '}
                    {one.outcome}
                  </td>
                  <td class="number">{shown(one.points)}</td>
                  <td class="number">{bytes(one.bytes)}</td>
                  <td class="number">{shown(one.millis)}</td>
                  <td>{one.text}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
      )}
    </section>
  );
}

function Configure({ project, adapter, store }: { project: string; adapter: Adapter; store: Store }) {
  const sets = useResource<MetricSet[]>('sets', (signal) => get(of(project, 'metric-sets'), signal));
  if (sets.error) return <ErrorBox error={sets.error} retry={sets.reload} />;
  if (!sets.data) return <Loading />;
  return (
    <StoreForm
      key={store.revision}
      project={project}
      adapter={adapter}
      sets={sets.data}
      store={store}
      saved={() => go(paths.store(project, store.name))}
    />
  );
}
