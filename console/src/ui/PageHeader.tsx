import { type ReactNode, useEffect } from 'react';
import { useTranslation } from 'react-i18next';

/** The title of a page, its commands at the right, and the document's title. */
export function PageHeader({ title, extra }: { title: string; extra?: ReactNode }) {
  const { t } = useTranslation();
  const product = t('app.name');
  useEffect(() => {
    document.title = `${title} · ${product}`;
  }, [title, product]);
  return (
    <div className="page-header">
      <h1 className="page-title">{title}</h1>
      {extra !== undefined && <div className="page-extra">{extra}</div>}
    </div>
  );
}
