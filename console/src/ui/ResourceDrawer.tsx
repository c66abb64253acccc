import { Button, Drawer, Skeleton } from 'antd';
import type { ReactNode } from 'react';
import { useLocation, useNavigate } from 'react-router';
import type { RestCall } from '../util/curl';
import { ApiSnippet } from './ApiSnippet';
import { EmptyState } from './EmptyState';
import { type Problem, ProblemAlert } from './ProblemAlert';
import { useRouteDrawer } from './useRouteDrawer';

/** Everything about one thing, beside the list it is in; a route of its own below the list's. */
export function ResourceDrawer<T>({
  size = 680,
  title,
  calls,
  list,
  item,
  problem,
  onRetry,
  missing,
  children,
}: {
  /** Its width, if the window has that. */
  size?: number;
  /** For the thing when it is known, and for none. */
  title: (item: T | undefined) => ReactNode;
  calls: RestCall[];
  /** The path of the list, which closing leads to. */
  list: string;
  item: T | undefined;
  problem: Problem | undefined;
  onRetry: () => void;
  /** What is said when there is no such thing, and what leads back to the list. */
  missing: { title: string; back: string };
  children: (item: T) => ReactNode;
}) {
  const navigate = useNavigate();
  const { search } = useLocation();
  const drawer = useRouteDrawer(() => void navigate({ pathname: list, search }));
  const isMissing = problem?.status === 404;
  // What was known of a thing that is gone no longer counts.
  const known = isMissing ? undefined : item;
  return (
    <Drawer {...drawer} size={size} title={title(known)} extra={<ApiSnippet calls={calls} />}>
      {isMissing && (
        <EmptyState title={missing.title} action={<Button onClick={drawer.onClose}>{missing.back}</Button>} />
      )}
      {problem !== undefined && !isMissing && (
        <div className="above-panel">
          <ProblemAlert problem={problem} onRetry={onRetry} />
        </div>
      )}
      {known === undefined && problem === undefined && <Skeleton active paragraph={{ rows: 12 }} />}
      {known !== undefined && children(known)}
    </Drawer>
  );
}
