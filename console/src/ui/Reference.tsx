import { Link, type To } from 'react-router';
import { CopyButton } from './CopyButton';
import { CopyText } from './CopyText';

/** A reference to another resource: its name where known, a way to its page if it has one, and always its id. */
export function Reference({
  id,
  name,
  what,
  to,
}: {
  id: string;
  name?: string | undefined;
  what: string;
  to?: To;
}) {
  if (to !== undefined && name === undefined) {
    return (
      <span className="copy-text">
        <Link className="mono" to={to}>
          {id}
        </Link>
        <CopyButton text={id} what={what} />
      </span>
    );
  }
  return (
    <>
      {name !== undefined && <span>{to === undefined ? name : <Link to={to}>{name}</Link>} </span>}
      <CopyText value={id} what={what} />
    </>
  );
}
