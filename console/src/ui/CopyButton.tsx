import { useEffect, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { copyText } from '../util/clipboard';
import { announce } from './announce';

/** A small button that copies a text. Lists have hundreds of them, so it is made of nothing but a button. */
export function CopyButton({
  text,
  what,
  className = '',
}: {
  text: string;
  what: string;
  className?: string;
}) {
  const { t } = useTranslation();
  const [copied, setCopied] = useState(false);
  useEffect(() => {
    if (!copied) {
      return;
    }
    const timer = setTimeout(() => setCopied(false), 2_000);
    return () => clearTimeout(timer);
  }, [copied]);
  const label = copied ? t('common.copied') : t('common.copy', { what });
  return (
    <button
      type="button"
      className={`copy ${className}`}
      aria-label={label}
      title={label}
      onClick={async () => {
        if (await copyText(text)) {
          setCopied(true);
          announce(t('common.copied'));
        }
      }}
    >
      <svg viewBox="0 0 16 16" width="14" height="14" aria-hidden="true" focusable="false">
        {copied ? (
          <path d="M3 8.5 6.5 12 13 4.5" />
        ) : (
          <>
            <rect x="5.5" y="5.5" width="8" height="8" rx="1.5" />
            <path d="M10.5 5.5V4A1.5 1.5 0 0 0 9 2.5H4A1.5 1.5 0 0 0 2.5 4v5A1.5 1.5 0 0 0 4 10.5h1.5" />
          </>
        )}
      </svg>
    </button>
  );
}
