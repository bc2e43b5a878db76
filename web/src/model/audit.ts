// The audit log's actions in words. Pure.

/** What was done, by the word the action begins with. */
const DONE: Record<string, string> = {
  cancel: 'cancelled',
  change: 'changed',
  create: 'made',
  delete: 'deleted',
  disable: 'disabled',
  edit: 'changed',
  enable: 'enabled',
  log: 'logged',
  pause: 'paused',
  put: 'saved',
  resume: 'resumed',
  revoke: 'revoked',
  rotate: 'rotated',
  start: 'started',
};

/** `put metric` as `saved metric`; what is not known stays as it is. */
export function done(action: string): string {
  const [first = '', ...rest] = action.split(' ');
  return [Object.hasOwn(DONE, first) ? DONE[first] : first, ...rest].join(' ');
}
