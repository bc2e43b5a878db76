// Explore: ask, look, narrow down, export. The query lives in the address, so Back is undo.
import { useEffect, useMemo, useState } from 'preact/hooks';
import { get, of, post } from '../api/client';
import { useResource } from '../api/resource';
import type { Answer, Attribute, ReportsAnswer } from '../api/types';
import { clock, may, useApp } from '../app/context';
import { go, paths } from '../app/routes';
import { readKeys } from '../app/theme';
import { csv, label, palette, shown } from '../model/format';
import { aggregateName, type ExploreQuery, filterBody, inFoldOrder, queryBody, readQuery, writeQuery } from '../model/query';
import { bounds, FRAMES, stepOf } from '../model/time';
import { Chart, type ChartLine } from '../ui/Chart';
import { Code, Dialog, Empty, ErrorBox, Loading, Progress } from '../ui/parts';
import { save } from '../ui/save';
import { Builder } from './Builder';
import { ExportDialog } from './ExportDialog';
import { KeysDialog, moveRow } from './Keys';
import { ReportDrawer } from './Report';
import { List, Table } from './Results';
import { Views } from './Views';

/** Groups with a line of their own in the chart. */
const LINES = 8;
const ROWS = 100;
const ALL_ROWS = 1000;

export function Explore({ project, search }: { project: string; search: string }) {
  const { me, zone, dark } = useApp();
  const { query, notices } = useMemo(() => readQuery(search), [search]);
  const [limit, setLimit] = useState(ROWS);
  const [run, setRun] = useState(0);
  const [dialog, setDialog] = useState<'export' | 'inspect' | 'keys'>();
  const [report, setReport] = useState<number>();
  const [lit, setLit] = useState<number>();

  const change = (edit: Partial<ExploreQuery>) => {
    setLimit(ROWS);
    go(paths.explore(project, writeQuery({ ...query, ...edit })));
  };
  const frame = useMemo(() => bounds(query.span, Math.ceil(Date.now() / 1000)), [query.span, run, search]);
  const step = stepOf(frame.from, frame.to);
  const descending = query.sort.startsWith('-');
  const by = query.sort.replace(/^-/, '');
  let body: unknown;
  let fault: string | undefined;
  try {
    body = {
      query: queryBody(query),
      ...frame,
      limit,
      series: { step, limit: 20 },
      ...(by === '' ? {} : { order: { by, direction: descending ? 'descending' : 'ascending' } }),
    };
  } catch (error) {
    fault = error instanceof Error ? error.message : String(error);
  }
  const key = `${search} ${run} ${limit}`;
  const attributes = useResource<Attribute[]>(`attributes ${project} ${run}`, (signal) => get(of(project, 'attributes'), signal));
  const table = useResource<Answer>(key, (signal) => post(of(project, 'query'), body, signal), {
    on: query.view === 'table' && !fault,
  });
  const selection = { filter: fault ? [] : filterBody(query.filters), columns: query.columns, ...frame, limit };
  const list = useResource<ReportsAnswer>(key, (signal) => post(of(project, 'reports'), selection, signal), {
    on: query.view === 'list' && !fault,
  });
  const active = query.view === 'table' ? table : list;

  useEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      const target = event.target as HTMLElement;
      const typing = target.closest('input, textarea, select, dialog') !== null;
      if (event.key === 'Enter' && (event.shiftKey || event.ctrlKey)) {
        event.preventDefault();
        setRun((run) => run + 1);
      } else if (event.key === '?' && !typing) {
        // Also where the others are off: it is how they are switched on.
        setDialog('keys');
      } else if (!typing && !event.ctrlKey && !event.metaKey && !event.altKey && readKeys()) {
        const open: Record<string, string> = { '/': 'add-filter', g: 'add-group', a: 'add-aggregate' };
        const id = open[event.key];
        if (id) {
          event.preventDefault();
          document.getElementById(id)?.click();
        } else if (event.key === 'e') setDialog('export');
        else if (event.key === 't') document.getElementById('time-frame')?.focus();
        else if (event.key === 'j' || event.key === 'k') moveRow(event.key === 'j' ? 1 : -1);
        else if (event.key === 'r') setRun((run) => run + 1);
        else if (event.key === 'v') change({ view: query.view === 'table' ? 'list' : 'table' });
      }
    };
    addEventListener('keydown', pressed);
    return () => removeEventListener('keydown', pressed);
  });

  const colors = palette(dark);
  const lines: ChartLine[] = useMemo(() => {
    const series = table.data?.series;
    if (!series) return [];
    return series.lines.slice(0, LINES).map((line, at) => ({
      name: line.key.length === 0 ? 'all' : line.key.map(label).join(', '),
      color: colors[at % colors.length] as string,
      values: ((line.values[0] as unknown[] | undefined) ?? line.matched).map((value) =>
        typeof value === 'number' ? value : null,
      ),
    }));
  }, [table.data, colors]);
  const visible = useMemo(
    () => (lit === undefined ? lines : lines.map((line, at) => (at === lit ? line : { ...line, color: `${line.color}30` }))),
    [lines, lit],
  );
  const narrow = (attribute: string, value: string | null, exclude: boolean) => {
    const operator = value === null ? (exclude ? 'is-set' : 'is-not-set') : exclude ? 'not-equal' : 'equal';
    change({ filters: [...query.filters, { attribute, operator, value: value ?? '' }] });
  };
  const first = inFoldOrder(query.aggregates)[0];
  const download = () => {
    if (table.data) save(new Blob([csv(table.data.columns, table.data.rows)], { type: 'text/csv' }), `${project}.csv`);
  };
  const curl = `curl -H "Authorization: Bearer $CRASHMETER_TOKEN" -H 'Content-Type: application/json' \\\n  -d '${JSON.stringify(body).replaceAll("'", "'\\''")}' \\\n  ${location.origin}/api/v1${of(project, 'query')}\n`;

  return (
    <main id="page">
      <h1 class="hidden">Explore {project}</h1>
      {notices.map((notice) => (
        <div class="notice warn" role="status" key={notice}>
          {notice}
        </div>
      ))}
      <div class="panel">
        <div class="spread">
          <div class="row">
            <label class="row">
              <span class="soft">Time frame</span>
              <select
                id="time-frame"
                value={'back' in query.span ? query.span.back : 'fixed'}
                onChange={(event) =>
                  event.currentTarget.value !== 'fixed' && change({ span: { back: event.currentTarget.value } })
                }
              >
                {FRAMES.map(([value, text]) => (
                  <option key={value} value={value}>
                    {text}
                  </option>
                ))}
                {'from' in query.span && <option value="fixed">Chosen span</option>}
                {'back' in query.span && !FRAMES.some(([value]) => 'back' in query.span && value === query.span.back) && (
                  <option value={query.span.back}>Last {query.span.back}</option>
                )}
              </select>
            </label>
            <span class="soft small">
              {clock(frame.from, zone)} – {clock(frame.to, zone)}
            </span>
            <button
              type="button"
              onClick={() => change({ span: { from: frame.from - (frame.to - frame.from), to: frame.from } })}
              aria-label="Earlier"
            >
              ‹
            </button>
            <button
              type="button"
              onClick={() => change({ span: { from: frame.to, to: frame.to + (frame.to - frame.from) } })}
              aria-label="Later"
            >
              ›
            </button>
            <button
              type="button"
              onClick={() => {
                const half = Math.ceil((frame.to - frame.from) / 2);
                change({ span: { from: Math.max(frame.from - half, 0), to: frame.to + half } });
              }}
            >
              Zoom out
            </button>
          </div>
          <div class="row">
            <Views project={project} search={search} />
            <button type="button" onClick={() => setRun(run + 1)} title="r, Shift+Enter or Ctrl+Enter">
              Run again
            </button>
            <button type="button" onClick={() => setDialog('inspect')}>
              Copy as curl
            </button>
            <button type="button" onClick={() => setDialog('keys')} title="?">
              Keys
            </button>
            {query.view === 'table' && (
              <button type="button" onClick={download} disabled={!table.data}>
                CSV
              </button>
            )}
            <button
              type="button"
              class="main"
              onClick={() => setDialog('export')}
              disabled={!may(me, 'edit')}
              title={may(me, 'edit') ? 'e' : 'This needs the role editor'}
            >
              Export as metric
            </button>
          </div>
        </div>
        <hr class="thin" />
        <Builder project={project} query={query} attributes={attributes.data ?? []} frame={frame} change={change} />
      </div>

      {fault && (
        <div class="notice bad" role="alert">
          {fault}
        </div>
      )}
      {active.error && <ErrorBox error={active.error} retry={active.reload} />}
      <Progress on={active.loading} />
      {query.view === 'table' &&
        table.data?.warnings.map((warning) => (
          <div class="notice warn" key={warning}>
            {warning}
          </div>
        ))}
      <div class="spread results-head">
        <span role="status">
          {table.data && query.view === 'table' && (
            <>
              <strong>{shown(table.data.matched)}</strong> {table.data.matched === 1 ? 'report' : 'reports'} in{' '}
              <strong>{shown(table.data.groups)}</strong> {table.data.groups === 1 ? 'group' : 'groups'}
              {table.data.truncated && `, ${shown(table.data.rows.length)} shown`}
              <span class="soft">
                {' '}
                · {shown(table.data.rows_read)} read in {shown(table.data.took_micros / 1000)} ms
              </span>
            </>
          )}
          {list.data && query.view === 'list' && (
            <>
              <strong>{shown(list.data.matched)}</strong> {list.data.matched === 1 ? 'report' : 'reports'}
              {list.data.truncated && `, the newest ${shown(list.data.rows.length)} shown`}
              <span class="soft"> · {shown(list.data.took_micros / 1000)} ms</span>
            </>
          )}
        </span>
        <span class="row">
          {active.loading && (
            <button type="button" onClick={active.stop}>
              Stop
            </button>
          )}
          <span class="tabs tight" role="tablist" aria-label="View as">
            <button type="button" role="tab" aria-selected={query.view === 'table'} onClick={() => change({ view: 'table' })}>
              Groups
            </button>
            <button type="button" role="tab" aria-selected={query.view === 'list'} onClick={() => change({ view: 'list' })}>
              Reports
            </button>
          </span>
        </span>
      </div>

      {!active.data && !active.error && <Loading />}
      <div class={active.loading && active.data ? 'stale' : ''}>
        {query.view === 'table' && table.data && (
          <>
            {table.data.series && table.data.matched > 0 && (
              <div class="panel">
                <Chart
                  starts={table.data.series.starts}
                  lines={visible}
                  zone={zone}
                  dark={dark}
                  zoom={(from, to) => change({ span: { from, to } })}
                  summary={`Course over time of ${first ? aggregateName(first) : 'reports'} for ${lines.length} groups; the table has the same numbers.`}
                />
              </div>
            )}
            {table.data.matched === 0 ? (
              <NoMatch project={project} query={query} frame={frame} change={change} known={(attributes.data ?? []).length > 0} />
            ) : (
              <Table
                query={query}
                answer={table.data}
                colors={colors}
                lines={LINES}
                narrow={narrow}
                change={change}
                light={setLit}
                project={project}
              />
            )}
          </>
        )}
        {query.view === 'list' &&
          list.data &&
          (list.data.matched === 0 ? (
            <NoMatch project={project} query={query} frame={frame} change={change} known={(attributes.data ?? []).length > 0} />
          ) : (
            <List
              query={query}
              answer={list.data}
              attributes={attributes.data ?? []}
              zone={zone}
              open={setReport}
              narrow={narrow}
              change={change}
              project={project}
            />
          ))}
        {active.data?.truncated && limit < ALL_ROWS && (
          <p>
            <button type="button" onClick={() => setLimit(ALL_ROWS)}>
              Show up to {shown(ALL_ROWS)}
            </button>
          </p>
        )}
      </div>

      {dialog === 'export' && <ExportDialog project={project} query={query} close={() => setDialog(undefined)} />}
      {dialog === 'keys' && <KeysDialog close={() => setDialog(undefined)} />}
      {dialog === 'inspect' && (
        <Dialog title="This query for the command line" close={() => setDialog(undefined)}>
          <Code text={curl} label="curl command" />
          <p class="soft small">Make a token on the page Access.</p>
        </Dialog>
      )}
      {report !== undefined && (
        <ReportDrawer
          project={project}
          tx={report}
          close={() => setReport(undefined)}
          narrow={(name, value) => narrow(name, value, false)}
        />
      )}
    </main>
  );
}

