// What a query answered: groups as a table with their course, or reports as a list.

import { useState } from 'preact/hooks';
import type { Answer, Attribute, ReportsAnswer } from '../api/types';
import { useApp } from '../app/context';
import { paths } from '../app/routes';
import { label, shown } from '../model/format';
import { aggregateName, type ExploreQuery, inFoldOrder, writeQuery } from '../model/query';
import { clock, type Zone } from '../model/time';
import { Spark } from '../ui/Chart';
import { Combobox } from '../ui/Combobox';
import { Scroll, Swatch } from '../ui/parts';
import { attributeOptions } from './Builder';

type Change = (edit: Partial<ExploreQuery>) => void;
type Narrow = (attribute: string, value: string | null, exclude: boolean) => void;

type TableProps = {
  project: string;
  query: ExploreQuery;
  answer: Answer;
  colors: string[];
  /** Rows with a line in the chart. */
  lines: number;
  narrow: Narrow;
  change: Change;
  light: (row: number | undefined) => void;
};

export function Table({ project, query, answer, colors, lines, narrow, change, light }: TableProps) {
  const groups = query.group.length;
  const aggregates = inFoldOrder(query.aggregates);
  const sorted = query.sort.replace(/^-/, '');
  const sortBy = (name: string) => change({ sort: query.sort === `-${name}` ? name : `-${name}` });
  const arrow = (name: string) => (sorted === name ? (query.sort.startsWith('-') ? ' ▾' : ' ▴') : '');
  const order = (name: string): 'ascending' | 'descending' | 'none' =>
    sorted === name ? (query.sort.startsWith('-') ? 'descending' : 'ascending') : 'none';
  const reportsOf = (row: unknown[]) => {
    const filters = query.group.map((attribute, at) => {
      const value = row[at];
      return value === null
        ? { attribute, operator: 'is-not-set', value: '' }
        : { attribute, operator: 'equal', value: String(value) };
    });
    return paths.explore(project, writeQuery({ ...query, filters: [...query.filters, ...filters], view: 'list' }));
  };
  return (
    <Scroll label="Groups" panel>
      <table>
        <thead>
          <tr>
            {query.group.map((name) => (
              <th key={name} aria-sort={order('group')}>
                <button type="button" onClick={() => sortBy('group')}>
                  {name}
                  {arrow('group')}
                </button>
              </th>
            ))}
            {groups === 0 && <th>All reports</th>}
            {aggregates.map((aggregate, at) => {
              const name = answer.columns[groups + at] ?? '';
              return (
                <th key={name} class="number" aria-sort={order(name)}>
                  <button type="button" onClick={() => sortBy(name)}>
                    {aggregateName(aggregate)}
                    {arrow(name)}
                  </button>
                </th>
              );
            })}
            {answer.series && <th>Activity</th>}
            <th class="number">Reports</th>
          </tr>
        </thead>
        <tbody>
          {answer.rows.map((row, at) => {
            const line = answer.series?.lines[at];
            return (
              <tr
                key={row.slice(0, groups).join('\u0001')}
                onMouseEnter={() => at < lines && light(at)}
                onMouseLeave={() => light(undefined)}
              >
                {query.group.map((attribute, column) => {
                  const value = row[column] as unknown as string | null;
                  return (
                    <td key={attribute}>
                      {column === 0 && <Swatch color={at < lines ? colors[at % colors.length] : undefined} />}
                      <button
                        type="button"
                        class="value"
                        title="Only these (Alt: all but these)"
                        onClick={(event) => narrow(attribute, value, event.altKey)}
                      >
                        {label(value)}
                      </button>
                    </td>
                  );
                })}
                {groups === 0 && (
                  <td>
                    <Swatch color={colors[0]} />
                    all
                  </td>
                )}
                {aggregates.map((aggregate, column) => (
                  <td key={aggregateName(aggregate)} class="number">
                    {shown(row[groups + column])}
                  </td>
                ))}
                {answer.series && (
                  <td>
                    {line && (
                      <Spark
                        values={line.matched}
                        color={(at < lines ? colors[at % colors.length] : undefined) ?? 'currentColor'}
                      />
                    )}
                  </td>
                )}
                <td class="number">
                  <a href={reportsOf(row)}>{shown(answer.row_matched[at])}</a>
                </td>
              </tr>
            );
          })}
        </tbody>
        {groups > 0 && (
          <tfoot>
            <tr>
              <th colSpan={groups}>All {shown(answer.groups)} groups together</th>
              {answer.totals.map((value, at) => (
                <th key={answer.columns[groups + at]} class="number">
                  {shown(value)}
                </th>
              ))}
              {answer.series && <th />}
              <th class="number">{shown(answer.matched)}</th>
            </tr>
          </tfoot>
        )}
      </table>
    </Scroll>
  );
}

type ListProps = {
  project: string;
  query: ExploreQuery;
  answer: ReportsAnswer;
  attributes: Attribute[];
  zone: Zone;
  open: (tx: number) => void;
  narrow: Narrow;
  change: Change;
};

export function List({ project, query, answer, attributes, zone, open, narrow, change }: ListProps) {
  const [adding, setAdding] = useState(false);
  const { me } = useApp();
  const cell = (name: string, value: unknown) => {
    if (name === 'timestamp' && typeof value === 'number') return <span class="nowrap">{clock(value, zone)}</span>;
    if (value === null || value === undefined) return <span class="soft">–</span>;
    const text = shown(value);
    return (
      <button
        type="button"
        class="value"
        title="Only these (Alt: all but these)"
        onClick={(event) => narrow(name, String(value), event.altKey)}
      >
        {text.length > 160 ? `${text.slice(0, 160)}…` : text}
      </button>
    );
  };
  return (
    <Scroll label={`Reports that ${me.user ?? me.name} may see`} panel>
      <table>
        <thead>
          <tr>
            <th class="number">Report</th>
            {query.columns.map((name) => (
              <th key={name}>
                {name}{' '}
                <button
                  type="button"
                  aria-label={`Remove the column ${name}`}
                  onClick={() => change({ columns: query.columns.filter((one) => one !== name) })}
                >
                  ✕
                </button>
              </th>
            ))}
            <th>
              {adding ? (
                <Combobox
                  label="Column to add"
                  placeholder="attribute"
                  autoFocus
                  load={(text) => attributeOptions(attributes, text).filter((one) => !query.columns.includes(one.value))}
                  pick={(name) => {
                    setAdding(false);
                    change({ columns: [...query.columns, name] });
                  }}
                  cancel={() => setAdding(false)}
                />
              ) : (
                <button type="button" onClick={() => setAdding(true)}>
                  + Column
                </button>
              )}
            </th>
          </tr>
        </thead>
        <tbody>
          {answer.rows.map((row) => (
            <tr key={row.tx}>
              <td class="number">
                <a
                  href={paths.report(project, row.tx)}
                  onClick={(event) => {
                    if (event.metaKey || event.ctrlKey || event.shiftKey || event.button !== 0) return;
                    event.preventDefault();
                    open(row.tx);
                  }}
                >
                  {row.tx}
                </a>
              </td>
              {query.columns.map((name, at) => (
                <td key={name}>{cell(name, row.values[at])}</td>
              ))}
              <td />
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}
