// One metric: what is exported of it and what was, over time, as it was sealed.
import { useMemo, useState } from 'preact/hooks';
import { get, of } from '../api/client';
import { useResource } from '../api/resource';
import type { Metric, MetricValues, Store } from '../api/types';
import { useApp } from '../app/context';
import { go, paths } from '../app/routes';
import { palette, shown } from '../model/format';
import { aggregateName, describe, fromBody, writeQuery } from '../model/query';
import { bounds, clock, FRAMES, readSpan, type Span, seconds, writeSpan } from '../model/time';
import { average, course, newest, seriesName, WINDOWS } from '../model/values';
import { Chart, type ChartLine } from '../ui/Chart';
import { Empty, ErrorBox, Loading, Progress, Scroll, Swatch } from '../ui/parts';
import { EVERY_MS } from './MetricExport';

/** Series with a line of their own in the chart. */
const LINES = 8;

export function MetricPage({ project, set, name, search }: { project: string; set: string; name: string; search: string }) {
  const { zone } = useApp();
  const path = of(project, 'metric-sets', set, 'metrics', name);
  const metric = useResource<Metric>('metric', (signal) => get(path, signal));
  const stores = useResource<Store[]>('stores', (signal) => get(of(project, 'metric-stores'), signal));
  const fault = metric.error ?? stores.error;
  if (fault && (!metric.data || !stores.data)) return <main id="page">{<ErrorBox error={fault} retry={metric.reload} />}</main>;
  if (!metric.data || !stores.data) return <Loading />;
  const { data } = metric;
  const explored = fromBody(data.query);
  const attached = stores.data.filter((store) => store.sets.includes(set));
  return (
    <main id="page">
      <p>
        <a href={paths.metricExport(project)}>Metric Export</a>
      </p>
      <div class="spread">
        <h1>
          {name} <span class="soft">{set}</span>
        </h1>
        {explored.exact && (
          <a class="button" href={paths.explore(project, writeQuery(explored.query))}>
            Open in Explore
          </a>
        )}
      </div>
      <section class="panel">
        <h2>What is exported</h2>
        <dl class="pairs">
          <dt>Query</dt>
          <dd>{describe(data.query)}</dd>
          <dt>Revision</dt>
          <dd>
            {data.revision}, for windows from {clock(data.begins, zone)} on
          </dd>
          <dt>Series at most</dt>
          <dd>{shown(data.series_budget)}; what is beyond is one series of all others</dd>
          <dt>Goes to</dt>
          <dd>
            {attached.length === 0 && 'no store'}
            {attached.map((store, at) => (
              <span key={store.name}>
                {at > 0 && ', '}
                <a href={paths.store(project, store.name)}>{store.name}</a> every {store.period} s
              </span>
            ))}
          </dd>
        </dl>
      </section>
      {attached.length === 0 && !new URLSearchParams(search).has('period') ? (
        <Empty title="It goes to no store, so nothing of it is exported">
          <a class="button main" href={paths.newStore(project)}>
            Add store
          </a>
        </Empty>
      ) : (
        <Values project={project} path={path} metric={data} stores={attached} search={search} />
      )}
    </main>
  );
}

type ValuesProps = { project: string; path: string; metric: Metric; stores: Store[]; search: string };

