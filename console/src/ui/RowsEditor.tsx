import { DeleteOutlined, EditOutlined, PlusOutlined } from '@ant-design/icons';
import { App, Button, Form, type FormInstance, Table, type TableColumnsType } from 'antd';
import { type ReactNode, useEffect, useId, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { type Problem, ProblemAlert } from './ProblemAlert';
import { requiredMark } from './requiredMark';
import { showAtField } from './showAtField';

/** A change under way, and why the last one was refused. */
export interface ChangeState {
  busy: boolean;
  refusal: Problem | null;
}

/** A new row: its fields (`Form.Item`s), what they hold at first, and where it goes. `send` says whether it was taken. */
export interface NewRow<V> {
  /** What the form is for, for those who cannot see it under its table. */
  label: string;
  /** Told whether a row is being changed: what says which row it is cannot be then. */
  fields: (changing: boolean) => ReactNode;
  initial?: Partial<V>;
  send: (values: V) => Promise<boolean>;
  /** The form's field for a field of the API, where they are called differently. */
  fieldOf?: (field: string) => string;
}

/** How a row is changed: in the form below, by what is sent in its place. */
export interface ChangedRow<T, V> {
  /** What the form holds for a row at first. */
  values: (row: T) => Partial<V>;
  /** The field that one begins with. */
  first: string & keyof V;
  send: (values: V) => Promise<boolean>;
}

/** What is asked before a row is removed. */
export interface Question {
  title: string;
  body: string;
  ok: string;
}

/**
 * A small table of what belongs to one thing, each row with a button that removes it after a question, and below it a
 * form of one line that adds one; the same form changes one.
 */
export function RowsEditor<T extends object, V extends object>({
  label,
  rows,
  rowKey,
  columns,
  empty,
  nameOf,
  isFixed,
  rowClassName,
  actions,
  onRemove,
  question,
  edit,
  add,
  state,
}: {
  label: string;
  rows: T[];
  rowKey: (row: T) => string;
  columns: TableColumnsType<T>;
  /** What is said when there are none. */
  empty?: string;
  /** What a row is called when somebody is to be asked about it. */
  nameOf: (row: T) => string;
  /** Rows that cannot be changed or removed; all of them without `onRemove`. */
  isFixed?: (row: T) => boolean;
  rowClassName?: (row: T) => string;
  /** Buttons of its own, before the others. */
  actions?: (row: T) => ReactNode;
  onRemove?: (row: T) => Promise<boolean>;
  /** What is asked before that, where removing is more than that. */
  question?: (row: T) => Question;
  edit?: ChangedRow<T, V>;
  add: NewRow<V>;
  state: ChangeState;
}) {
  const { t } = useTranslation();
  const { modal } = App.useApp();
  const [form] = Form.useForm<V>();
  // Several such forms are on one page: the name keeps the ids of their fields apart.
  const id = useId();
  const [changed, setChanged] = useState<string | null>(null);
  const { refusal } = state;
  const [sent, setSent] = useState(false);

  // A refusal of what the form sent belongs to one of its fields, of what a row's button did to none.
  const fieldOf = add.fieldOf ?? same;
  // biome-ignore lint/correctness/useExhaustiveDependencies: said once for each refusal.
  useEffect(() => {
    if (refusal !== null && sent) {
      showAtField(form, refusal, fieldOf);
    }
  }, [refusal]);

  const remove = (row: T) => {
    const asked = question?.(row) ?? {
      title: t('rows.removeTitle', { name: nameOf(row) }),
      body: t('rows.removeBody'),
      ok: t('rows.remove'),
    };
    void modal.confirm({
      title: asked.title,
      content: asked.body,
      okText: asked.ok,
      okButtonProps: { danger: true },
      cancelText: t('common.cancel'),
      focusable: { autoFocusButton: 'cancel' },
      onOk: () => {
        setSent(false);
        return onRemove?.(row);
      },
    });
  };
  const end = () => {
    form.resetFields();
    setChanged(null);
  };
  const begin = (row: T) => {
    form.resetFields();
    (form as unknown as FormInstance<object>).setFieldsValue(edit?.values(row) ?? {});
    setChanged(rowKey(row));
    if (edit !== undefined) {
      (form as unknown as FormInstance<object>).focusField(edit.first);
    }
  };
  // Somebody else may have removed it meanwhile.
  const row = rows.find((known) => rowKey(known) === changed);

  return (
    <div className="rows-editor">
      <Table<T>
        aria-label={label}
        size="small"
        rowKey={rowKey}
        rowClassName={rowClassName}
        pagination={false}
        scroll={{ x: 'max-content' }}
        columns={[
          ...columns,
          {
            key: 'actions',
            title: <span className="visually-hidden">{t('rows.remove')}</span>,
            width: 48,
            align: 'end',
            // Beside what is scrolled.
            fixed: 'end',
            render: (_, row) => (
              <>
                {actions?.(row)}
                {edit !== undefined && !isFixed?.(row) && (
                  <Button
                    type="text"
                    size="small"
                    icon={<EditOutlined aria-hidden="true" />}
                    aria-label={t('rows.changeNamed', { name: nameOf(row) })}
                    title={t('rows.change')}
                    disabled={state.busy}
                    onClick={() => begin(row)}
                  />
                )}
                {onRemove !== undefined && !isFixed?.(row) && (
                  <Button
                    type="text"
                    size="small"
                    icon={<DeleteOutlined aria-hidden="true" />}
                    aria-label={t('rows.removeNamed', { name: nameOf(row) })}
                    title={t('rows.remove')}
                    disabled={state.busy}
                    onClick={() => remove(row)}
                  />
                )}
              </>
            ),
          },
        ]}
        dataSource={rows}
        locale={{ emptyText: <span className="muted">{empty}</span> }}
      />
      <Form<V>
        form={form}
        name={id}
        aria-label={row === undefined ? add.label : t('rows.changeNamed', { name: nameOf(row) })}
        layout="vertical"
        className="row-form"
        requiredMark={requiredMark}
        initialValues={add.initial}
        onFinish={async (values) => {
          setSent(true);
          const send = row === undefined ? add.send : edit?.send;
          if (await send?.(values)) {
            end();
          }
        }}
      >
        {add.fields(row !== undefined)}
        <Button
          htmlType="submit"
          className="row-add"
          icon={row === undefined && <PlusOutlined aria-hidden="true" />}
          loading={state.busy}
        >
          {row === undefined ? t('rows.add') : t('rows.save')}
        </Button>
        {row !== undefined && (
          <Button type="text" className="row-add" onClick={end}>
            {t('common.cancel')}
          </Button>
        )}
      </Form>
      {refusal !== null && <ProblemAlert problem={refusal} />}
    </div>
  );
}

function same(field: string): string {
  return field;
}
