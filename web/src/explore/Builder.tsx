// The query as chips: filters, groups, aggregates. A chip is edited in its place.
import type { ComponentChildren } from 'preact';
import { useState } from 'preact/hooks';
import { get, of } from '../api/client';
import type { Attribute, ValuesAnswer } from '../api/types';
import { shown } from '../model/format';
import {
  AGGREGATES,
  type Aggregate,
  aggregateName,
  ERRORS,
  type ExploreQuery,
  type Filter,
  filterBody,
  filterName,
  kindOf,
  OPERATORS,
  operatorsOf,
} from '../model/query';
import { Combobox, type Option } from '../ui/Combobox';

type Props = {
  project: string;
  query: ExploreQuery;
  attributes: Attribute[];
  frame: { from: number; to: number };
  change: (edit: Partial<ExploreQuery>) => void;
};

/** Attributes whose name holds the text; those that begin with it first. */
export function attributeOptions(attributes: Attribute[], text: string): Option[] {
  const wanted = text.toLowerCase();
  const found = attributes.filter((one) => one.name.toLowerCase().includes(wanted));
  found.sort(
    (a, b) =>
      Number(b.name.toLowerCase().startsWith(wanted)) - Number(a.name.toLowerCase().startsWith(wanted)) ||
      a.name.localeCompare(b.name),
  );
  return found.slice(0, 200).map((one) => ({ value: one.name, note: kindOf(one) }));
}

export function Builder({ project, query, attributes, frame, change }: Props) {
  const [editing, setEditing] = useState<
    { what: 'filter'; at: number } | { what: 'add-filter' | 'add-group' | 'add-aggregate' }
  >();
  const done = () => setEditing(undefined);
  const put = (filters: Filter[]) => {
    done();
    change({ filters });
  };
  const suggestions: [string, Aggregate][] = [
    ['Errors', ERRORS],
    ['Impacted users', { operator: 'unique', attribute: 'guid' }],
    ['Last seen', { operator: 'max', attribute: 'timestamp' }],
  ];
  const missing = suggestions.filter(
    ([, one]) => !query.aggregates.some((known) => known.operator === one.operator && known.attribute === one.attribute),
  );
  const form = (initial: Filter | undefined, save: (filter: Filter) => void) => (
    <FilterForm
      project={project}
      attributes={attributes}
      frame={frame}
      initial={initial}
      others={query.filters.filter((one) => one !== initial)}
      save={save}
      cancel={done}
    />
  );
  return (
    <div class="builder">
      <div class="what">Filter</div>
      <div class="chips">
        {query.filters.map((filter, at) =>
          editing?.what === 'filter' && editing.at === at ? (
            <span key={filterName(filter)}>
              {form(filter, (edited) => put(query.filters.map((one, place) => (place === at ? edited : one))))}
            </span>
          ) : (
            <Chip
              key={filterName(filter)}
              text={filterName(filter)}
              known={attributes.length === 0 || attributes.some((one) => one.name === filter.attribute)}
              edit={() => setEditing({ what: 'filter', at })}
              remove={() => put(query.filters.filter((_, place) => place !== at))}
            />
          ),
        )}
        {editing?.what === 'add-filter' ? (
          form(undefined, (filter) => put([...query.filters, filter]))
        ) : (
          <Add id="add-filter" open={() => setEditing({ what: 'add-filter' })}>
            Filter
          </Add>
        )}
      </div>
      <div class="what">Group by</div>
      <div class="chips">
        {query.group.map((name) => (
          <Chip
            key={name}
            text={name}
            known={attributes.length === 0 || attributes.some((one) => one.name === name)}
            remove={() => change({ group: query.group.filter((one) => one !== name) })}
          />
        ))}
        {editing?.what === 'add-group' ? (
          <Combobox
            label="Attribute to group by"
            placeholder="attribute"
            autoFocus
            load={(text) => attributeOptions(attributes, text).filter((one) => !query.group.includes(one.value))}
            pick={(name) => {
              done();
              change({ group: [...query.group, name] });
            }}
            cancel={done}
          />
        ) : (
          <Add id="add-group" open={() => setEditing({ what: 'add-group' })}>
            Group
          </Add>
        )}
      </div>
      <div class="what">Aggregate</div>
      <div class="chips">
        {query.aggregates.map((one) => (
          <Chip
            key={aggregateName(one)}
            text={aggregateName(one)}
            known
            remove={
              query.aggregates.length > 1
                ? () => change({ aggregates: query.aggregates.filter((other) => other !== one), sort: '' })
                : undefined
            }
          />
        ))}
        {editing?.what === 'add-aggregate' ? (
          <AggregateForm
            attributes={attributes}
            save={(aggregate) => {
              done();
              change({ aggregates: [...query.aggregates, aggregate] });
            }}
            cancel={done}
          />
        ) : (
          <>
            <Add id="add-aggregate" open={() => setEditing({ what: 'add-aggregate' })}>
              Aggregate
            </Add>
            {missing.map(([text, one]) => (
              <button
                type="button"
                class="plain small"
                key={text}
                onClick={() => change({ aggregates: [...query.aggregates, one] })}
              >
                + {text}
              </button>
            ))}
          </>
        )}
      </div>
    </div>
  );
}

