import { Empty } from 'antd';
import type { ReactNode } from 'react';

/** What a list shows when there is nothing in it, and what to do about that. */
export function EmptyState({ title, hint, action }: { title: string; hint?: string; action?: ReactNode }) {
  return (
    <Empty
      image={Empty.PRESENTED_IMAGE_SIMPLE}
      className="empty-state"
      description={
        <>
          <div className="empty-title">{title}</div>
          {hint !== undefined && <div className="muted">{hint}</div>}
        </>
      }
    >
      {action}
    </Empty>
  );
}
