import { useTranslation } from 'react-i18next';
import { useNow } from '../util/clock';
import { agoText, fullTimeText } from '../util/time';

/** A moment as "3 minutes ago", exact on hover and for machines; keeps itself up to date. */
export function TimeText({ at }: { at: string | null | undefined }) {
  const { i18n } = useTranslation();
  const now = useNow();
  const time = at ? Date.parse(at) : Number.NaN;
  if (Number.isNaN(time)) {
    return <span className="muted">–</span>;
  }
  return (
    <time
      className="nowrap"
      dateTime={new Date(time).toISOString()}
      title={fullTimeText(time, i18n.language)}
    >
      {agoText(time, Math.max(now, time), i18n.language)}
    </time>
  );
}
