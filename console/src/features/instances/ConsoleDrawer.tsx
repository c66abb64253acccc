import { DownloadOutlined, ReloadOutlined } from '@ant-design/icons';
import { Button, Checkbox, Drawer, Skeleton } from 'antd';
import { useEffect, useMemo, useRef, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useLocation, useNavigate, useParams } from 'react-router';
import { useGetConsoleOutputQuery, useGetInstanceQuery } from '../../api';
import type { ApiProblem } from '../../api/errors';
import { paths } from '../../paths';
import { ApiSnippet } from '../../ui/ApiSnippet';
import { EmptyState } from '../../ui/EmptyState';
import { ProblemAlert } from '../../ui/ProblemAlert';
import { ScrollText } from '../../ui/ScrollText';
import { TimeText } from '../../ui/TimeText';
import { useRouteDrawer } from '../../ui/useRouteDrawer';
import { fromBase64, plainTerminalText } from '../../util/text';

const FOLLOW_EVERY = 3_000;

/** What the guest has written to its serial console. It comes from the tenant's machine: shown as text, never more. */
export function ConsoleDrawer() {
  const { t } = useTranslation();
  const { id = '' } = useParams();
  const navigate = useNavigate();
  const { search } = useLocation();
  const [follow, setFollow] = useState(true);
  const [wrap, setWrap] = useState(false);
  const screen = useRef<HTMLElement>(null);
  const { data: instance } = useGetInstanceQuery(id);
  const { currentData, error, isFetching, refetch } = useGetConsoleOutputQuery(id, {
    pollingInterval: follow ? FOLLOW_EVERY : 0,
    skipPollingIfUnfocused: true,
  });
  const drawer = useRouteDrawer(() => void navigate({ pathname: paths.instance(id), search }));
  const problem = error as ApiProblem | undefined;
  const output = currentData?.output;
  const text = useMemo(() => {
    const raw = output === undefined ? null : fromBase64(output);
    return raw === null ? null : plainTerminalText(raw);
  }, [output]);

  // biome-ignore lint/correctness/useExhaustiveDependencies: each new text moves the view to its end.
  useEffect(() => {
    if (follow && screen.current !== null) {
      screen.current.scrollTop = screen.current.scrollHeight;
    }
  }, [follow, text]);

  const download = () => {
    const url = URL.createObjectURL(new Blob([text ?? ''], { type: 'text/plain' }));
    const link = document.createElement('a');
    link.href = url;
    link.download = `${id}-console.txt`;
    link.click();
    URL.revokeObjectURL(url);
  };

  return (
    <Drawer
      {...drawer}
      size={920}
      title={t('output.title', { name: instance?.name ?? id })}
      extra={<ApiSnippet calls={[{ method: 'GET', path: `/instances/${id}/console-output` }]} />}
    >
      <div className="output">
        <div className="output-tools">
          <Checkbox checked={follow} onChange={({ target }) => setFollow(target.checked)}>
            {t('output.follow')}
          </Checkbox>
          <Checkbox checked={wrap} onChange={({ target }) => setWrap(target.checked)}>
            {t('output.wrap')}
          </Checkbox>
          <Button
            icon={<ReloadOutlined aria-hidden="true" spin={isFetching} />}
            onClick={() => void refetch()}
          >
            {t('common.refresh')}
          </Button>
          <Button icon={<DownloadOutlined aria-hidden="true" />} disabled={!text} onClick={download}>
            {t('output.download')}
          </Button>
          {currentData?.timestamp && (
            <span className="muted">
              <TimeText at={currentData.timestamp} />
            </span>
          )}
        </div>
        {problem !== undefined && <ProblemAlert problem={problem} onRetry={() => void refetch()} />}
        {currentData === undefined && problem === undefined && <Skeleton active paragraph={{ rows: 10 }} />}
        {currentData !== undefined && text === null && <EmptyState title={t('output.unreadable')} />}
        {text === '' && <EmptyState title={t('output.empty')} />}
        {text !== null && text !== '' && (
          <ScrollText ref={screen} className="terminal" wrap={wrap} label={t('output.label')} text={text} />
        )}
      </div>
    </Drawer>
  );
}
