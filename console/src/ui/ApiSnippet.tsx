import { ApiOutlined } from '@ant-design/icons';
import { Button, Popover, Typography } from 'antd';
import { useTranslation } from 'react-i18next';
import { type RestCall, toCurl } from '../util/curl';
import { ScrollText } from './ScrollText';

/** A button that shows the REST calls behind a view as curl commands. */
export function ApiSnippet({ calls }: { calls: RestCall[] }) {
  const { t } = useTranslation();
  const content = (
    <div className="snippet">
      <p className="muted">{t('api.hint')}</p>
      {calls.map((call) => {
        const command = toCurl(window.location.origin, call);
        return (
          <div key={`${call.method} ${call.path}`} className="snippet-block">
            <ScrollText label={`${call.method} ${call.path}`} text={command} />
            <Typography.Text
              className="snippet-copy"
              copyable={{ text: command, tooltips: [t('api.copy'), t('common.copied')] }}
            />
          </div>
        );
      })}
    </div>
  );
  return (
    <Popover trigger="click" placement="bottomRight" title={t('api.title')} content={content}>
      <Button icon={<ApiOutlined aria-hidden="true" />}>{t('api.button')}</Button>
    </Popover>
  );
}
