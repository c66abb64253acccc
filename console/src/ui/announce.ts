/** Texts for screen readers. Said politely, one after another, by the one live region that `LiveRegion` shows. */

type Listener = (text: string) => void;
const listeners = new Set<Listener>();

/** Says something to whoever listens with a screen reader. */
export function announce(text: string): void {
  for (const listener of listeners) {
    listener(text);
  }
}

export function onAnnouncement(listener: Listener): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}
