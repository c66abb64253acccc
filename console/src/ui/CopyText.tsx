import { CopyButton } from './CopyButton';

/** A value one may want to paste elsewhere (an id, an address), with a button that copies it. */
export function CopyText({ value, what }: { value: string | null | undefined; what: string }) {
  if (!value) {
    return <span className="muted">–</span>;
  }
  return (
    <span className="copy-text">
      <span className="mono">{value}</span>
      <CopyButton text={value} what={what} />
    </span>
  );
}
