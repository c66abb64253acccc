import { ApiOutlined } from '@ant-design/icons';
import { Button, Popover } from 'antd';
import { useTranslation } from 'react-i18next';
import { type RestCall, toCurl } from '../util/curl';
import { CopyButton } from './CopyButton';
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
          <div key={`${call.method} ${call.path}`} className="code-box">
            <ScrollText label={`${call.method} ${call.path}`} text={command} />
            <CopyButton className="code-copy" text={command} what={`${call.method} ${call.path}`} />
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
