import { Alert, Button } from 'antd';
import type { ReactNode } from 'react';
import { useTranslation } from 'react-i18next';
import { CopyText } from './CopyText';

/** What `ProblemAlert` shows; `ApiProblem` has this shape. */
export interface Problem {
  status: number;
  code: string;
  title: string;
  detail: string;
  field: string | null;
  requestId: string | null;
  blockers: string[];
}

const LOCAL = ['NetworkError', 'Timeout', 'BadResponse'] as const;

function Row({ label, children }: { label: string; children: ReactNode }) {
  return (
    <div className="problem-row">
      <dt>{label}</dt>
      <dd>{children}</dd>
    </div>
  );
}

/** What went wrong, with everything one needs to ask for help: code, field, what is in the way, request id. */
export function ProblemAlert({
  problem,
  onRetry,
  note,
}: {
  problem: Problem;
  onRetry?: () => void;
  note?: string;
}) {
  const { t } = useTranslation();
  const local = LOCAL.find((code) => code === problem.code);
  const headline = local ? t(`problem.${local}`) : problem.detail || problem.title || t('problem.failed');
  return (
    <Alert
      role="alert"
      type="error"
      showIcon
      className="problem"
      title={headline}
      description={
        <>
          {note !== undefined && <p className="problem-note">{note}</p>}
          <dl className="problem-facts">
            <Row label={t('problem.code')}>
              <span className="mono">{problem.code}</span>
            </Row>
            {problem.field !== null && (
              <Row label={t('problem.field')}>
                <span className="mono">{problem.field}</span>
              </Row>
            )}
            {problem.blockers.length > 0 && (
              <Row label={t('problem.blockers')}>
                <span className="mono">{problem.blockers.join(', ')}</span>
              </Row>
            )}
            {problem.requestId !== null && (
              <Row label={t('problem.requestId')}>
                <CopyText value={problem.requestId} what={t('problem.requestId')} />
              </Row>
            )}
          </dl>
        </>
      }
      action={
        onRetry && (
          <Button size="small" onClick={onRetry}>
            {t('problem.retry')}
          </Button>
        )
      }
    />
  );
}
