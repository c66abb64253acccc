import { BulbOutlined, GlobalOutlined, LogoutOutlined, UserOutlined } from '@ant-design/icons';
import { Button, Dropdown, type MenuProps } from 'antd';
import { useTranslation } from 'react-i18next';
import { api, useGetMeQuery, useLogoutMutation } from '../../api';
import { refreshTokenStore, sessionEnded } from '../../api/session';
import { chooseLanguage, currentLanguage, LANGUAGES, type Language } from '../../i18n';
import { chooseTheme, type ThemeChoice } from '../../preferences';
import { useAppDispatch, useAppSelector } from '../../store';

/** Language names stand in their own language: who cannot read the current one still finds hers. */
export function LanguageMenu() {
  const { t } = useTranslation();
  const current = currentLanguage();
  const items = (Object.keys(LANGUAGES) as Language[]).map((language) => ({
    key: language,
    label: <span lang={language}>{LANGUAGES[language]}</span>,
  }));
  return (
    <Dropdown
      trigger={['click']}
      menu={{
        items,
        selectable: true,
        selectedKeys: [current],
        onClick: ({ key }) => void chooseLanguage(key as Language),
      }}
    >
      <Button
        type="text"
        icon={<GlobalOutlined aria-hidden="true" />}
        aria-label={`${t('header.language')}: ${LANGUAGES[current]}`}
        aria-haspopup="menu"
      >
        <span className="wide-only">{LANGUAGES[current]}</span>
      </Button>
    </Dropdown>
  );
}

export function ThemeMenu() {
  const { t } = useTranslation();
  const dispatch = useAppDispatch();
  const theme = useAppSelector((state) => state.preferences.theme);
  const names: Record<ThemeChoice, string> = {
    system: t('header.themeSystem'),
    light: t('header.themeLight'),
    dark: t('header.themeDark'),
  };
  return (
    <Dropdown
      trigger={['click']}
      menu={{
        items: (Object.keys(names) as ThemeChoice[]).map((key) => ({ key, label: names[key] })),
        selectable: true,
        selectedKeys: [theme],
        onClick: ({ key }) => dispatch(chooseTheme(key as ThemeChoice)),
      }}
    >
      <Button
        type="text"
        icon={<BulbOutlined aria-hidden="true" />}
        aria-label={`${t('header.theme')}: ${names[theme]}`}
        aria-haspopup="menu"
      />
    </Dropdown>
  );
}

export function UserMenu() {
  const { t } = useTranslation();
  const dispatch = useAppDispatch();
  const { data: me } = useGetMeQuery();
  const [logout] = useLogoutMutation();

  const leave = async () => {
    const token = refreshTokenStore.read();
    if (token !== null) {
      // Whatever the server says, this tab forgets.
      await Promise.race([logout({ refresh_token: token }), new Promise((done) => setTimeout(done, 3_000))]);
    }
    refreshTokenStore.clear();
    dispatch(sessionEnded('logout'));
    dispatch(api.util.resetApiState());
  };

  const items: MenuProps['items'] = [
    {
      key: 'who',
      type: 'group',
      label: me && (
        <div className="who">
          <strong>{me.user.username}</strong>
          <span>
            {t('header.role')}: {me.user.role}
          </span>
          <span>
            {t('header.account')}: {me.account.name}
          </span>
        </div>
      ),
    },
    { type: 'divider' },
    { key: 'logout', icon: <LogoutOutlined aria-hidden="true" />, label: t('header.logout') },
  ];
  const name = me?.user.username ?? '…';
  return (
    <Dropdown
      trigger={['click']}
      placement="bottomRight"
      menu={{ items, onClick: ({ key }) => key === 'logout' && void leave() }}
    >
      <Button
        type="text"
        icon={<UserOutlined aria-hidden="true" />}
        aria-label={t('header.user', { name })}
        aria-haspopup="menu"
      >
        <span className="wide-only user-name">{name}</span>
      </Button>
    </Dropdown>
  );
}
