import type { ReactNode } from 'react';

/** What stands above a list: search and filters. */
export function Toolbar({ children }: { children: ReactNode }) {
  return (
    // biome-ignore lint/a11y/useSemanticElements: React 18 does not know <search>.
    <div role="search" className="toolbar">
      {children}
    </div>
  );
}
