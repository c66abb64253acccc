import { Skeleton, Table, type TableColumnsType } from 'antd';
import type { ReactNode } from 'react';
import { useTranslation } from 'react-i18next';

const SKELETON_ROWS = 6;

/**
 * The table of every list page. While the first answer is on its way it shows grey rows of the height the real ones
 * will have, so nothing moves when they come.
 */
export function ListTable<T extends { id: string }>({
  label,
  columns,
  rows,
  loading,
  empty,
  expandable,
  width,
}: {
  label: string;
  columns: TableColumnsType<T>;
  rows: T[];
  /** Whether nothing is known yet. */
  loading: boolean;
  empty: ReactNode;
  expandable?: { render: (row: T) => ReactNode };
  /** Below this width the table scrolls sideways. */
  width: number;
}) {
  const { t, i18n } = useTranslation();
  if (loading) {
    const placeholders = Array.from({ length: SKELETON_ROWS }, (_, index) => ({ id: `${index}` }) as T);
    return (
      <div aria-busy="true">
        <span className="visually-hidden" role="status">
          {t('app.loading')}
        </span>
        <Table<T>
          aria-hidden="true"
          size="middle"
          rowKey="id"
          tableLayout="fixed"
          scroll={{ x: width }}
          pagination={false}
          dataSource={placeholders}
          columns={columns.map((column) => ({
            title: column.title as ReactNode,
            width: column.width,
            key: column.key,
            render: () => (column.key === 'actions' ? null : <Skeleton.Input active size="small" block />),
          }))}
        />
      </div>
    );
  }
  return (
    <Table<T>
      // Cells may be kept as long as their row does not change; another language changes them all.
      key={i18n.language}
      aria-label={label}
      size="middle"
      rowKey="id"
      tableLayout="fixed"
      scroll={{ x: width }}
      dataSource={rows}
      columns={columns}
      showSorterTooltip={false}
      locale={{ emptyText: empty }}
      pagination={{
        defaultPageSize: 50,
        pageSizeOptions: [20, 50, 100],
        showSizeChanger: rows.length > 20,
        hideOnSinglePage: rows.length <= 20,
        showTotal: (count) => t('common.total', { count }),
      }}
      // Fixed, so that what is unfolded stays as wide as the window when the columns are wider.
      expandable={expandable && { expandedRowRender: expandable.render, columnWidth: 44, fixed: 'left' }}
    />
  );
}
