import { useEffect, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { Navigate, Outlet, useLocation } from 'react-router';
import { refreshSession } from '../../api/baseApi';
import { paths } from '../../paths';
import { useAppDispatch, useAppSelector } from '../../store';
import { Waiting } from '../../ui/Waiting';

const RETRY = 2_000;

/** Exchanges the refresh token that a reload left behind. A server that is just restarting is waited for. */
function Restoring() {
  const { t } = useTranslation();
  const [unreachable, setUnreachable] = useState(false);
  const dispatch = useAppDispatch();
  useEffect(() => {
    let gone = false;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const attempt = async () => {
      const outcome = await dispatch((inner, getState) => refreshSession({ dispatch: inner, getState }));
      if (!gone && outcome === 'unreachable') {
        setUnreachable(true);
        timer = setTimeout(() => void attempt(), RETRY);
      }
    };
    void attempt();
    return () => {
      gone = true;
      clearTimeout(timer);
    };
  }, [dispatch]);
  return <Waiting text={unreachable ? t('app.reconnecting') : t('app.loading')} />;
}

/** Where the login page leads back to. */
export interface LoginState {
  from?: { pathname: string; search: string };
}

/** Lets only those who are logged in past the login page, and remembers where they wanted to go. */
export function SessionGate() {
  const status = useAppSelector((state) => state.session.status);
  const endedBy = useAppSelector((state) => state.session.endedBy);
  const location = useLocation();
  const atLogin = location.pathname === paths.login();
  if (status === 'restoring') {
    return <Restoring />;
  }
  if (status === 'anonymous' && !atLogin) {
    const state: LoginState =
      endedBy === 'logout' ? {} : { from: { pathname: location.pathname, search: location.search } };
    return <Navigate to={paths.login()} state={state} replace />;
  }
  if (status === 'active' && atLogin) {
    const from = (location.state as LoginState | null)?.from;
    return <Navigate to={from ?? paths.instances()} replace />;
  }
  return <Outlet />;
}
