// A store's form, made from the adapter's own description. The server checks; a fault stands at its field.
import { useId, useState } from 'preact/hooks';
import { type ApiError, ask, get, of, post } from '../api/client';
import { useResource } from '../api/resource';
import type { Adapter, Field, MetricSet, Outcome, Store } from '../api/types';
import { go, paths } from '../app/routes';
import { fromLines, type Pairs, toLines } from '../model/pairs';
import { ErrorBox, Loading } from '../ui/parts';

type Values = Record<string, string | boolean>;

const SECRET = ['secret', 'secret_url'];

export function NewStore({ project, search }: { project: string; search: string }) {
  const given = new URLSearchParams(search);
  const adapters = useResource<Adapter[]>('adapters', (signal) => get('/adapters', signal));
  const sets = useResource<MetricSet[]>('sets', (signal) => get(of(project, 'metric-sets'), signal));
  const chosen = adapters.data?.find((one) => one.name === given.get('adapter'));
  const fault = adapters.error ?? sets.error;
  return (
    <main id="page" class="narrow">
      <p>
        <a href={paths.metricExport(project)}>Metric Export</a>
      </p>
      <h1>Add store</h1>
      {fault && <ErrorBox error={fault} retry={adapters.reload} />}
      {!adapters.data || !sets.data ? (
        <Loading />
      ) : (
        <>
          <nav class="row" aria-label="Kind of store">
            {adapters.data.map((adapter) => {
              const next = new URLSearchParams(given);
              next.set('adapter', adapter.name);
              return (
                <a
                  key={adapter.name}
                  class={adapter === chosen ? 'button main' : 'button'}
                  aria-current={adapter === chosen ? 'page' : undefined}
                  href={paths.newStore(project, `?${next}`)}
                >
                  {adapter.title}
                </a>
              );
            })}
          </nav>
          <p />
          {chosen ? (
            <StoreForm key={chosen.name} project={project} adapter={chosen} sets={sets.data} checked={given.getAll('set')} />
          ) : (
            <p class="soft">Choose where the metrics go. A push store is sent each window; a pull store reads a page.</p>
          )}
        </>
      )}
    </main>
  );
}

type Props = { project: string; adapter: Adapter; sets: MetricSet[]; checked?: string[]; store?: Store; saved?: () => void };

