import { DeleteOutlined, PlusOutlined } from '@ant-design/icons';
import { App, Button, Form, Table, type TableColumnsType } from 'antd';
import { type ReactNode, useId } from 'react';
import { useTranslation } from 'react-i18next';
import { type Problem, ProblemAlert } from './ProblemAlert';
import { requiredMark } from './requiredMark';

/** A change under way, and why the last one was refused. */
export interface ChangeState {
  busy: boolean;
  refusal: Problem | null;
}

/** A new row: its fields (`Form.Item`s), what they hold at first, and where it goes. `send` says whether it was taken. */
export interface NewRow<V> {
  /** What the form is for, for those who cannot see it under its table. */
  label: string;
  fields: ReactNode;
  initial?: Partial<V>;
  send: (values: V) => Promise<boolean>;
}

/**
 * A small table of what belongs to one thing, each row with a button that removes it after a question, and below it a
 * form of one line that adds one.
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
  onRemove,
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
  /** Rows that cannot be removed; all of them without `onRemove`. */
  isFixed?: (row: T) => boolean;
  rowClassName?: (row: T) => string;
  onRemove?: (row: T) => Promise<boolean>;
  add: NewRow<V>;
  state: ChangeState;
}) {
  const { t } = useTranslation();
  const { modal } = App.useApp();
  const [form] = Form.useForm<V>();
  // Several such forms are on one page: the name keeps the ids of their fields apart.
  const id = useId();

  const remove = (row: T) => {
    void modal.confirm({
      title: t('rows.removeTitle', { name: nameOf(row) }),
      content: t('rows.removeBody'),
      okText: t('rows.remove'),
      okButtonProps: { danger: true },
      cancelText: t('common.cancel'),
      focusable: { autoFocusButton: 'cancel' },
      onOk: () => onRemove?.(row),
    });
  };

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
            render: (_, row) =>
              onRemove === undefined || isFixed?.(row) ? null : (
                <Button
                  type="text"
                  size="small"
                  icon={<DeleteOutlined aria-hidden="true" />}
                  aria-label={t('rows.removeNamed', { name: nameOf(row) })}
                  title={t('rows.remove')}
                  disabled={state.busy}
                  onClick={() => remove(row)}
                />
              ),
          },
        ]}
        dataSource={rows}
        locale={{ emptyText: <span className="muted">{empty}</span> }}
      />
      <Form<V>
        form={form}
        name={id}
        aria-label={add.label}
        layout="vertical"
        className="row-form"
        requiredMark={requiredMark}
        initialValues={add.initial}
        onFinish={async (values) => {
          if (await add.send(values)) {
            form.resetFields();
          }
        }}
      >
        {add.fields}
        <Button
          htmlType="submit"
          className="row-add"
          icon={<PlusOutlined aria-hidden="true" />}
          loading={state.busy}
        >
          {t('rows.add')}
        </Button>
      </Form>
      {state.refusal !== null && <ProblemAlert problem={state.refusal} />}
    </div>
  );
}
