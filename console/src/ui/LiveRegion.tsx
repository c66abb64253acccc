import { useEffect, useState } from 'react';
import { onAnnouncement } from './announce';

/** The one live region of the console; always in the document, because a region that appears with its text is not read. */
export function LiveRegion() {
  const [lines, setLines] = useState<string[]>([]);
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const stop = onAnnouncement((line) => {
      setLines((old) => [...old.slice(-4), line]);
      clearTimeout(timer);
      timer = setTimeout(() => setLines([]), 10_000);
    });
    return () => {
      clearTimeout(timer);
      stop();
    };
  }, []);
  return (
    <div role="log" aria-live="polite" aria-relevant="additions text" className="visually-hidden">
      {lines.map((line, index) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: lines are only appended, and may repeat.
        <p key={`${index}-${line}`}>{line}</p>
      ))}
    </div>
  );
}
