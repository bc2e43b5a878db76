// One report: its attributes, its call stack, its files. A drawer over Explore, or a page of its own.
import { useState } from 'preact/hooks';
import { type ApiError, file as fetched, get, of } from '../api/client';
import { useResource } from '../api/resource';
import type { Report } from '../api/types';
import { useApp } from '../app/context';
import { paths } from '../app/routes';
import { bytes, shown } from '../model/format';
import { clock } from '../model/time';
import { Code, Copy, Dialog, ErrorBox, Loading } from '../ui/parts';
import { save } from '../ui/save';

type Narrow = (name: string, value: string) => void;

export function ReportDrawer({ project, tx, close, narrow }: { project: string; tx: number; close: () => void; narrow: Narrow }) {
  return (
    <Dialog title={`Report ${tx}`} close={close} drawer>
      <p class="row">
        <a href={paths.report(project, tx)}>Open as a page</a>
      </p>
      <Content
        project={project}
        tx={String(tx)}
        narrow={(name, value) => {
          close();
          narrow(name, value);
        }}
      />
    </Dialog>
  );
}

export function ReportPage({ project, tx }: { project: string; tx: string }) {
  return (
    <main id="page" class="narrow">
      <p>
        <a href={paths.explore(project)}>Explore</a>
      </p>
      <h1>Report {tx}</h1>
      <Content project={project} tx={tx} />
    </main>
  );
}

function Content({ project, tx, narrow }: { project: string; tx: string; narrow?: Narrow }) {
  const { zone } = useApp();
  const report = useResource<Report>(`${project} ${tx}`, (signal) => get(of(project, 'reports', tx), signal));
  const [refused, setRefused] = useState<ApiError>();
  const download = async (id: string, name: string) => {
    setRefused(undefined);
    try {
      save(await fetched(of(project, 'reports', tx, 'attachments', id)), name);
    } catch (error) {
      setRefused(error as ApiError);
    }
  };
  if (report.error) return <ErrorBox error={report.error} retry={report.reload} />;
  if (!report.data) return <Loading />;
  const { attributes, attachments } = report.data;
  const stack = readStack(attributes.callstack);
  const names = Object.keys(attributes)
    .filter((name) => name !== 'callstack')
    .sort();
  return (
    <div class="stack">
      {stack.length > 0 && (
        <section>
          <h2>Call stack</h2>
          <ol class="frames mono">
            {stack.map((frame, at) => (
              <li key={at}>{frame}</li>
            ))}
          </ol>
        </section>
      )}
      <section>
        <div class="spread">
          <h2>Attributes</h2>
          <Copy text={() => JSON.stringify(attributes, null, 2)}>Copy as JSON</Copy>
        </div>
        <dl class="pairs">
          {names.map((name) => {
            const value = attributes[name];
            const time = /^timestamp/.test(name) && typeof value === 'number' ? ` (${clock(value, zone)})` : '';
            return [
              <dt key={name}>{name}</dt>,
              <dd key={`${name}=`}>
                {narrow ? (
                  <button
                    type="button"
                    class="value"
                    title="Only reports with this value"
                    onClick={() => narrow(name, String(value))}
                  >
                    {shownExactly(value)}
                  </button>
                ) : (
                  shownExactly(value)
                )}
                <span class="soft">{time}</span>
              </dd>,
            ];
          })}
        </dl>
      </section>
      <section>
        <h2>Files</h2>
        {refused && <ErrorBox error={refused} />}
        {attachments.length === 0 ? (
          <p class="soft">None came with it.</p>
        ) : (
          <ul>
            {attachments.map((file) => (
              <li key={file.id}>
                <button type="button" class="plain" onClick={() => download(String(file.id), file.name)}>
                  {file.name}
                </button>{' '}
                <span class="soft">{`${bytes(file.size)}, ${file.content_type}`}</span>
              </li>
            ))}
          </ul>
        )}
      </section>
      <Code title="As the API gives it" text={JSON.stringify(report.data, null, 2)} />
    </div>
  );
}

const shownExactly = (value: unknown) => (typeof value === 'number' ? String(value) : shown(value));

/** Frames of a call stack: JSON as Backtrace keeps it, or text lines. */
function readStack(value: unknown): string[] {
  if (typeof value !== 'string') return [];
  try {
    const parsed: unknown = JSON.parse(value);
    const frames = (parsed as { frame?: unknown }).frame ?? parsed;
    if (Array.isArray(frames)) return frames.map(String);
  } catch {
    // Plain text.
  }
  return value.split('\n').filter((line) => line.trim() !== '');
}
