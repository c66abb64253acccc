import { Button, Result } from 'antd';
import { useTranslation } from 'react-i18next';
import { Link } from 'react-router';
import { paths } from '../../paths';

export function NotFoundPage() {
  const { t } = useTranslation();
  return (
    <Result
      status="info"
      title={t('app.notFound')}
      extra={<Link to={paths.instances()}>{t('app.home')}</Link>}
    />
  );
}

/** Shown in place of a page whose code failed; the rest of the console goes on. */
export function CrashPage() {
  const { t } = useTranslation();
  return (
    <Result
      status="error"
      title={t('app.crashed')}
      extra={
        <Button type="primary" onClick={() => window.location.reload()}>
          {t('app.reload')}
        </Button>
      }
    />
  );
}
