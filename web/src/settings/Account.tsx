// One's own account: who one is here, and a new password.
import { useState } from 'preact/hooks';
import { type ApiError, ask } from '../api/client';
import { useApp } from '../app/context';
import { clock } from '../model/time';
import { ErrorBox } from '../ui/parts';

export function Account() {
  const { me, zone } = useApp();
  const [error, setError] = useState<ApiError>();
  const [changed, setChanged] = useState(false);
  const save = async (event: SubmitEvent) => {
    event.preventDefault();
    const element = event.currentTarget as HTMLFormElement;
    const form = new FormData(element);
    setError(undefined);
    try {
      await ask('PUT', '/me/password', { body: { old: form.get('old'), new: form.get('new') } });
      setChanged(true);
      element.reset();
    } catch (fault) {
      setError(fault as ApiError);
    }
  };
  return (
    <main id="page" class="narrow">
      <h1>Account</h1>
      <section class="panel">
        <dl class="pairs">
          <dt>User</dt>
          <dd>{me.user ?? me.name}</dd>
          <dt>Role</dt>
          <dd>{me.role ?? me.scope}</dd>
          {me.expires && [<dt key="ends">Session ends</dt>, <dd key="ends=">{clock(me.expires, zone)} at the latest</dd>]}
        </dl>
      </section>
      {me.user && (
        <form class="panel stack" onSubmit={save}>
          <h2>New password</h2>
          <label class="field">
            <span class="label">Old password</span>
            <input name="old" type="password" autocomplete="current-password" required />
          </label>
          <label class="field">
            <span class="label">New password</span>
            <input name="new" type="password" autocomplete="new-password" required />
            <span class="help">10 to 1,024 bytes. All other sessions end.</span>
          </label>
          {error && <ErrorBox error={error} />}
          {changed && (
            <div class="notice good" role="status">
              Changed.
            </div>
          )}
          <button type="submit" class="main">
            Change it
          </button>
        </form>
      )}
    </main>
  );
}
