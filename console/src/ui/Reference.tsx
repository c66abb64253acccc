import { CopyText } from './CopyText';

/** A reference to another resource: its name where known, and always its id. */
export function Reference({ id, name, what }: { id: string; name: string | undefined; what: string }) {
  return (
    <>
      {name !== undefined && <span>{name} </span>}
      <CopyText value={id} what={what} />
    </>
  );
}
