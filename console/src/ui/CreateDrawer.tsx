import { App, Button, Drawer, Form, type FormInstance } from 'antd';
import { type ReactNode, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useLocation, useNavigate } from 'react-router';
import type { RestCall } from '../util/curl';
import { RequestKeys } from '../util/requestKeys';
import { ApiSnippet } from './ApiSnippet';
import { type Problem, ProblemAlert } from './ProblemAlert';
import { requiredMark } from './requiredMark';
import { showAtField } from './showAtField';
import { useRouteDrawer } from './useRouteDrawer';

/** Where what was made has its page, and what it is called; or why it was not made. */
export type Outcome = { to: string; name: string } | { refusal: Problem };

/**
 * The form for another thing, beside the list of them; a route of its own below the list's. A refusal stands at the
 * field it is about, and whole below the form; success leads to the page of what was made.
 */
export function CreateDrawer<V extends object, B extends object>({
  form,
  title,
  list,
  path,
  initial,
  toBody,
  send,
  fieldOf = (field) => field,
  children,
  after,
}: {
  form: FormInstance<V>;
  title: string;
  /** The path of the list, which closing leads to. */
  list: string;
  /** Where the API takes the request. */
  path: string;
  initial?: Partial<V>;
  /** The request, also of a form that is not complete: the snippet shows it. */
  toBody: (values: Partial<V>) => B;
  send: (body: B, key: string) => Promise<Outcome>;
  /** The form's field for a field of the API, where they are called differently. */
  fieldOf?: (field: string) => string;
  /** `Form.Item`s. */
  children: ReactNode;
  /** What else there is to do here. */
  after?: ReactNode;
}) {
  const { t } = useTranslation();
  const navigate = useNavigate();
  const { search } = useLocation();
  const { message } = App.useApp();
  const drawer = useRouteDrawer(() => void navigate({ pathname: list, search }));
  const values = Form.useWatch([], form) as Partial<V> | undefined;
  const [keys] = useState(() => new RequestKeys());
  const [busy, setBusy] = useState(false);
  const [refusal, setRefusal] = useState<Problem | null>(null);

  const submit = async (submitted: V) => {
    const body = toBody(submitted);
    setBusy(true);
    setRefusal(null);
    try {
      const outcome = await send(body, keys.keyFor(body));
      if ('to' in outcome) {
        void message.success(t('common.createdNamed', { name: outcome.name }));
        void navigate({ pathname: outcome.to, search }, { replace: true });
        return;
      }
      setRefusal(outcome.refusal);
      showAtField(form, outcome.refusal, fieldOf);
    } finally {
      setBusy(false);
    }
  };

  const call: RestCall = { method: 'POST', path, body: toBody(values ?? {}) };
  return (
    <Drawer {...drawer} size={560} title={title} extra={<ApiSnippet calls={[call]} />}>
      <Form<V>
        form={form}
        name="create"
        aria-label={title}
        layout="vertical"
        requiredMark={requiredMark}
        scrollToFirstError={{ focus: true, block: 'center' }}
        initialValues={initial}
        onFinish={submit}
        onValuesChange={() => setRefusal(null)}
      >
        {children}
        {refusal !== null && (
          <div className="above-panel">
            <ProblemAlert problem={refusal} />
          </div>
        )}
        <div className="form-actions">
          <Button type="primary" htmlType="submit" loading={busy}>
            {t('common.create')}
          </Button>
          <Button type="text" onClick={drawer.onClose}>
            {t('common.cancel')}
          </Button>
        </div>
      </Form>
      {after}
    </Drawer>
  );
}
