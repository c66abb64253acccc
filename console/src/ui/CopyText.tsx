import { Typography } from 'antd';
import { useTranslation } from 'react-i18next';

/** A value one may want to paste elsewhere (an id, an address), with a button that copies it. */
export function CopyText({ value, what }: { value: string | null | undefined; what: string }) {
  const { t } = useTranslation();
  if (!value) {
    return <span className="muted">–</span>;
  }
  return (
    <Typography.Text
      className="mono copy-text"
      copyable={{ text: value, tooltips: [t('common.copy', { what }), t('common.copied')] }}
    >
      {value}
    </Typography.Text>
  );
}
