import { Tooltip } from 'antd';
import { useTranslation } from 'react-i18next';
import { useAppSelector } from '../../store';

/** Whether what is shown follows the server at once or with a few seconds' delay. */
export function LiveIndicator() {
  const { t } = useTranslation();
  const status = useAppSelector((state) => state.live.status);
  const hint = t(`live.${status}Hint`);
  return (
    <Tooltip title={hint}>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: its explanation must be reachable by keyboard. */}
      <span className="live" data-live={status} role="status" tabIndex={0} aria-description={hint}>
        <span className="live-dot" aria-hidden="true" />
        <span>{t(`live.${status}`)}</span>
      </span>
    </Tooltip>
  );
}
