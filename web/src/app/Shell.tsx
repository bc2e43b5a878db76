// The frame of every page: who is here, where one can go, and the page of the address.
import { useEffect, useState } from 'preact/hooks';
import { type ApiError, ask, get, session } from '../api/client';
import { useLive } from '../api/live';
import { useResource } from '../api/resource';
import type { Me } from '../api/types';
import { Explore } from '../explore/Explore';
import { ReportPage } from '../explore/Report';
import { MetricExport } from '../export/MetricExport';
import { MetricPage } from '../export/MetricPage';
import { NewStore } from '../export/StoreForm';
import { StorePage } from '../export/StorePage';
import { Access } from '../settings/Access';
import { Account } from '../settings/Account';
import { Attributes } from '../settings/Attributes';
import { AuditLog } from '../settings/AuditLog';
import { Start } from '../settings/Start';
import { System } from '../settings/System';
import { Empty, ErrorBox, Loading } from '../ui/parts';
import { AppContext, may } from './context';
import icon from './icon.svg';
import { Login } from './Login';
import { followLink, go, paths, type Route, readRoute, useAddress } from './routes';
import { applyTheme, readTheme, readZone, type Theme, useDark, writeZone } from './theme';

export function App() {
  const { path, search } = useAddress();
  const route = readRoute(path);
  const [ended, setEnded] = useState(false);
  const me = useResource<Me>(`me ${ended}`, (signal) => get('/me', signal), { on: route?.page !== 'login' && !ended });
  const projects = useResource<string[]>('projects', (signal) => get('/projects', signal), { on: me.data !== undefined });
  const [zone, setZone] = useState(readZone);
  const [theme, setTheme] = useState<Theme>(readTheme);
  const dark = useDark();
  const shownProject = route && 'project' in route && projects.data?.includes(route.project) ? route.project : undefined;
  const live = useLive(ended ? undefined : shownProject);

  useEffect(() => {
    session.ended = () => setEnded(true);
    document.addEventListener('click', followLink);
    return () => document.removeEventListener('click', followLink);
  }, []);
  useEffect(() => {
    if (route?.page === 'home' && projects.data?.[0]) go(paths.explore(projects.data[0]), true);
  }, [route?.page, projects.data]);
  useEffect(() => {
    document.title = route && 'project' in route ? `${titleOf(route)} – ${route.project} – Crashmeter` : 'Crashmeter';
  }, [path]);

  if (route?.page === 'login' || ended || me.error?.status === 401) {
    return (
      <Login
        ended={ended}
        done={() => {
          setEnded(false);
          me.reload();
          projects.reload();
          if (route?.page === 'login') go('/');
        }}
      />
    );
  }
  if (me.error) return <main>{<ErrorBox error={me.error as ApiError} retry={me.reload} />}</main>;
  if (!me.data || !projects.data) return <Loading />;
  const project = route && 'project' in route ? route.project : undefined;
  const here = project ?? projects.data[0];
  const link = (href: string, text: string, on: boolean) => (
    <a href={href} aria-current={on ? 'page' : undefined}>
      {text}
    </a>
  );
  const settings =
    route !== undefined && ['metric-export', 'new-store', 'store', 'metric', 'attributes', 'access'].includes(route.page);
  return (
    <AppContext.Provider value={{ me: me.data, zone, dark, projects: projects.data }}>
      <a class="hidden" href="#page">
        Skip to the page
      </a>
      <header class="bar">
        <a class="name" href="/">
          <img src={icon} alt="" />
          Crashmeter
        </a>
        {here && (
          <nav aria-label="Pages">
            {link(paths.explore(here), 'Explore', route?.page === 'explore' || route?.page === 'report')}
            {link(paths.metricExport(here), 'Metric Export', settings && !['attributes', 'access'].includes(route?.page ?? ''))}
            {link(paths.start(here), 'Send reports', route?.page === 'start')}
            {link(paths.attributes(here), 'Attributes', route?.page === 'attributes')}
            {link(paths.access(here), 'Access', route?.page === 'access')}
            {link('/system', 'System', route?.page === 'system')}
            {may(me.data, 'admin') && link(paths.auditLog(), 'Audit log', route?.page === 'audit-log')}
          </nav>
        )}
        <div class="right">
          <select
            aria-label="Project"
            value={here ?? ''}
            onChange={(event) => go(event.currentTarget.value === '' ? '/' : paths.explore(event.currentTarget.value))}
          >
            {projects.data.map((name) => (
              <option key={name}>{name}</option>
            ))}
            <option value="">New project…</option>
          </select>
          <select
            aria-label="Time zone"
            value={zone}
            onChange={(event) => {
              const chosen = event.currentTarget.value === 'local' ? 'local' : 'UTC';
              writeZone(chosen);
              setZone(chosen);
            }}
          >
            <option value="UTC">UTC</option>
            <option value="local">Local time</option>
          </select>
          <select
            aria-label="Theme"
            value={theme}
            onChange={(event) => {
              const chosen = event.currentTarget.value as Theme;
              applyTheme(chosen);
              setTheme(chosen);
            }}
          >
            <option value="system">Auto</option>
            <option value="light">Light</option>
            <option value="dark">Dark</option>
          </select>
          <a href="/account">{me.data.user ?? me.data.name}</a>
          <button type="button" onClick={() => ask('POST', '/logout').finally(() => setEnded(true))}>
            Log out
          </button>
        </div>
      </header>
      {live.lost && (
        <div class="banner warn" role="status">
          The server does not answer. What is shown may be old; this page tries again by itself.
        </div>
      )}
      {live.outdated && (
        <div class="banner" role="status">
          The server has a newer version of this page.{' '}
          <button type="button" onClick={() => location.reload()}>
            Reload
          </button>
        </div>
      )}
      <Page key={project ?? ''} route={route} search={search} projects={projects.data} added={projects.reload} />
    </AppContext.Provider>
  );
}

