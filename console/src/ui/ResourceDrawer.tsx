import { App, Button, Drawer, Skeleton, Tooltip } from 'antd';
import { type ReactNode, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useLocation, useNavigate } from 'react-router';
import type { RestCall } from '../util/curl';
import { ApiSnippet } from './ApiSnippet';
import { EmptyState } from './EmptyState';
import { type Problem, ProblemAlert } from './ProblemAlert';
import { useRouteDrawer } from './useRouteDrawer';

/** How a thing is deleted. */
export interface Removal {
  /** What the question calls it, and its id. */
  name: string;
  id: string;
  /** What goes with it. */
  body: string;
  /** Why it cannot be deleted as it is, if so. */
  hindrance?: string | undefined;
  /** Deletes it; says why not, if that was refused. */
  run: () => Promise<Problem | null>;
}

function DeleteButton({
  removal,
  onGone,
  onRefused,
}: {
  removal: Removal;
  onGone: () => void;
  onRefused: (problem: Problem | null) => void;
}) {
  const { t } = useTranslation();
  const { modal, message } = App.useApp();
  const { name, id, body, hindrance, run } = removal;
  const remove = async () => {
    onRefused(null);
    const refusal = await run();
    if (refusal === null) {
      void message.success(t('common.deletedNamed', { name }));
      onGone();
    } else {
      onRefused(refusal);
    }
  };
  return (
    <Tooltip title={hindrance}>
      <Button
        danger
        disabled={hindrance !== undefined}
        aria-description={hindrance}
        onClick={() =>
          void modal.confirm({
            title: t('common.deleteTitle', { name }),
            content: (
              <>
                {name !== id && <p className="mono">{id}</p>}
                <p>{body}</p>
              </>
            ),
            okText: t('common.delete'),
            okButtonProps: { danger: true },
            cancelText: t('common.cancel'),
            focusable: { autoFocusButton: 'cancel' },
            onOk: remove,
          })
        }
      >
        {t('common.delete')}
      </Button>
    </Tooltip>
  );
}

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
  removal,
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
  /** How it is deleted, where that can be done here. */
  removal?: (item: T) => Removal;
  children: (item: T) => ReactNode;
}) {
  const navigate = useNavigate();
  const { search } = useLocation();
  const drawer = useRouteDrawer(() => void navigate({ pathname: list, search }));
  const [refusal, setRefusal] = useState<Problem | null>(null);
  const isMissing = problem?.status === 404;
  // What was known of a thing that is gone no longer counts.
  const known = isMissing ? undefined : item;
  return (
    <Drawer
      {...drawer}
      size={size}
      title={title(known)}
      extra={
        <div className="drawer-extra">
          <ApiSnippet calls={calls} />
          {known !== undefined && removal !== undefined && (
            <DeleteButton removal={removal(known)} onGone={drawer.onClose} onRefused={setRefusal} />
          )}
        </div>
      }
    >
      {isMissing && (
        <EmptyState title={missing.title} action={<Button onClick={drawer.onClose}>{missing.back}</Button>} />
      )}
      {problem !== undefined && !isMissing && (
        <div className="above-panel">
          <ProblemAlert problem={problem} onRetry={onRetry} />
        </div>
      )}
      {refusal !== null && (
        <div className="above-panel">
          <ProblemAlert problem={refusal} />
        </div>
      )}
      {known === undefined && problem === undefined && <Skeleton active paragraph={{ rows: 12 }} />}
      {known !== undefined && children(known)}
    </Drawer>
  );
}
