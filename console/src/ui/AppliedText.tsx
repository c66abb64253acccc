import { useTranslation } from 'react-i18next';

/** How far a change has come, in the words of the API. */
export interface AppliedCount {
  generation: number;
  nodes: number;
  acked: number;
}

/** Whether nodes are still missing that must have the last change. */
export function isSettling(applied: AppliedCount | null | undefined): boolean {
  return applied !== null && applied !== undefined && applied.acked < applied.nodes;
}

/** "Applied n/n": on how many of the nodes that must have it the last change is in force. */
export function AppliedText({ applied }: { applied: AppliedCount | null | undefined }) {
  const { t } = useTranslation();
  if (applied === null || applied === undefined) {
    return <span className="muted">–</span>;
  }
  const { generation, acked, nodes } = applied;
  return (
    <span
      className="state-tag"
      data-tone={isSettling(applied) ? 'busy' : 'good'}
      title={t('applied.hint', { generation, acked, nodes })}
    >
      <span className="state-dot" aria-hidden="true" />
      {t('applied.text', { acked, nodes })}
    </span>
  );
}