export function StoreForm({ project, adapter, sets, checked = [], store, saved }: Props) {
  const own = adapter.fields.filter((field) => !field.generated);
  const [name, setName] = useState(store?.name ?? adapter.name.replace('_', '-'));
  const [period, setPeriod] = useState(String(store?.period ?? 60));
  const [prefix, setPrefix] = useState(store?.prefix ?? 'crashmeter');
  const [template, setTemplate] = useState(asText(store?.template, '{prefix}.{project}.{set}.{metric}'));
  const [labels, setLabels] = useState(toLines((store?.labels as Pairs | undefined) ?? {}));
  const [labelNames, setLabelNames] = useState(toLines((store?.label_names as Pairs | undefined) ?? {}));
  const [horizon, setHorizon] = useState(asText(store?.horizon, '259200'));
  const [chosen, setChosen] = useState<string[]>(
    store?.sets ?? (checked.length > 0 ? checked : sets.length === 1 ? sets.map((set) => set.name) : []),
  );
  const [values, setValues] = useState<Values>(() => Object.fromEntries(own.map((field) => [field.name, initial(field, store)])));
  const [error, setError] = useState<ApiError>();
  const [outcome, setOutcome] = useState<Outcome>();
  const [busy, setBusy] = useState(false);

  const body = () => {
    const fields: Record<string, unknown> = { adapter: adapter.name, period: Number(period), sets: chosen, prefix, template };
    fields.labels = fromLines(labels).pairs;
    fields.label_names = fromLines(labelNames).pairs;
    if (horizon !== '') fields.horizon = Number(horizon);
    if (store && 'enabled' in store) fields.enabled = store.enabled;
    for (const field of own) {
      const value = values[field.name];
      if (value === '' || value === undefined) continue;
      fields[field.name] = field.kind === 'integer' || field.kind === 'port' ? Number(value) : value;
    }
    return fields;
  };
  const run = async (work: () => Promise<void>) => {
    if (fromLines(labels).fault || fromLines(labelNames).fault) return;
    setBusy(true);
    setError(undefined);
    setOutcome(undefined);
    try {
      await work();
    } catch (fault) {
      setError(fault as ApiError);
    } finally {
      setBusy(false);
    }
  };
  const test = () => run(async () => setOutcome(await post<Outcome>(of(project, 'test'), { store: { ...body(), name } })));
  const save = (event: Event) => {
    event.preventDefault();
    run(async () => {
      await ask('PUT', of(project, 'metric-stores', name), { body: body(), ...(store ? { revision: store.revision } : {}) });
      if (saved) saved();
      else go(paths.store(project, name));
    });
  };
  const faults = new Map(
    (error?.problems.length ? error.problems : error ? [{ field: error.field, detail: error.message }] : []).map((one) => [
      one.field.replace(/^store\./, ''),
      one.detail,
    ]),
  );
  const placed = [
    'name',
    'period',
    'sets',
    'prefix',
    'template',
    'labels',
    'label_names',
    'horizon',
    ...own.map((field) => field.name),
  ];
  const elsewhere = error && [...faults.keys()].some((field) => !placed.includes(field));

  return (
    <form class="panel stack" onSubmit={save} noValidate>
      <p class="soft">{adapter.summary}</p>
      <div class="grid2">
        <label class="field">
          <span class="label">Name</span>
          <input value={name} required disabled={store !== undefined} onInput={(event) => setName(event.currentTarget.value)} />
          <Fault text={faults.get('name') ?? faults.get('store')} />
        </label>
        <label class="field">
          <span class="label">Period in seconds</span>
          <input type="number" min="1" max="86400" value={period} onInput={(event) => setPeriod(event.currentTarget.value)} />
          <Fault text={faults.get('period')} />
        </label>
      </div>
      <fieldset class="sets">
        <legend class="label">Metric sets</legend>
        {sets.length === 0 && <p class="soft">There is none yet: make a metric in Explore first.</p>}
        <div class="row">
          {sets.map((set) => (
            <label class="row" key={set.name}>
              <input
                type="checkbox"
                checked={chosen.includes(set.name)}
                onChange={(event) =>
                  setChosen(event.currentTarget.checked ? [...chosen, set.name] : chosen.filter((one) => one !== set.name))
                }
              />
              {set.name}
            </label>
          ))}
        </div>
        <Fault text={faults.get('sets')} />
      </fieldset>
      <div class="grid2">
        {own.map((field) => (
          <FieldInput
            key={field.name}
            field={field}
            value={values[field.name] ?? ''}
            isSet={store?.secrets_set.includes(field.name) ?? false}
            fault={faults.get(field.name)}
            change={(value) => setValues({ ...values, [field.name]: value })}
          />
        ))}
        <label class="field">
          <span class="label">Prefix</span>
          <input value={prefix} onInput={(event) => setPrefix(event.currentTarget.value)} />
          <span class="help">first node of every name</span>
          <Fault text={faults.get('prefix')} />
        </label>
      </div>
      <details open={['template', 'labels', 'label_names', 'horizon'].some((field) => faults.has(field))}>
        <summary>Names, labels and how long to try</summary>
        <div class="grid2">
          <Line name="template" value={template} change={setTemplate} fault={faults.get('template')}>
            the nodes of a name; each placeholder is a whole node
          </Line>
          <Line name="horizon" value={horizon} change={setHorizon} fault={faults.get('horizon')} number>
            seconds for which a window is tried again before it expires
          </Line>
          <Line name="labels" value={labels} change={setLabels} fault={fromLines(labels).fault ?? faults.get('labels')} rows={3}>
            labels that every series gets, one name=value a line
          </Line>
          <Line
            name="label_names"
            value={labelNames}
            change={setLabelNames}
            fault={fromLines(labelNames).fault ?? faults.get('label_names')}
            rows={3}
          >
            other names for group-by attributes, one attribute=label a line
          </Line>
        </div>
      </details>
      {elsewhere && error && <ErrorBox error={error} />}
      {outcome && (
        <div class={['confirmed', 'sent', 'read'].includes(outcome.outcome) ? 'notice good' : 'notice bad'} role="status">
          <strong>{outcome.outcome}</strong>: {outcome.detail}
          {outcome.kind !== 'page' && <span class="soft"> ({outcome.took_ms} ms)</span>}
        </div>
      )}
      <div class="row end">
        {adapter.direction === 'push' && (
          <button type="button" onClick={test} disabled={busy}>
            Send a test
          </button>
        )}
        <button type="submit" class="main" disabled={busy}>
          {store ? 'Save' : 'Save and start'}
        </button>
      </div>
    </form>
  );
}

