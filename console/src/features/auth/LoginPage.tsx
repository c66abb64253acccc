import { LockOutlined, UserOutlined } from '@ant-design/icons';
import { Alert, Button, Form, Input, type InputRef } from 'antd';
import { useEffect, useRef } from 'react';
import { useTranslation } from 'react-i18next';
import { api, useLoginMutation } from '../../api';
import type { ApiProblem } from '../../api/errors';
import { acceptTokens } from '../../api/session';
import type { LoginRequest } from '../../api/types';
import { useAppDispatch, useAppSelector } from '../../store';
import { Logo } from '../../ui/Logo';
import { ProblemAlert } from '../../ui/ProblemAlert';
import { LanguageMenu, ThemeMenu } from '../shell/Menus';

function isRefusal(problem: ApiProblem): boolean {
  return problem.status === 401 || (problem.status === 400 && problem.field === null);
}

export function LoginPage() {
  const { t } = useTranslation();
  const dispatch = useAppDispatch();
  const endedBy = useAppSelector((state) => state.session.endedBy);
  const [form] = Form.useForm<LoginRequest>();
  const [login, { isLoading, error }] = useLoginMutation();
  const first = useRef<InputRef>(null);
  const title = `${t('login.title')} · ${t('app.name')}`;

  useEffect(() => {
    document.title = title;
  }, [title]);
  useEffect(() => first.current?.focus(), []);

  const submit = async (values: LoginRequest) => {
    const answer = await login(values);
    if ('data' in answer && answer.data) {
      // Nothing that another user has seen in this tab may be shown to this one.
      dispatch(api.util.resetApiState());
      dispatch(acceptTokens(answer.data));
    } else {
      form.setFieldValue('password', '');
      form.getFieldInstance('password')?.focus();
    }
  };

  const problem = error as ApiProblem | undefined;
  return (
    <div className="login-page">
      <div className="login-tools">
        <LanguageMenu />
        <ThemeMenu />
      </div>
      <main className="login-card">
        <div className="login-brand">
          <Logo size={40} />
          <span>{t('app.name')}</span>
        </div>
        <h1 className="login-title">{t('login.title')}</h1>
        <div className="login-message">
          {problem !== undefined &&
            (isRefusal(problem) ? (
              <Alert role="alert" type="error" showIcon title={t('login.refused')} />
            ) : (
              <ProblemAlert problem={problem} />
            ))}
          {problem === undefined && endedBy !== null && (
            <Alert
              role="status"
              type="info"
              showIcon
              title={endedBy === 'expiry' ? t('login.expired') : t('login.loggedOut')}
            />
          )}
        </div>
        <Form
          form={form}
          layout="vertical"
          requiredMark={false}
          size="large"
          onFinish={submit}
          disabled={isLoading}
        >
          <Form.Item
            name="username"
            label={t('login.username')}
            rules={[{ required: true, message: t('login.usernameRequired') }]}
          >
            <Input
              ref={first}
              prefix={<UserOutlined aria-hidden="true" />}
              autoComplete="username"
              autoCapitalize="none"
              spellCheck={false}
            />
          </Form.Item>
          <Form.Item
            name="password"
            label={t('login.password')}
            rules={[{ required: true, message: t('login.passwordRequired') }]}
          >
            <Input.Password prefix={<LockOutlined aria-hidden="true" />} autoComplete="current-password" />
          </Form.Item>
          <Button type="primary" htmlType="submit" block loading={isLoading} disabled={false}>
            {t('login.submit')}
          </Button>
        </Form>
      </main>
    </div>
  );
}
