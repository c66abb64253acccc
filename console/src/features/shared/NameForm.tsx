import { Button, Form, Input } from 'antd';
import { useTranslation } from 'react-i18next';
import { ProblemAlert } from '../../ui/ProblemAlert';
import { requiredMark } from '../../ui/requiredMark';
import { useChange } from './useChange';

interface Words {
  name?: string;
  description?: string;
}

/** Changes what a thing is called, and what is said of it where that can be said. */
export function NameForm({ words, save }: { words: Words; save: (words: Words) => Promise<unknown> }) {
  const { t } = useTranslation();
  const { change, state } = useChange();
  return (
    <>
      <Form<Words>
        // Somebody else may change them too: what is typed here begins anew then.
        key={`${words.name}\n${words.description}`}
        name="words"
        layout="vertical"
        className="row-form"
        aria-label={t('forms.words')}
        requiredMark={requiredMark}
        initialValues={words}
        onFinish={(said) =>
          change(() =>
            save(Object.fromEntries(Object.entries(said).map(([key, text]) => [key, text.trim()]))),
          )
        }
      >
        {words.name !== undefined && (
          <Form.Item
            name="name"
            className="row-wide"
            label={t('common.name')}
            rules={[{ required: true, whitespace: true, message: t('forms.nameRequired') }]}
          >
            <Input autoComplete="off" spellCheck={false} maxLength={255} />
          </Form.Item>
        )}
        {words.description !== undefined && (
          <Form.Item name="description" className="row-wide" label={t('common.description')}>
            <Input autoComplete="off" maxLength={255} />
          </Form.Item>
        )}
        <Button htmlType="submit" className="row-add" loading={state.busy}>
          {t('rows.save')}
        </Button>
      </Form>
      {state.refusal !== null && <ProblemAlert problem={state.refusal} />}
    </>
  );
}
