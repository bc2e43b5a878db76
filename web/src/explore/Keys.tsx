// The keys of Explore: what each does, and a switch for those that are single letters (WCAG 2.1.4).
import { useState } from 'preact/hooks';
import { readKeys, writeKeys } from '../app/theme';
import { Dialog } from '../ui/parts';

const KEYS: [key: string, does: string][] = [
  ['/', 'add a filter'],
  ['g', 'add a group'],
  ['a', 'add an aggregate'],
  ['t', 'choose the time frame'],
  ['j, k', 'next row, row before'],
  ['v', 'groups or reports'],
  ['r, Shift+Enter, Ctrl+Enter', 'run again'],
  ['e', 'export as metric'],
  ['?', 'this list'],
  ['Esc', 'one step back'],
];

export function KeysDialog({ close }: { close: () => void }) {
  const [on, setOn] = useState(readKeys);
  return (
    <Dialog title="Keys" close={close}>
      <dl class="pairs">
        {KEYS.map(([key, does]) => [
          <dt key={key}>
            <kbd>{key}</kbd>
          </dt>,
          <dd key={does}>{does}</dd>,
        ])}
      </dl>
      <label class="row">
        <input
          type="checkbox"
          checked={on}
          onChange={(event) => {
            writeKeys(event.currentTarget.checked);
            setOn(event.currentTarget.checked);
          }}
        />
        Single letters are keys, in this browser
      </label>
    </Dialog>
  );
}

/** Moves the focus to the next row of the page's table, or the one before. */
export function moveRow(by: 1 | -1) {
  const rows = [...document.querySelectorAll<HTMLElement>('main tbody tr')].flatMap((row) => {
    const target = row.querySelector<HTMLElement>('a, button');
    return target ? [target] : [];
  });
  const focused = document.activeElement?.closest('tr');
  const at = rows.findIndex((target) => target.closest('tr') === focused);
  rows[at < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.min(Math.max(at + by, 0), rows.length - 1)]?.focus();
}
