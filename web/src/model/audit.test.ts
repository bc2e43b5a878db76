// Actions of the audit log in words.
import { expect, test } from 'vitest';
import { done } from './audit';

test('an action is told as done', () => {
  expect(['put metric store', 'log in', 'set role', 'revoke token', 'constructor', ''].map(done)).toEqual([
    'saved metric store',
    'logged in',
    'set role',
    'revoked token',
    'constructor',
    '',
  ]);
});
