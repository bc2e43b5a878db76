// A text box with suggestions, by the ARIA pattern. Enter waits for the list of the text that is in the box: a row of an older list is
// never taken.
import { useEffect, useId, useLayoutEffect, useRef, useState } from 'preact/hooks';

export type Option = { value: string; note?: string };

type Props = {
  label: string;
  placeholder?: string;
  /** Options for a text; may be asked of the server. */
  load: (text: string, signal: AbortSignal) => Promise<Option[]> | Option[];
  /** Takes an option's value, or the text itself where that is allowed. */
  pick: (value: string) => void;
  free?: boolean;
  autoFocus?: boolean;
  initial?: string;
  cancel?: () => void;
};

export function Combobox({ label, placeholder, load, pick, free, autoFocus, initial = '', cancel }: Props) {
  const [text, setText] = useState(initial);
  const [open, setOpen] = useState(Boolean(autoFocus));
  const [list, setList] = useState<{ text: string; options: Option[] }>();
  const [at, setAt] = useState(free ? -1 : 0);
  const [waiting, setWaiting] = useState(false);
  const id = useId();
  const box = useRef<HTMLInputElement>(null);
  const latest = useRef(load);
  latest.current = load;

  // Before the next key: what is typed on, without waiting, belongs into the box.
  useLayoutEffect(() => {
    if (autoFocus) box.current?.focus();
  }, [autoFocus]);

  useEffect(() => {
    if (!open) return;
    const abort = new AbortController();
    Promise.resolve(latest.current(text, abort.signal)).then(
      (options) => {
        if (abort.signal.aborted) return;
        setList({ text, options });
        setAt(free ? -1 : 0);
      },
      () => !abort.signal.aborted && setList({ text, options: [] }),
    );
    return () => abort.abort();
  }, [text, open, free]);

  const take = (value: string | undefined) => {
    if (value === undefined) return;
    setOpen(false);
    setWaiting(false);
    setText('');
    pick(value);
  };
  const fresh = list?.text === text ? list.options : undefined;
  const commit = () => {
    const chosen = fresh?.[at]?.value;
    if (chosen !== undefined) take(chosen);
    else if (free) take(text);
    else if (fresh === undefined) setWaiting(true);
  };
  useEffect(() => {
    if (waiting && fresh) {
      setWaiting(false);
      take(fresh[0]?.value);
    }
  }, [waiting, fresh]);

  const key = (event: KeyboardEvent) => {
    if (event.isComposing) return;
    const count = fresh?.length ?? 0;
    if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
      event.preventDefault();
      setOpen(true);
      if (count > 0) setAt((at) => (event.key === 'ArrowDown' ? (at + 1) % count : (at <= 0 ? count : at) - 1));
    } else if (event.key === 'Enter') {
      event.preventDefault();
      event.stopPropagation();
      commit();
    } else if (event.key === 'Escape') {
      event.preventDefault();
      event.stopPropagation();
      if (open && text !== '') setText('');
      else {
        setOpen(false);
        cancel?.();
      }
    } else if (event.key === 'Tab') setOpen(false);
  };
  return (
    <span class="combo">
      <input
        ref={box}
        role="combobox"
        aria-label={label}
        aria-expanded={open}
        aria-controls={id}
        aria-autocomplete="list"
        aria-activedescendant={open && fresh?.[at] ? `${id}-${at}` : undefined}
        autocomplete="off"
        spellcheck={false}
        placeholder={placeholder}
        value={text}
        onFocus={() => setOpen(true)}
        onBlur={() => setOpen(false)}
        onInput={(event) => {
          setText(event.currentTarget.value);
          setOpen(true);
        }}
        onKeyDown={key}
      />
      <div role="listbox" class="options" id={id} aria-label={label} hidden={!open || !fresh || fresh.length === 0}>
        {fresh?.map((option, place) => (
          // biome-ignore lint/a11y/useFocusableInteractive: the box keeps the focus, by the combobox pattern
          <div
            role="option"
            key={option.value}
            id={`${id}-${place}`}
            aria-selected={place === at}
            onMouseDown={(event) => {
              event.preventDefault();
              take(option.value);
            }}
          >
            <span>{option.value === '' ? '(empty)' : option.value}</span>
            {option.note && <span class="soft">{option.note}</span>}
          </div>
        ))}
      </div>
    </span>
  );
}
