// Small parts that know no domain: notices, empty places, copying, dialogs, code.
import type { ComponentChildren } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import type { ApiError } from '../api/client';

/** A refusal in the server's words, and what can be done. */
export function ErrorBox({ error, retry }: { error: ApiError; retry?: () => void }) {
  return (
    <div class="notice bad" role="alert">
      <strong>{error.title}</strong>
      {error.message !== '' && (
        <div>
          {error.field !== '' && <code>{error.field}</code>} {error.message}
        </div>
      )}
      <div class="row small">
        {retry && (error.status === 0 || error.status === 429 || error.status >= 500) && (
          <button type="button" onClick={retry}>
            Try again
          </button>
        )}
        {error.requestId !== '' && <span class="soft">request {error.requestId}</span>}
      </div>
    </div>
  );
}

export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <h2>{title}</h2>
      {children}
    </div>
  );
}

/** Copies, and says so for a moment, to screen readers too. */
export function Copy({ text, children = 'Copy' }: { text: string | (() => string); children?: ComponentChildren }) {
  const [copied, setCopied] = useState<boolean>();
  useEffect(() => {
    if (copied === undefined) return;
    const timer = setTimeout(() => setCopied(undefined), 1500);
    return () => clearTimeout(timer);
  }, [copied]);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(typeof text === 'string' ? text : text());
      setCopied(true);
    } catch {
      setCopied(false);
    }
  };
  return (
    <>
      <button type="button" onClick={copy}>
        {copied === undefined ? children : copied ? 'Copied' : 'Not allowed by the browser'}
      </button>
      <span class="hidden" role="status">
        {copied && 'Copied'}
      </span>
    </>
  );
}

/** A block of text to read and copy. */
export function Code({ text, title, label }: { text: string; title?: string; label?: string }) {
  return (
    <figure class="stack code-block">
      <div class="spread">
        <figcaption>{title && <strong>{title}</strong>}</figcaption>
        <Copy text={text} />
      </div>
      <Scroll label={label ?? title ?? 'text'}>
        <pre class="code">{text}</pre>
      </Scroll>
    </figure>
  );
}

/** What is too wide for a small screen: it scrolls by itself, also by keyboard. */
export function Scroll({ label, panel, children }: { label: string; panel?: boolean; children: ComponentChildren }) {
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reachable by keyboard (WCAG 2.1.1)
    <section class={panel ? 'panel scroll' : 'scroll'} tabIndex={0} aria-label={label}>
      {children}
    </section>
  );
}

/** A native dialog: Esc closes it, focus goes back to where it was. */
export function Dialog({
  title,
  close,
  drawer,
  children,
}: {
  title: string;
  close: () => void;
  drawer?: boolean;
  children: ComponentChildren;
}) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const before = document.activeElement;
    dialog.current?.showModal();
    return () => {
      if (before instanceof HTMLElement) before.focus();
    };
  }, []);
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: Esc is the dialog's own; the click is on its backdrop
    <dialog
      ref={dialog}
      class={drawer ? 'drawer' : ''}
      aria-label={title}
      onCancel={(event) => {
        event.preventDefault();
        close();
      }}
      onClick={(event) => event.target === dialog.current && close()}
    >
      <div class="head">
        <h2>{title}</h2>
        <button type="button" aria-label="Close" onClick={close}>
          ✕
        </button>
      </div>
      <div class="body">{children}</div>
    </dialog>
  );
}

/** Shows what it holds only after a moment, so that quick answers do not flicker. */
export function Later({ children }: { children: ComponentChildren }) {
  const [on, setOn] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setOn(true), 200);
    return () => clearTimeout(timer);
  }, []);
  return on ? children : null;
}

export const Loading = () => (
  <Later>
    <div class="empty" role="status">
      Loading…
    </div>
  </Later>
);

export const Progress = ({ on }: { on: boolean }) => <div class={on ? 'progress on' : 'progress'} aria-hidden="true" />;

/** The colour of a line in a chart; an empty place for what has none. */
export const Swatch = ({ color }: { color: string | undefined }) =>
  color ? <span class="swatch" style={{ background: color }} aria-hidden="true" /> : <span class="swatch" aria-hidden="true" />;
