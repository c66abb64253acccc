import type { ReactNode } from 'react';

/** One line of a select box: what it is at the left, what tells it from others at the right. */
export function Option({ name, note }: { name: string; note?: ReactNode }) {
  return (
    <span className="option">
      <span className="ellipsis">{name}</span>
      {note !== undefined && <span className="option-note">{note}</span>}
    </span>
  );
}
