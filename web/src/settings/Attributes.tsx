// What people declare of attributes: type, how values are shown, whether they are personal.
import { useState } from 'preact/hooks';
import { type ApiError, ask, get, of } from '../api/client';
import { useResource } from '../api/resource';
import type { components } from '../api/schema';
import type { Attribute } from '../api/types';
import { may, useApp } from '../app/context';
import { shown } from '../model/format';
import { kindOf } from '../model/query';
import { Dialog, Empty, ErrorBox, Loading, Scroll } from '../ui/parts';

type Setting = components['schemas']['ShownSetting'];

const TYPES = ['dictionary', 'uint8', 'uint16', 'uint32', 'uint64', 'uint128', 'bitmap', 'uuid', 'int64', 'float64'];
const FORMATS = ['none', 'bytes', 'seconds', 'unix_timestamp', 'memory_address'];

export function Attributes({ project }: { project: string }) {
  const { me } = useApp();
  const attributes = useResource<Attribute[]>('attributes', (signal) => get(of(project, 'attributes'), signal));
  const settings = useResource<Setting[]>('settings', (signal) => get(of(project, 'attribute-settings'), signal));
  const [editing, setEditing] = useState<string>();
  const [find, setFind] = useState('');
  const fault = attributes.error ?? settings.error;
  if (fault) return <main id="page">{<ErrorBox error={fault} retry={attributes.reload} />}</main>;
  if (!attributes.data || !settings.data) return <Loading />;
  const of_ = (name: string) => settings.data?.find((one) => one.attribute === name);
  const rows = attributes.data.filter((one) => one.name.toLowerCase().includes(find.toLowerCase()));
  return (
    <main id="page" class="narrow">
      <div class="spread">
        <h1>Attributes</h1>
        <input
          type="search"
          placeholder="Find"
          aria-label="Find an attribute"
          value={find}
          onInput={(event) => setFind(event.currentTarget.value)}
        />
      </div>
      {attributes.data.length === 0 ? (
        <Empty title="No report has come yet" />
      ) : (
        <Scroll label="Attributes" panel>
          <table>
            <thead>
              <tr>
                <th>Attribute</th>
                <th>Sent as</th>
                <th class="number">Reports with it</th>
                <th>Declared</th>
                <th>
                  <span class="hidden">Actions</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {rows.map((one) => {
                const setting = of_(one.name);
                const said = setting
                  ? [
                      setting.type,
                      setting.format === 'none' ? null : setting.format,
                      setting.personal ? 'personal' : null,
                      setting.non_negative ? 'never negative' : null,
                      setting.description,
                    ]
                  : [];
                return (
                  <tr key={one.name}>
                    <td class="mono">{one.name}</td>
                    <td>{kindOf(one)}</td>
                    <td class="number">{shown(one.texts + one.numbers + one.booleans)}</td>
                    <td>{said.filter(Boolean).join(', ') || <span class="soft">–</span>}</td>
                    <td>
                      {may(me, 'edit') && (
                        <button type="button" onClick={() => setEditing(one.name)}>
                          Edit
                        </button>
                      )}
                    </td>
                  </tr>
                );
              })}
            </tbody>
          </table>
        </Scroll>
      )}
      {editing !== undefined && (
        <Edit
          project={project}
          name={editing}
          setting={of_(editing)}
          close={() => setEditing(undefined)}
          saved={() => {
            setEditing(undefined);
            settings.reload();
          }}
        />
      )}
    </main>
  );
}

type EditProps = { project: string; name: string; setting: Setting | undefined; close: () => void; saved: () => void };

function Edit({ project, name, setting, close, saved }: EditProps) {
  const [draft, setDraft] = useState({
    type: setting?.type ?? '',
    format: setting?.format ?? 'none',
    description: setting?.description ?? '',
    personal: setting?.personal ?? false,
    non_negative: setting?.non_negative ?? false,
  });
  const [error, setError] = useState<ApiError>();
  const save = async (event: Event) => {
    event.preventDefault();
    try {
      await ask('PUT', of(project, 'attribute-settings', name), {
        body: { ...draft, type: draft.type === '' ? null : draft.type },
        ...(setting ? { revision: setting.revision } : {}),
      });
      saved();
    } catch (fault) {
      setError(fault as ApiError);
    }
  };
  return (
    <Dialog title={name} close={close}>
      <form class="stack" onSubmit={save}>
        <div class="grid2">
          <label class="field">
            <span class="label">Type</span>
            <select value={draft.type} onChange={(event) => setDraft({ ...draft, type: event.currentTarget.value })}>
              <option value="">as it is sent</option>
              {TYPES.map((type) => (
                <option key={type}>{type}</option>
              ))}
            </select>
          </label>
          <label class="field">
            <span class="label">Shown as</span>
            <select value={draft.format} onChange={(event) => setDraft({ ...draft, format: event.currentTarget.value })}>
              {FORMATS.map((format) => (
                <option key={format}>{format}</option>
              ))}
            </select>
          </label>
        </div>
        <label class="field">
          <span class="label">Description</span>
          <input value={draft.description} onInput={(event) => setDraft({ ...draft, description: event.currentTarget.value })} />
        </label>
        <label class="row">
          <input
            type="checkbox"
            checked={draft.personal}
            onChange={(event) => setDraft({ ...draft, personal: event.currentTarget.checked })}
          />
          Personal: may be counted, never becomes a label in a store
        </label>
        <label class="row">
          <input
            type="checkbox"
            checked={draft.non_negative}
            onChange={(event) => setDraft({ ...draft, non_negative: event.currentTarget.checked })}
          />
          A number that is never negative
        </label>
        {error && <ErrorBox error={error} />}
        <div class="row end">
          <button type="button" onClick={close}>
            Cancel
          </button>
          <button type="submit" class="main">
            Save
          </button>
        </div>
      </form>
    </Dialog>
  );
}
