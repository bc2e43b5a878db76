// The exact bytes of a window: requests with their headers, or a page. Secrets come masked from the server.
import type { Wire } from '../api/types';
import { useApp } from '../app/context';
import { bytes, shown } from '../model/format';
import { clock } from '../model/time';
import { Code, Scroll } from '../ui/parts';

export function WireView({ wire }: { wire: Wire }) {
  const { zone } = useApp();
  return (
    <div class="stack">
      <p class="soft small">
        Window starting {clock(wire.window_start, zone)}: {shown(wire.series)} series, {shown(wire.points)} points,{' '}
        {bytes(wire.bytes)}
        {wire.requests && wire.requests.length > 1 ? ` in ${wire.requests.length} requests` : ''}.
      </p>
      {wire.requests?.map((request, at) => (
        <Code
          key={at}
          title={request.request}
          label={`body of ${request.request}`}
          text={`${(request.headers ?? []).join('\n')}${request.headers?.length ? '\n\n' : ''}${request.body}${request.cut ? '\n… (cut)' : ''}`}
        />
      ))}
      {wire.body !== undefined && (
        <Code title={wire.content_type ?? 'page'} text={`${wire.body}${wire.cut ? '\n… (cut)' : ''}`} />
      )}
      {wire.requests?.length === 0 && <p class="soft">Nothing would be sent.</p>}
      {wire.excluded.length > 0 && (
        <div class="notice warn">
          {shown(wire.excluded.length)} points are left out: {[...new Set(wire.excluded.map((one) => one.reason))].join('; ')}.
        </div>
      )}
      {wire.notes.length > 0 && (
        <details>
          <summary>{shown(wire.notes.length)} names or values are spelt differently here</summary>
          <Scroll label="Names spelt differently">
            <table>
              <thead>
                <tr>
                  <th>Here</th>
                  <th>In the store</th>
                </tr>
              </thead>
              <tbody>
                {wire.notes.map((note) => (
                  <tr key={`${note.raw}\u0001${note.written}`}>
                    <td>{note.raw}</td>
                    <td class="mono">{note.written}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </Scroll>
        </details>
      )}
    </div>
  );
}