/** The sealed values of a frame; it is in the address, so Back is undo. */
function Values({ project, path, metric, stores, search }: ValuesProps) {
  const { zone, dark } = useApp();
  const [aggregate, setAggregate] = useState(0);
  const given = new URLSearchParams(search);
  const periods = [...new Set(stores.map((store) => store.period))];
  const period = Number(given.get('period') ?? periods[0]) || 60;
  const frames = FRAMES.filter(([back]) => (seconds(back) ?? 0) <= WINDOWS * period);
  const usual = frames.findLast(([back]) => (seconds(back) ?? 0) <= 86_400) ?? frames[0];
  const span: Span = readSpan(given.get('t')) ?? { back: usual?.[0] ?? '15m' };
  const change = (edit: { span?: Span; period?: number }) => {
    const to = new URLSearchParams(search);
    if (edit.span) to.set('t', writeSpan(edit.span));
    if (edit.period) {
      // A frame that fits one period may be too long for another.
      to.delete('t');
      to.set('period', String(edit.period));
    }
    go(paths.metric(project, metric.set, metric.name, `?${to}`));
  };
  const values = useResource<MetricValues>(
    `${search} ${period}`,
    (signal) => {
      const { from, to } = bounds(span, Math.floor(Date.now() / 1000));
      return get(`${path}/values?period=${period}&from=${from}&to=${to}`, signal);
    },
    'back' in span ? { every: Math.max(EVERY_MS, period * 1000), topics: ['stores'] } : {},
  );
  const told = values.data;
  const colors = palette(dark);
  const at = aggregate < (told?.aggregates.length ?? 0) ? aggregate : 0;
  const drawn = useMemo(() => (told ? course(told, at) : { starts: [], lines: [] }), [told, at]);
  const group = metric.query.group ?? [];
  const names = useMemo(() => (told?.series ?? []).map((series) => seriesName(series, group)), [told]);
  const lines: ChartLine[] = useMemo(
    () =>
      drawn.lines.slice(0, LINES).map((line, row) => ({
        name: names[row] ?? '',
        color: colors[row % colors.length] as string,
        values: line,
      })),
    [drawn, names, colors],
  );
  const frame = told ? { from: told.from, to: told.to } : undefined;
  const of_ = told?.aggregates[at];
  const title = of_ ? aggregateName(of_) : '';
  const last = told?.windows.findLast((window) => window.outcome === 'sealed');

  return (
    <section class="panel">
      <Progress on={values.loading} />
      <div class="spread">
        <h2>What was exported</h2>
        <div class="row">
          {told && told.aggregates.length > 1 && (
            <select
              aria-label="Aggregate"
              value={String(at)}
              onChange={(event) => setAggregate(Number(event.currentTarget.value))}
            >
              {told.aggregates.map((one, number) => (
                <option key={one.name} value={String(number)}>
                  {aggregateName(one)}
                </option>
              ))}
            </select>
          )}
          {periods.length > 1 && (
            <select
              aria-label="Period"
              value={String(period)}
              onChange={(event) => change({ period: Number(event.currentTarget.value) })}
            >
              {periods.map((one) => (
                <option key={one} value={String(one)}>
                  every {one} s
                </option>
              ))}
            </select>
          )}
          <select
            aria-label="Time frame"
            value={'back' in span ? span.back : 'fixed'}
            onChange={(event) => event.currentTarget.value !== 'fixed' && change({ span: { back: event.currentTarget.value } })}
          >
            {frames.map(([value, text]) => (
              <option key={value} value={value}>
                {text}
              </option>
            ))}
            {'from' in span && <option value="fixed">Chosen span</option>}
            {'back' in span && !frames.some(([value]) => value === span.back) && (
              <option value={span.back}>Last {span.back}</option>
            )}
          </select>
          {frame && (
            <>
              <button
                type="button"
                aria-label="Earlier"
                onClick={() => change({ span: { from: Math.max(2 * frame.from - frame.to, 0), to: frame.from } })}
              >
                ‹
              </button>
              <button
                type="button"
                aria-label="Later"
                onClick={() => change({ span: { from: frame.to, to: 2 * frame.to - frame.from } })}
              >
                ›
              </button>
            </>
          )}
        </div>
      </div>
      {values.error && <ErrorBox error={values.error} retry={values.reload} />}
      {!told && !values.error && <Loading />}
      {told && told.windows.length === 0 && (
        <Empty title="No window was sealed in this frame">
          <p>The first one is after a whole period of {period} s.</p>
        </Empty>
      )}
      {told && told.windows.length > 0 && (
        <div class="stack">
          <State told={told} />
          {told.series.length === 0 ? (
            <p class="soft">No series had a value.</p>
          ) : (
            <>
              <Chart
                starts={drawn.starts}
                lines={lines}
                zone={zone}
                dark={dark}
                zoom={(from, to) => change({ span: { from, to } })}
                summary={`Sealed values of ${title} over time for ${lines.length} series; the table has their averages.`}
              />
              <Scroll label="Series">
                <table>
                  <thead>
                    <tr>
                      <th>{group.join(', ') || 'Series'}</th>
                      <th class="number">{title}, newest</th>
                      <th class="number">Average a window</th>
                    </tr>
                  </thead>
                  <tbody>
                    {drawn.lines.map((line, row) => (
                      <tr key={row}>
                        <td>
                          <Swatch color={lines[row]?.color} />
                          {names[row]}
                        </td>
                        <td class="number">{shown(newest(line))}</td>
                        <td class="number">{shown(average(line))}</td>
                      </tr>
                    ))}
                  </tbody>
                </table>
              </Scroll>
              {told.more > 0 && <p class="soft small">and {shown(told.more)} more series with smaller sums</p>}
            </>
          )}
          {last && (
            <p>
              Newest window: {clock(last.start, zone)}
              {stores
                .filter((store) => store.period === period)
                .map((store, number) => (
                  <span key={store.name}>
                    {number === 0 ? '; its bytes for ' : ', '}
                    <a href={`${paths.store(project, store.name, 'output')}&window=${last.start}`}>{store.name}</a>
                  </span>
                ))}
            </p>
          )}
        </div>
      )}
    </section>
  );
}

/** What became of the windows: how many have values, and which have none and why. */
function State({ told }: { told: MetricValues }) {
  const { zone } = useApp();
  const sealed = told.windows.filter((window) => window.outcome === 'sealed');
  const gaps = told.windows.filter((window) => window.outcome === 'gap');
  const failed = told.windows.filter((window) => window.outcome === 'failed');
  const dropped = told.windows.filter((window) => window.outcome === 'dropped');
  const matched = average(sealed.map((window) => window.matched));
  const few = gaps.slice(-5);
  return (
    <>
      <dl class="pairs">
        <dt>Windows sealed</dt>
        <dd>{shown(sealed.length)}</dd>
        <dt>Reports, average a window</dt>
        <dd>{shown(matched)}</dd>
        <dt>Series, newest window</dt>
        <dd>{shown(sealed.at(-1)?.series)}</dd>
        <dt>Gaps</dt>
        <dd>{gaps.length === 0 ? 'none' : shown(gaps.length)}</dd>
      </dl>
      {few.map((gap) => (
        <div class="notice" key={gap.start}>
          Gap from {clock(gap.start, zone)} to {clock(gap.end, zone)}: the server took no reports, and a 0 would be a lie.
        </div>
      ))}
      {failed.length > 0 && (
        <div class="notice bad">
          {shown(failed.length)} {failed.length === 1 ? 'window' : 'windows'} could not be evaluated, the last at{' '}
          {clock(failed.at(-1)?.start ?? 0, zone)}: {failed.at(-1)?.failure}
        </div>
      )}
      {dropped.length > 0 && (
        <div class="notice">
          The values of {shown(dropped.length)} {dropped.length === 1 ? 'window' : 'windows'} are past their keeping; the stores
          have them.
        </div>
      )}
    </>
  );
}
