import { App as AntdApp, ConfigProvider } from 'antd';
import { useEffect, useMemo, useSyncExternalStore } from 'react';
import { useTranslation } from 'react-i18next';
import { Provider } from 'react-redux';
import { RouterProvider, type RouterProviderProps } from 'react-router';
import { antdLocale, currentLanguage } from './i18n';
import { type AppStore, useAppSelector } from './store';
import { darkTheme, lightTheme } from './theme';
import { LiveRegion } from './ui/LiveRegion';

const darkQuery = window.matchMedia('(prefers-color-scheme: dark)');
const calmQuery = window.matchMedia('(prefers-reduced-motion: reduce)');

function useMedia(query: MediaQueryList): boolean {
  return useSyncExternalStore(
    (changed) => {
      query.addEventListener('change', changed);
      return () => query.removeEventListener('change', changed);
    },
    () => query.matches,
  );
}

function useDark(): boolean {
  const choice = useAppSelector((state) => state.preferences.theme);
  const systemDark = useMedia(darkQuery);
  return choice === 'system' ? systemDark : choice === 'dark';
}

/** The nonce of the page's Content-Security-Policy, where the server gives one (see README, "Security"). */
function cspNonce(): string | undefined {
  return document.querySelector<HTMLMetaElement>('meta[property="csp-nonce"]')?.nonce || undefined;
}

function Themed({ router }: { router: RouterProviderProps['router'] }) {
  useTranslation(); // Renders again when the language changes, for antd's own texts.
  const dark = useDark();
  useEffect(() => {
    document.documentElement.dataset.theme = dark ? 'dark' : 'light';
  }, [dark]);
  const calm = useMedia(calmQuery);
  const theme = useMemo(() => {
    const base = dark ? darkTheme : lightTheme;
    return calm ? { ...base, token: { ...base.token, motion: false } } : base;
  }, [dark, calm]);
  const nonce = cspNonce();
  return (
    <ConfigProvider
      theme={theme}
      locale={antdLocale(currentLanguage())}
      csp={nonce === undefined ? undefined : { nonce }}
    >
      <AntdApp className="gon-app" notification={{ placement: 'bottomRight', duration: 8 }}>
        <LiveRegion />
        <RouterProvider router={router} />
      </AntdApp>
    </ConfigProvider>
  );
}

/** The whole console: providers around the router. */
export function App({ store, router }: { store: AppStore; router: RouterProviderProps['router'] }) {
  return (
    <Provider store={store}>
      <Themed router={router} />
    </Provider>
  );
}
