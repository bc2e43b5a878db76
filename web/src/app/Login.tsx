// Logging in by name and password. The session is a cookie that no script reads.
import { useState } from 'preact/hooks';
import { type ApiError, post } from '../api/client';
import { ErrorBox } from '../ui/parts';

export function Login({ ended, done }: { ended: boolean; done: () => void }) {
  const [error, setError] = useState<ApiError>();
  const [busy, setBusy] = useState(false);
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget as HTMLFormElement);
    setBusy(true);
    try {
      await post('/login', { user: form.get('user'), password: form.get('password'), cookie: true });
      done();
    } catch (fault) {
      setError(fault as ApiError);
    } finally {
      setBusy(false);
    }
  };
  return (
    <main id="page" class="narrow">
      <form class="panel stack login" onSubmit={submit}>
        <h1>Log in to Crashmeter</h1>
        {ended && <div class="notice">The session has ended. Log in to go on where you were.</div>}
        <label class="field">
          <span class="label">User</span>
          <input name="user" autocomplete="username" required />
        </label>
        <label class="field">
          <span class="label">Password</span>
          <input name="password" type="password" autocomplete="current-password" required />
          <span class="help">The first start of the server prints one for the user admin.</span>
        </label>
        {error && <ErrorBox error={error} />}
        <button type="submit" class="main" disabled={busy}>
          Log in
        </button>
      </form>
    </main>
  );
}
