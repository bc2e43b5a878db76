// Saved views: queries under a name, for everybody who sees the project. Opening one is following a link.
import { useEffect, useRef, useState } from 'preact/hooks';
import { type ApiError, ask, get, of } from '../api/client';
import { useResource } from '../api/resource';
import type { View } from '../api/types';
import { may, useApp } from '../app/context';
import { paths } from '../app/routes';
import { ErrorBox } from '../ui/parts';

export function Views({ project, search }: { project: string; search: string }) {
  const { me } = useApp();
  const editor = may(me, 'edit');
  const [open, setOpen] = useState(false);
  const views = useResource<View[]>(`views ${open}`, (signal) => get(of(project, 'views'), signal));
  const [name, setName] = useState('');
  const [error, setError] = useState<ApiError>();
  const menu = useRef<HTMLDetailsElement>(null);
  const current = views.data?.find((view) => view.search === search);

  useEffect(() => {
    if (!open) return;
    const outside = (event: Event) => !menu.current?.contains(event.target as Node) && setOpen(false);
    document.addEventListener('pointerdown', outside);
    return () => document.removeEventListener('pointerdown', outside);
  }, [open]);
  // A view that was chosen is what is shown now.
  useEffect(() => setOpen(false), [search]);

  const act = async (method: string, view: string, body?: unknown) => {
    setError(undefined);
    try {
      await ask(method, of(project, 'views', view), { body });
      setName('');
      views.reload();
    } catch (fault) {
      setError(fault as ApiError);
    }
  };
  const taken = views.data?.some((view) => view.name === name.trim());
  return (
    <details
      class="menu"
      ref={menu}
      open={open}
      onToggle={(event) => setOpen(event.currentTarget.open)}
      onKeyDown={(event) => {
        if (event.key !== 'Escape') return;
        setOpen(false);
        menu.current?.querySelector('summary')?.focus();
      }}
    >
      <summary class="button">{current ? `View: ${current.name}` : 'Views'}</summary>
      <div class="popover stack">
        {views.error && <ErrorBox error={views.error} retry={views.reload} />}
        {views.data?.length === 0 && <p class="soft">No view is saved yet.</p>}
        {views.data && views.data.length > 0 && (
          <ul class="plain">
            {views.data.map((view) => (
              <li class="spread" key={view.name}>
                <a href={paths.explore(project, view.search)} aria-current={view === current ? 'page' : undefined}>
                  {view.name}
                  <span class="soft small"> by {view.saved_by.replace(/^user /, '')}</span>
                </a>
                {editor && (
                  <button
                    type="button"
                    class="danger"
                    aria-label={`Delete ${view.name}`}
                    onClick={() => act('DELETE', view.name)}
                  >
                    ✕
                  </button>
                )}
              </li>
            ))}
          </ul>
        )}
        {error && <ErrorBox error={error} />}
        {editor && (
          <form
            class="row"
            onSubmit={(event) => {
              event.preventDefault();
              act('PUT', name.trim(), { search });
            }}
          >
            <input
              aria-label="Name of the view"
              placeholder="Name"
              required
              value={name}
              onInput={(event) => setName(event.currentTarget.value)}
            />
            <button type="submit">{taken ? 'Replace' : 'Save this query'}</button>
          </form>
        )}
      </div>
    </details>
  );
}
