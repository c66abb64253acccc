import {
  ApartmentOutlined,
  BranchesOutlined,
  DeploymentUnitOutlined,
  DesktopOutlined,
  FilterOutlined,
  MenuFoldOutlined,
  MenuOutlined,
  MenuUnfoldOutlined,
  SafetyCertificateOutlined,
  UnorderedListOutlined,
} from '@ant-design/icons';
import { Button, Drawer, Tooltip } from 'antd';
import { type ReactNode, useEffect, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { Link, NavLink, Outlet } from 'react-router';
import { startLive } from '../../api/events';
import { paths } from '../../paths';
import { useAppDispatch } from '../../store';
import { Logo } from '../../ui/Logo';
import { LiveIndicator } from './LiveIndicator';
import { LanguageMenu, ThemeMenu, UserMenu } from './Menus';

interface NavEntry {
  to: string;
  label: string;
  icon: ReactNode;
}

function useNavigationGroups(): { title: string; entries: NavEntry[] }[] {
  const { t } = useTranslation();
  return [
    {
      title: t('nav.compute'),
      entries: [
        { to: paths.instances(), label: t('nav.instances'), icon: <DesktopOutlined aria-hidden="true" /> },
      ],
    },
    {
      title: t('nav.network'),
      entries: [
        { to: paths.vpcs(), label: t('nav.vpcs'), icon: <ApartmentOutlined aria-hidden="true" /> },
        {
          to: paths.routeTables(),
          label: t('nav.routeTables'),
          icon: <BranchesOutlined aria-hidden="true" />,
        },
        {
          to: paths.networkInterfaces(),
          label: t('nav.networkInterfaces'),
          icon: <DeploymentUnitOutlined aria-hidden="true" />,
        },
        {
          to: paths.securityGroups(),
          label: t('nav.securityGroups'),
          icon: <SafetyCertificateOutlined aria-hidden="true" />,
        },
        {
          to: paths.networkAcls(),
          label: t('nav.networkAcls'),
          icon: <FilterOutlined aria-hidden="true" />,
        },
        {
          to: paths.prefixLists(),
          label: t('nav.prefixLists'),
          icon: <UnorderedListOutlined aria-hidden="true" />,
        },
      ],
    },
  ];
}

function Navigation({ narrow, onNavigate }: { narrow: boolean; onNavigate?: () => void }) {
  const { t } = useTranslation();
  const groups = useNavigationGroups();
  return (
    <nav aria-label={t('nav.label')} className="nav">
      {groups.map((group) => (
        <div key={group.title}>
          <div className="nav-group" aria-hidden={narrow}>
            {narrow ? '' : group.title}
          </div>
          <ul>
            {group.entries.map((entry) => (
              <li key={entry.to}>
                <Tooltip title={narrow ? entry.label : undefined} placement="right">
                  <NavLink to={entry.to} aria-label={narrow ? entry.label : undefined} onClick={onNavigate}>
                    {entry.icon}
                    {!narrow && <span>{entry.label}</span>}
                  </NavLink>
                </Tooltip>
              </li>
            ))}
          </ul>
        </div>
      ))}
    </nav>
  );
}

/** The frame around every page: navigation, header, and the socket, which lives as long as the frame does. */
export function AppLayout() {
  const { t } = useTranslation();
  const dispatch = useAppDispatch();
  const [narrow, setNarrow] = useState(false);
  const [menuOpen, setMenuOpen] = useState(false);

  useEffect(() => dispatch(startLive()), [dispatch]);

  return (
    <div className="frame" data-narrow={narrow}>
      <a className="skip-link" href="#content">
        {t('app.skip')}
      </a>
      <aside className="sider">
        <Link to={paths.home()} className="brand" aria-label={t('app.name')}>
          <Logo />
          {!narrow && <span>{t('app.name')}</span>}
        </Link>
        <Navigation narrow={narrow} />
        <Button
          type="text"
          className="collapse"
          icon={narrow ? <MenuUnfoldOutlined aria-hidden="true" /> : <MenuFoldOutlined aria-hidden="true" />}
          aria-label={narrow ? t('nav.expand') : t('nav.collapse')}
          aria-expanded={!narrow}
          onClick={() => setNarrow(!narrow)}
        />
      </aside>
      <header className="header">
        <Button
          type="text"
          className="menu-button"
          icon={<MenuOutlined aria-hidden="true" />}
          aria-label={t('nav.expand')}
          onClick={() => setMenuOpen(true)}
        />
        <LiveIndicator />
        <div className="header-tools">
          <LanguageMenu />
          <ThemeMenu />
          <UserMenu />
        </div>
      </header>
      <main id="content" className="content" tabIndex={-1}>
        <Outlet />
      </main>
      <Drawer
        placement="left"
        size={260}
        open={menuOpen}
        onClose={() => setMenuOpen(false)}
        title={t('app.name')}
        styles={{ body: { padding: 8 } }}
      >
        <Navigation narrow={false} onNavigate={() => setMenuOpen(false)} />
      </Drawer>
    </div>
  );
}
