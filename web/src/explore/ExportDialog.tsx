// A query becomes a metric: name, series to expect, the exact bytes, where to send it. One screen.
import { useEffect, useState } from 'preact/hooks';
import { type ApiError, ask, get, of, post } from '../api/client';
import { useResource } from '../api/resource';
import type { Adapter, MetricSet, Preview, Store, Wire } from '../api/types';
import { clock, useApp } from '../app/context';
import { paths } from '../app/routes';
import { WireView } from '../export/WireView';
import { shown } from '../model/format';
import { aggregateName, type ExploreQuery, queryBody } from '../model/query';
import { Dialog, ErrorBox, Later } from '../ui/parts';

/** Aggregates with one number a window. */
const EXPORTED = ['count', 'unique', 'sum', 'min', 'max', 'mean', 'first', 'last'];

export function ExportDialog({ project, query, close }: { project: string; query: ExploreQuery; close: () => void }) {
  const { zone } = useApp();
  const sets = useResource<MetricSet[]>('sets', (signal) => get(of(project, 'metric-sets'), signal));
  const stores = useResource<Store[]>('stores', (signal) => get(of(project, 'metric-stores'), signal));
  const adapters = useResource<Adapter[]>('adapters', (signal) => get('/adapters', signal));
  const [set, setSet] = useState<string>();
  const [name, setName] = useState(() => suggested(query));
  const [shownIn, setShownIn] = useState<string>();
  const [error, setError] = useState<ApiError>();
  const [saved, setSaved] = useState<string>();
  const [busy, setBusy] = useState(false);
  const chosenSet = set ?? sets.data?.[0]?.name ?? `${project}Errors`;
  const taken = sets.data?.find((one) => one.name === chosenSet)?.metrics.some((metric) => metric.name === name);
  const body = { query: queryBody(query) };
  const unfit = query.aggregates.filter((one) => !EXPORTED.includes(one.operator)).map(aggregateName);
  const store = shownIn ?? stores.data?.[0]?.name;
  const [asked, setAsked] = useState({ set: chosenSet, name });
  useEffect(() => {
    const timer = setTimeout(() => setAsked({ set: chosenSet, name }), 300);
    return () => clearTimeout(timer);
  }, [chosenSet, name]);
  const preview = useResource<Preview>(
    JSON.stringify([asked, store, body]),
    (signal) => post(of(project, 'preview'), { metric: body, ...asked, ...(store ? { store } : {}) }, signal),
    { on: asked.name !== '' && asked.set !== '' && stores.data !== undefined },
  );
  const wire = preview.data?.store as Wire | null | undefined;
  const series = preview.data?.series;

  const save = async (event: Event) => {
    event.preventDefault();
    setBusy(true);
    setError(undefined);
    try {
      await ask('PUT', of(project, 'metric-sets', chosenSet, 'metrics', name), { body });
      setSaved(chosenSet);
      sets.reload();
      stores.reload();
    } catch (fault) {
      setError(fault as ApiError);
    } finally {
      setBusy(false);
    }
  };
  const attach = async (to: Store) => {
    setError(undefined);
    try {
      // What is only shown is passed over by the server; secrets that are left out are kept.
      const fields = Object.fromEntries(
        Object.entries(to).filter(([field]) => !['username', 'password', 'bearer'].includes(field) || !to.url),
      );
      await ask('PUT', of(project, 'metric-stores', to.name), {
        body: { ...fields, sets: [...to.sets, chosenSet] },
        revision: to.revision,
      });
      stores.reload();
    } catch (fault) {
      setError(fault as ApiError);
    }
  };

  if (saved !== undefined) {
    const attached = stores.data?.filter((one) => one.sets.includes(saved)) ?? [];
    const others = stores.data?.filter((one) => !one.sets.includes(saved)) ?? [];
    return (
      <Dialog title="Saved" close={close}>
        <div class="stack">
          <div class="notice good" role="status">
            <strong>{name}</strong> is in the set <strong>{saved}</strong>, which goes to{' '}
            {attached.length === 0 ? 'no store yet' : attached.map((one) => one.name).join(', ')}.
          </div>
          {error && <ErrorBox error={error} />}
          {others.length > 0 && (
            <div class="row">
              <span class="soft">Send it to:</span>
              {others.map((one) => (
                <button type="button" key={one.name} onClick={() => attach(one)}>
                  {one.name}
                </button>
              ))}
            </div>
          )}
          <div class="row">
            <span class="soft">{others.length > 0 ? 'Or to a new store:' : 'Send it to a new store:'}</span>
            {adapters.data?.map((adapter) => (
              <a
                class="button"
                key={adapter.name}
                href={paths.newStore(project, `?adapter=${adapter.name}&set=${encodeURIComponent(saved)}`)}
              >
                {adapter.title}
              </a>
            ))}
          </div>
          <div class="row end">
            <a class="button" href={paths.metricExport(project)}>
              Metric Export
            </a>
            <button type="button" class="main" onClick={close}>
              Done
            </button>
          </div>
        </div>
      </Dialog>
    );
  }
  return (
    <Dialog title="Export as metric" close={close}>
      <form class="stack" onSubmit={save}>
        <p class="soft">
          The filters, groups and aggregates are saved; the time frame is not: each window is counted once, when it is over.
        </p>
        <div class="grid2">
          <label class="field">
            <span class="label">Name</span>
            <input value={name} required onInput={(event) => setName(event.currentTarget.value)} />
            {taken && <span class="help warn">This set has a metric of that name: saving replaces its query.</span>}
          </label>
          <label class="field">
            <span class="label">Metric set</span>
            <input value={chosenSet} required list="metric-sets" onInput={(event) => setSet(event.currentTarget.value)} />
            <datalist id="metric-sets">
              {sets.data?.map((one) => (
                <option key={one.name} value={one.name} />
              ))}
            </datalist>
            <span class="help">Stores are attached to sets.</span>
          </label>
        </div>
        {unfit.length > 0 && (
          <div class="notice bad" role="alert">
            {unfit.join(', ')} cannot be exported: a metric needs one number a window.
          </div>
        )}
        {preview.error && <ErrorBox error={preview.error} />}
        {error && <ErrorBox error={error} />}
        {series && (
          <div class={series.over_budget ? 'notice warn' : 'notice'} role="status">
            <strong>{shown(series.forecast)} series</strong> to be expected, {shown(series.now)} in the last window;{' '}
            {shown(series.groups_last_day)} groups in the last 24 hours. The first point comes at{' '}
            {preview.data ? clock(preview.data.first_point, zone) : ''}.
            {series.over_budget &&
              ` Beyond the budget of ${shown(series.series_budget)} the rest is one exact series, __other__.`}
          </div>
        )}
        {preview.data?.warnings.map((warning) => (
          <div class="notice warn" key={warning}>
            {warning}
          </div>
        ))}
        {stores.data && stores.data.length > 0 && (
          <section>
            <div class="tabs" role="tablist" aria-label="What a store would get">
              {stores.data.map((one) => (
                <button
                  type="button"
                  role="tab"
                  key={one.name}
                  aria-selected={one.name === store}
                  onClick={() => setShownIn(one.name)}
                >
                  {one.name}
                </button>
              ))}
            </div>
            {wire ? (
              <WireView wire={wire} />
            ) : (
              preview.loading && (
                <Later>
                  <p class="soft">Asking for the bytes…</p>
                </Later>
              )
            )}
          </section>
        )}
        <div class="row end">
          <button type="button" onClick={close}>
            Cancel
          </button>
          <button type="submit" class="main" disabled={busy || unfit.length > 0}>
            Save
          </button>
        </div>
      </form>
    </Dialog>
  );
}

/** A name out of the query: `ErrorsByVersion`. */
function suggested(query: ExploreQuery): string {
  const word = (text: string) =>
    text
      .split(/[^A-Za-z0-9]+/)
      .filter((part) => part !== '')
      .map((part) => part.charAt(0).toUpperCase() + part.slice(1))
      .join('');
  const first = query.aggregates[0];
  const what = first ? word(aggregateName(first)) : 'Errors';
  return `${what}${query.group.length > 0 ? `By${query.group.map(word).join('And')}` : ''}`;
}
