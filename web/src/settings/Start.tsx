// The way of the first report: what to paste, and a look-out that needs no reload.
import { useState } from 'preact/hooks';
import { get, of, post } from '../api/client';
import { useResource } from '../api/resource';
import type { Project, Refusal, ReportsAnswer } from '../api/types';
import { useApp } from '../app/context';
import { paths } from '../app/routes';
import { shown } from '../model/format';
import { clock } from '../model/time';
import { Code, ErrorBox, Loading } from '../ui/parts';

const LOOK_MS = 2_000;
/** Refusals shown. */
const REFUSALS = 5;

export function Start({ project }: { project: string }) {
  const { zone } = useApp();
  const [kind, setKind] = useState('curl');
  const known = useResource<Project>('project', (signal) => get(of(project), signal));
  const newest = useResource<ReportsAnswer>(
    'newest',
    (signal) => {
      const to = Math.ceil(Date.now() / 1000) + 1;
      const columns = ['error.type', 'error.message', 'application', 'timestamp.received'];
      return post(of(project, 'reports'), { columns, from: to - 30 * 86400, to, limit: 1 }, signal);
    },
    { every: LOOK_MS, topics: ['reports'] },
  );
  const refusals = useResource<Refusal[]>('refusals', (signal) => get(of(project, 'refusals'), signal), {
    every: LOOK_MS,
    topics: ['refusals'],
  });
  if (known.error) return <main id="page">{<ErrorBox error={known.error} retry={known.reload} />}</main>;
  if (!known.data) return <Loading />;
  const url = known.data.submission_urls[0];
  if (!url) {
    return (
      <main id="page" class="narrow">
        <h1>Send reports</h1>
        <p>
          This project has no submission token. <a href={paths.access(project)}>Make one</a>.
        </p>
      </main>
    );
  }
  const kinds: [string, string, string][] = [
    [
      'curl',
      'curl',
      `curl ${quoted(url)} -H 'Content-Type: application/json' -d @- <<'END'\n${JSON.stringify(
        {
          uuid: crypto.randomUUID?.() ?? '7d7c1f5e-5a0b-4e0c-9f0e-2f6b1c1d0a01',
          timestamp: Math.floor(Date.now() / 1000),
          attributes: {
            application: 'shooter',
            'application.version': '1.0.0',
            'error.type': 'Exception',
            'error.message': 'Hello',
            guid: 'player-1',
          },
        },
        null,
        2,
      )}\nEND\n`,
    ],
    [
      'node',
      'JavaScript (Node)',
      `import { BacktraceClient } from '@backtrace/node';\n\nconst client = BacktraceClient.initialize({ url: ${JSON.stringify(url)} });\nawait client.send(new Error('Hello'));\n`,
    ],
    [
      'python',
      'Python',
      `import backtracepython as backtrace\n\nbacktrace.initialize(\n    endpoint=${JSON.stringify(url.split('/submit.backtrace.io')[0])},\n    token=${JSON.stringify(url.split('/').at(-2))},\n)\nbacktrace.send_report("Hello")\n`,
    ],
    ['minidump', 'C and C++ (minidump)', `curl --data-binary @crash.dmp ${quoted(url.replace(/\/json$/, '/minidump'))}\n`],
    ['other', 'Other SDKs', `${url}\n`],
  ];
  const chosen = kinds.find(([id]) => id === kind) ?? kinds[0];
  const first = newest.data?.rows[0];
  return (
    <main id="page" class="narrow">
      <h1>Send reports to {project}</h1>
      {first ? (
        <div class="notice good" role="status">
          <strong>{shown(newest.data?.matched)} reports in the last 30 days.</strong> The newest:{' '}
          {[first.values[0], first.values[1]]
            .filter((value) => value !== null && value !== undefined)
            .map(shown)
            .join(': ') || `report ${first.tx}`}
          {typeof first.values[3] === 'number' && ` at ${clock(first.values[3], zone)}`}.{' '}
          <a class="button main" href={paths.explore(project)}>
            Explore
          </a>
        </div>
      ) : (
        <div class="notice" role="status">
          ○ Waiting for a report… this page notices by itself.
        </div>
      )}
      {refusals.data && refusals.data.length > 0 && (
        <div class="notice bad" role="status">
          <strong>Refused:</strong>
          <ul class="plain">
            {refusals.data.slice(0, REFUSALS).map((one, at) => (
              <li key={at}>
                {clock(one.at, zone)}: {one.detail} <span class="soft">({one.status})</span>
              </li>
            ))}
          </ul>
        </div>
      )}
      <section class="panel">
        <div class="tabs" role="tablist" aria-label="How to send">
          {kinds.map(([id, text]) => (
            <button type="button" role="tab" key={id} aria-selected={id === kind} onClick={() => setKind(id)}>
              {text}
            </button>
          ))}
        </div>
        {chosen && <Code text={chosen[2]} label={chosen[1]} />}
        <p class="soft">
          Every SDK of Backtrace works unchanged: give it this address as its URL. The token in it may only submit, so it may ship
          inside your application.
        </p>
      </section>
    </main>
  );
}

const quoted = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;
