// Who may do what: tokens for programs, users for people.
import { useState } from 'preact/hooks';
import { type ApiError, ask, get, post } from '../api/client';
import { useResource } from '../api/resource';
import type { components } from '../api/schema';
import { may, useApp } from '../app/context';
import { clock } from '../model/time';
import { Copy, ErrorBox, Loading, Scroll } from '../ui/parts';

type Token = components['schemas']['ListedToken'];
type User = components['schemas']['ShownUser'];

export function Access({ project }: { project: string }) {
  const { me } = useApp();
  return (
    <main id="page" class="narrow">
      <h1>Access</h1>
      {may(me, 'admin') ? (
        <>
          <Tokens project={project} />
          <Users />
        </>
      ) : (
        <p>Tokens and users are for administrators; your role is {me.role ?? me.scope}.</p>
      )}
    </main>
  );
}

function Tokens({ project }: { project: string }) {
  const { zone } = useApp();
  const tokens = useResource<Token[]>('tokens', (signal) => get('/tokens', signal));
  const [scope, setScope] = useState('query');
  const [bound, setBound] = useState(true);
  const [made, setMade] = useState<{ token: string; scope: string }>();
  const [error, setError] = useState<ApiError>();
  const act = async (work: () => Promise<void>) => {
    setError(undefined);
    try {
      await work();
      tokens.reload();
    } catch (fault) {
      setError(fault as ApiError);
    }
  };
  if (tokens.error) return <ErrorBox error={tokens.error} retry={tokens.reload} />;
  if (!tokens.data) return <Loading />;
  return (
    <section class="panel stack">
      <h2>Tokens</h2>
      <Scroll label="Tokens">
        <table>
          <thead>
            <tr>
              <th>Token</th>
              <th>May</th>
              <th>Project</th>
              <th>Made</th>
              <th>
                <span class="hidden">Actions</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {tokens.data.map((token) => (
              <tr key={token.id}>
                <td class="mono">
                  {token.token ? (
                    <>
                      {token.token.slice(0, 4)}…{token.token.slice(-4)} <Copy text={token.token} />
                    </>
                  ) : (
                    `no. ${token.id}`
                  )}
                </td>
                <td>{token.scope}</td>
                <td>{token.project ?? 'every'}</td>
                <td class="nowrap">{clock(token.created, zone)}</td>
                <td>
                  <button type="button" class="danger" onClick={() => act(() => ask('DELETE', `/tokens/${token.id}`))}>
                    Revoke
                  </button>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
      {made && (
        <div class="notice good" role="status">
          A token that may {made.scope}: <code>{made.token}</code> <Copy text={made.token} />{' '}
          <span class="soft">It is not shown again.</span>
        </div>
      )}
      {error && <ErrorBox error={error} />}
      <form
        class="row"
        onSubmit={(event) => {
          event.preventDefault();
          act(async () => setMade(await post('/tokens', { scope, project: bound || scope === 'submit' ? project : null })));
        }}
      >
        <select aria-label="What the token may do" value={scope} onChange={(event) => setScope(event.currentTarget.value)}>
          <option value="submit">submit reports</option>
          <option value="query">query</option>
          <option value="edit">edit</option>
          <option value="admin">administer</option>
        </select>
        <label class="row">
          <input
            type="checkbox"
            checked={bound || scope === 'submit'}
            disabled={scope === 'submit'}
            onChange={(event) => setBound(event.currentTarget.checked)}
          />
          only {project}
        </label>
        <button type="submit">Make a token</button>
      </form>
    </section>
  );
}

function Users() {
  const { me } = useApp();
  const users = useResource<User[]>('users', (signal) => get('/users', signal));
  const [draft, setDraft] = useState({ name: '', password: '', role: 'viewer' });
  const [error, setError] = useState<ApiError>();
  const act = async (work: () => Promise<unknown>) => {
    setError(undefined);
    try {
      await work();
      users.reload();
      return true;
    } catch (fault) {
      setError(fault as ApiError);
      return false;
    }
  };
  if (users.error) return <ErrorBox error={users.error} retry={users.reload} />;
  if (!users.data) return <Loading />;
  return (
    <section class="panel stack">
      <h2>Users</h2>
      <Scroll label="Users">
        <table>
          <thead>
            <tr>
              <th>User</th>
              <th>Role</th>
              <th>
                <span class="hidden">Actions</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {users.data.map((user) => (
              <tr key={user.name}>
                <td>
                  {user.name} {user.disabled && <span class="warn">disabled</span>}
                </td>
                <td>
                  <select
                    aria-label={`Role of ${user.name}`}
                    value={user.role}
                    onChange={(event) =>
                      act(() =>
                        ask('PUT', `/users/${encodeURIComponent(user.name)}`, { body: { role: event.currentTarget.value } }),
                      )
                    }
                  >
                    <option>viewer</option>
                    <option>editor</option>
                    <option>admin</option>
                  </select>
                </td>
                <td>
                  <span class="row end">
                    <button
                      type="button"
                      onClick={() =>
                        act(() => ask('PUT', `/users/${encodeURIComponent(user.name)}`, { body: { disabled: !user.disabled } }))
                      }
                    >
                      {user.disabled ? 'Enable' : 'Disable'}
                    </button>
                    {user.name !== me.user && (
                      <button
                        type="button"
                        class="danger"
                        onClick={() => act(() => ask('DELETE', `/users/${encodeURIComponent(user.name)}`))}
                      >
                        Delete
                      </button>
                    )}
                  </span>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
      {error && <ErrorBox error={error} />}
      <form
        class="row"
        onSubmit={async (event) => {
          event.preventDefault();
          if (await act(() => post('/users', draft))) setDraft({ name: '', password: '', role: 'viewer' });
        }}
      >
        <input
          aria-label="Name of the new user"
          placeholder="name"
          autocomplete="off"
          required
          value={draft.name}
          onInput={(event) => setDraft({ ...draft, name: event.currentTarget.value })}
        />
        <input
          aria-label="Password of the new user"
          placeholder="password, 10 bytes or more"
          type="password"
          autocomplete="new-password"
          required
          value={draft.password}
          onInput={(event) => setDraft({ ...draft, password: event.currentTarget.value })}
        />
        <select
          aria-label="Role of the new user"
          value={draft.role}
          onChange={(event) => setDraft({ ...draft, role: event.currentTarget.value })}
        >
          <option>viewer</option>
          <option>editor</option>
          <option>admin</option>
        </select>
        <button type="submit">Add user</button>
      </form>
    </section>
  );
}