const titleOf = (route: Route) =>
  ({
    explore: 'Explore',
    report: 'Report',
    start: 'Send reports',
    'metric-export': 'Metric Export',
    'new-store': 'Add store',
    store: 'Store',
    metric: 'Metric',
    attributes: 'Attributes',
    access: 'Access',
    system: 'System',
    'audit-log': 'Audit log',
    account: 'Account',
    login: 'Log in',
    home: '',
  })[route.page];

function Page({
  route,
  search,
  projects,
  added,
}: {
  route: Route | undefined;
  search: string;
  projects: string[];
  added: () => void;
}) {
  if (!route) {
    return (
      <main id="page">
        <Empty title="There is no such page">
          <a href="/">To the start</a>
        </Empty>
      </main>
    );
  }
  if ('project' in route && !projects.includes(route.project)) {
    return (
      <main id="page">
        <Empty title={`There is no project “${route.project}”, or you may not see it`}>
          <a href="/">To the start</a>
        </Empty>
      </main>
    );
  }
  switch (route.page) {
    case 'explore':
      return <Explore project={route.project} search={search} />;
    case 'report':
      return <ReportPage project={route.project} tx={route.tx} />;
    case 'start':
      return <Start project={route.project} />;
    case 'metric-export':
      return <MetricExport project={route.project} />;
    case 'new-store':
      return <NewStore project={route.project} search={search} />;
    case 'store':
      return <StorePage project={route.project} name={route.store} search={search} />;
    case 'metric':
      return <MetricPage project={route.project} set={route.set} name={route.metric} search={search} />;
    case 'attributes':
      return <Attributes project={route.project} />;
    case 'access':
      return <Access project={route.project} />;
    case 'system':
      return <System />;
    case 'audit-log':
      return <AuditLog search={search} />;
    case 'account':
      return <Account />;
    default:
      return projects.length === 0 || search === '' ? <NewProject added={added} /> : null;
  }
}

function NewProject({ added }: { added: () => void }) {
  const [name, setName] = useState('');
  const [error, setError] = useState<ApiError>();
  const create = async (event: Event) => {
    event.preventDefault();
    try {
      await ask('POST', '/projects', { body: { name } });
      added();
      go(paths.start(name));
    } catch (fault) {
      setError(fault as ApiError);
    }
  };
  return (
    <main id="page" class="narrow">
      <h1>New project</h1>
      <form class="panel stack" onSubmit={create}>
        <p class="soft">A project has reports, metrics and tokens of its own: one for each game, app or service.</p>
        <label class="field">
          <span class="label">Name</span>
          <input value={name} required onInput={(event) => setName(event.currentTarget.value)} />
        </label>
        {error && <ErrorBox error={error} />}
        <button type="submit" class="main">
          Create
        </button>
      </form>
    </main>
  );
}