function Add({ id, open, children }: { id: string; open: () => void; children: ComponentChildren }) {
  return (
    <button type="button" id={id} class="plain" onClick={open}>
      + {children}
    </button>
  );
}

type ChipProps = { text: string; known: boolean; edit?: (() => void) | undefined; remove?: (() => void) | undefined };

function Chip({ text, known, edit, remove }: ChipProps) {
  return (
    <span class={known ? 'chip' : 'chip struck'} title={known ? text : `${text}: no report has this attribute`}>
      <button
        type="button"
        onClick={edit ?? remove}
        onKeyDown={(event) => {
          if (remove && (event.key === 'Backspace' || event.key === 'Delete')) remove();
        }}
      >
        <span class="cut">{text}</span>
      </button>
      {remove && (
        <button type="button" aria-label={`Remove ${text}`} onClick={remove}>
          ✕
        </button>
      )}
    </span>
  );
}

type FormProps = {
  project: string;
  attributes: Attribute[];
  frame: { from: number; to: number };
  initial: Filter | undefined;
  others: Filter[];
  save: (filter: Filter) => void;
  cancel: () => void;
};

/** Attribute, then operator, then value: each step by keyboard alone. */
function FilterForm({ project, attributes, frame, initial, others, save, cancel }: FormProps) {
  const [attribute, setAttribute] = useState(initial?.attribute);
  const kind = kindOf(attributes.find((one) => one.name === attribute));
  const [operator, setOperator] = useState(initial?.operator ?? 'equal');
  if (attribute === undefined) {
    return (
      <Combobox
        label="Attribute to filter by"
        placeholder="attribute"
        autoFocus
        load={(text) => attributeOptions(attributes, text)}
        pick={setAttribute}
        cancel={cancel}
      />
    );
  }
  const values = async (prefix: string, signal: AbortSignal): Promise<Option[]> => {
    const search = new URLSearchParams({
      prefix,
      limit: '50',
      filter: JSON.stringify(filterBody(others)),
      from: String(frame.from),
      to: String(frame.to),
    });
    const answer = await get<ValuesAnswer>(`${of(project, 'attributes', attribute, 'values')}?${search}`, signal);
    return answer.values.map((one) => ({ value: one.value, note: shown(one.reports) }));
  };
  return (
    <span class="row">
      <button type="button" onClick={() => setAttribute(undefined)}>
        {attribute}
      </button>
      <select
        aria-label="Operator"
        value={operator}
        onChange={(event) => {
          const chosen = event.currentTarget.value;
          setOperator(chosen);
          if (OPERATORS[chosen]?.valueless) save({ attribute, operator: chosen, value: '' });
        }}
      >
        {operatorsOf(kind).map((name) => (
          <option key={name} value={name}>
            {OPERATORS[name]?.label}
          </option>
        ))}
      </select>
      <Combobox
        key={`${attribute} ${operator}`}
        label="Value"
        placeholder="value, Enter"
        autoFocus
        free
        initial={initial?.value ?? ''}
        load={values}
        pick={(value) => save({ attribute, operator, value })}
        cancel={cancel}
      />
      <button type="button" onClick={cancel}>
        Cancel
      </button>
    </span>
  );
}

function AggregateForm({
  attributes,
  save,
  cancel,
}: {
  attributes: Attribute[];
  save: (aggregate: Aggregate) => void;
  cancel: () => void;
}) {
  const [operator, setOperator] = useState('unique');
  return (
    <span class="row">
      <select aria-label="Aggregate" value={operator} onChange={(event) => setOperator(event.currentTarget.value)}>
        {Object.entries(AGGREGATES).map(([name, text]) => (
          <option key={name} value={name}>
            {text} of
          </option>
        ))}
      </select>
      <Combobox
        label="Attribute to aggregate"
        placeholder="attribute"
        autoFocus
        load={(text) => attributeOptions([{ name: '_tx', texts: 0, numbers: 1, booleans: 0 }, ...attributes], text)}
        pick={(attribute) => save({ operator, attribute })}
        cancel={cancel}
      />
      <button type="button" onClick={cancel}>
        Cancel
      </button>
    </span>
  );
}