type NoMatchProps = {
  project: string;
  query: ExploreQuery;
  frame: { from: number; to: number };
  change: (edit: Partial<ExploreQuery>) => void;
  known: boolean;
};

/** Names the filter that hides most, so that people need not guess. */
function NoMatch({ project, query, frame, change, known }: NoMatchProps) {
  const without = useResource<{ at: number; matched: number } | undefined>(
    JSON.stringify([query.filters, frame]),
    async (signal) => {
      const counts = await Promise.all(
        query.filters.map(async (_, at) => {
          const filter = filterBody(query.filters.filter((_, other) => other !== at));
          const answer = await post<ReportsAnswer>(of(project, 'reports'), { filter, columns: [], ...frame, limit: 1 }, signal);
          return { at, matched: answer.matched };
        }),
      );
      return counts.sort((a, b) => b.matched - a.matched)[0];
    },
    { on: query.filters.length > 0 && query.filters.length <= 8 },
  );
  const most = without.data;
  const filter = most ? query.filters[most.at] : undefined;
  return (
    <Empty title={known ? 'No report matches' : 'No report yet'}>
      {filter && most && most.matched > 0 ? (
        <p>
          Without <code>{`${filter.attribute} ${filter.operator} ${filter.value}`}</code> there are {shown(most.matched)}.{' '}
          <button type="button" onClick={() => change({ filters: query.filters.filter((_, at) => at !== most.at) })}>
            Remove it
          </button>
        </p>
      ) : (
        <p>There are none in this time frame{query.filters.length > 0 ? ' that pass all filters' : ''}.</p>
      )}
      <p class="row center">
        <button type="button" onClick={() => change({ span: { back: '30d' } })}>
          Look at 30 days
        </button>
        <a class="button" href={paths.start(project)}>
          Send a report
        </a>
      </p>
    </Empty>
  );
}
