/** The columns that the lists have in common. */
import type { TableColumnType } from 'antd';
import type { TFunction } from 'i18next';
import { Link, type To } from 'react-router';
import { CopyText } from './CopyText';
import { TimeText } from './TimeText';

/** The name; a link where there is a page about the one thing. */
export function nameColumn<T extends { name: string }>(
  t: TFunction,
  width: number,
  to?: (row: T) => To,
): TableColumnType<T> {
  return {
    key: 'name',
    title: t('common.name'),
    width,
    sorter: (a, b) => a.name.localeCompare(b.name),
    render: (_, row) =>
      to === undefined ? (
        <strong className="ellipsis" title={row.name}>
          {row.name}
        </strong>
      ) : (
        <Link className="name-link ellipsis" title={row.name} to={to(row)}>
          {row.name}
        </Link>
      ),
  };
}

export function idColumn<T extends { id: string }>(t: TFunction, width = 220): TableColumnType<T> {
  return {
    key: 'id',
    title: t('common.id'),
    width,
    render: (_, row) => <CopyText value={row.id} what={t('common.id')} />,
  };
}

/** The VPC, by its name where that is known. */
export function vpcColumn<T extends { vpc_id: string }>(
  t: TFunction,
  names: ReadonlyMap<string, string>,
  width = 170,
): TableColumnType<T> {
  return {
    key: 'vpc',
    title: t('common.vpc'),
    width,
    render: (_, row) => (
      <span className="ellipsis" title={row.vpc_id}>
        {names.get(row.vpc_id) ?? row.vpc_id}
      </span>
    ),
  };
}

export function createdColumn<T extends { created_at: string }>(t: TFunction): TableColumnType<T> {
  return {
    key: 'created',
    title: t('common.created'),
    width: 140,
    render: (_, row) => <TimeText at={row.created_at} />,
  };
}
