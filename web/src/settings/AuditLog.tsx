// The audit log: who changed what and when, newest first. For administrators.
import { get } from '../api/client';
import { useResource } from '../api/resource';
import type { components } from '../api/schema';
import { may, useApp } from '../app/context';
import { go, paths } from '../app/routes';
import { done } from '../model/audit';
import { clock } from '../model/time';
import { Empty, ErrorBox, Loading, Progress, Scroll } from '../ui/parts';

type Log = components['schemas']['AuditLog'];

export function AuditLog({ search }: { search: string }) {
  const { me, projects, zone } = useApp();
  const admin = may(me, 'admin');
  const log = useResource<Log>(search, (signal) => get(`/audit-log${search}`, signal), { on: admin });
  const given = new URLSearchParams(search);
  // The page before goes with what is asked for: other entries have other pages.
  const only = (changed: Record<string, string | number>) => {
    const { before: _, ...rest } = Object.fromEntries(given);
    const fits = Object.entries({ ...rest, ...changed }).filter(([, value]) => value !== '');
    return paths.auditLog(Object.fromEntries(fits));
  };
  const actor = given.get('actor') ?? '';
  const part = actor !== '' || given.has('project') || given.has('before');
  return (
    <main id="page">
      <Progress on={log.loading} />
      <div class="spread">
        <h1>Audit log</h1>
        {admin && (
          <span class="row">
            <select
              aria-label="Of which project"
              value={given.get('project') ?? ''}
              onChange={(event) => go(only({ project: event.currentTarget.value }))}
            >
              <option value="">of every project</option>
              {projects.map((name) => (
                <option key={name}>{name}</option>
              ))}
            </select>
            {actor !== '' && (
              <a class="button" href={only({ actor: '' })}>
                by {actor} <span aria-hidden="true">✕</span>
                <span class="hidden">, show what others did too</span>
              </a>
            )}
          </span>
        )}
      </div>
      {!admin && <p>The audit log is for administrators; your role is {me.role ?? me.scope}.</p>}
      {log.error && <ErrorBox error={log.error} retry={log.reload} />}
      {admin && !log.data && !log.error && <Loading />}
      {log.data && log.data.entries.length === 0 && (
        <Empty title={part ? 'There is nothing of the kind' : 'Nothing was changed yet'}>
          {part && <a href={paths.auditLog()}>To the whole log</a>}
        </Empty>
      )}
      {log.data && log.data.entries.length > 0 && (
        <>
          <Scroll label="Audit log" panel>
            <table>
              <thead>
                <tr>
                  <th>When</th>
                  <th>Who</th>
                  <th>Project</th>
                  <th>What</th>
                  <th>Of what</th>
                </tr>
              </thead>
              <tbody>
                {log.data.entries.map((entry) => (
                  <tr key={entry.id}>
                    <td class="nowrap">{clock(entry.at, zone)}</td>
                    <td class="nowrap">
                      <a href={only({ actor: entry.actor })}>{entry.actor}</a>
                    </td>
                    <td>{entry.project ?? <span class="soft">–</span>}</td>
                    <td class="nowrap">{done(entry.action)}</td>
                    <td class="mono">{entry.subject}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </Scroll>
          <div class="row end">
            {given.has('before') && (
              <a class="button" href={only({})}>
                Newest
              </a>
            )}
            {log.data.next_before != null && (
              <a class="button" href={only({ before: log.data.next_before })}>
                Older
              </a>
            )}
          </div>
        </>
      )}
    </main>
  );
}