const asText = (value: unknown, absent: string) => (value === undefined || value === null ? absent : String(value));

type LineProps = {
  name: string;
  value: string;
  fault: string | undefined;
  change: (value: string) => void;
  rows?: number;
  number?: boolean;
  children: string;
};

/** A setting that every store has, whatever its kind. */
function Line({ name, value, fault, change, rows, number, children }: LineProps) {
  const id = useId();
  const common = { id, value, 'aria-invalid': fault !== undefined, 'aria-describedby': `${id}-help` };
  const typed = (event: { currentTarget: { value: string } }) => change(event.currentTarget.value);
  return (
    <div class="field">
      <label class="label" for={id}>
        {name}
      </label>
      {rows ? (
        <textarea {...common} rows={rows} spellcheck={false} onInput={typed} />
      ) : (
        <input {...common} inputMode={number ? 'numeric' : 'text'} spellcheck={false} onInput={typed} />
      )}
      <span id={`${id}-help`}>
        <span class="help">{children}</span>
        <Fault text={fault} />
      </span>
    </div>
  );
}

function initial(field: Field, store: Store | undefined): string | boolean {
  const known = store?.[field.name];
  if (SECRET.includes(field.kind)) return '';
  if (typeof known === 'string' || typeof known === 'boolean') return known;
  if (typeof known === 'number') return String(known);
  if (field.kind === 'bool') return field.default === true;
  return field.default === null ? '' : String(field.default);
}

const Fault = ({ text }: { text: string | undefined }) =>
  text === undefined ? null : (
    <span class="error" role="alert">
      {text}
    </span>
  );

type FieldProps = {
  field: Field;
  value: string | boolean;
  isSet: boolean;
  fault: string | undefined;
  change: (value: string | boolean) => void;
};

function FieldInput({ field, value, isSet, fault, change }: FieldProps) {
  const text = typeof value === 'string' ? value : '';
  const id = useId();
  const common = {
    id,
    required: field.required && !isSet,
    'aria-invalid': fault !== undefined,
    'aria-describedby': `${id}-help`,
    placeholder: field.example,
  };
  const typed = (event: { currentTarget: { value: string } }) => change(event.currentTarget.value);
  let input = <input {...common} value={text} autocomplete="off" onInput={typed} />;
  if (field.kind === 'choice') {
    input = (
      <select {...common} value={text} onChange={typed}>
        {field.choices.map((choice) => (
          <option key={choice}>{choice}</option>
        ))}
      </select>
    );
  } else if (field.kind === 'bool') {
    input = (
      <span class="row">
        <input
          id={id}
          aria-describedby={`${id}-help`}
          type="checkbox"
          checked={value === true}
          onChange={(event) => change(event.currentTarget.checked)}
        />
      </span>
    );
  } else if (SECRET.includes(field.kind)) {
    input = (
      <input
        {...common}
        type="password"
        autocomplete="off"
        value={text}
        placeholder={isSet ? 'set; leave empty to keep it' : ''}
        onInput={typed}
      />
    );
  } else if (field.kind === 'certificates') {
    input = <textarea {...common} rows={3} value={text} onInput={typed} />;
  } else if (field.kind === 'integer' || field.kind === 'port') {
    input = <input {...common} type="number" value={text} onInput={typed} />;
  }
  return (
    <div class="field">
      <label class="label" for={id}>
        {field.name}
        {field.required && <span class="soft"> (needed)</span>}
      </label>
      {input}
      <span id={`${id}-help`}>
        <span class="help">{field.help}</span>
        <Fault text={fault} />
      </span>
    </div>
  );
}
