import type { TableColumnsType } from 'antd';
import type { TFunction } from 'i18next';
import { Link } from 'react-router';
import { type Image, INSTANCE_STATES, type Instance } from '../../api/types';
import { paths } from '../../paths';
import { CopyText } from '../../ui/CopyText';
import { StateTag } from '../../ui/StateTag';
import { TimeText } from '../../ui/TimeText';
import { RowActions } from './RowActions';
import type { InstanceAction } from './useInstanceActions';

export const TABLE_WIDTH = 1162;

/** When it last started; while it never has, when it was asked for. */
function launchTime(row: Instance): string {
  return row.launched_at ?? row.created_at;
}

/** For cells that show nothing but the row: most rows are the same after an event. */
function changed(row: Instance, before: Instance): boolean {
  return row !== before;
}

export function instanceColumns(
  t: TFunction,
  search: string,
  images: Map<string, Image>,
  onAction: (action: InstanceAction, instance: Instance) => void,
): TableColumnsType<Instance> {
  return [
    {
      key: 'name',
      title: t('common.name'),
      width: 150,
      fixed: 'start',
      sorter: (a, b) => a.name.localeCompare(b.name),
      render: (_, row) => (
        <Link
          className="name-link ellipsis"
          title={row.name}
          to={{ pathname: paths.instance(row.id), search }}
        >
          {row.name}
        </Link>
      ),
    },
    {
      key: 'state',
      title: t('common.state'),
      width: 128,
      sorter: (a, b) => INSTANCE_STATES.indexOf(a.state) - INSTANCE_STATES.indexOf(b.state),
      render: (_, row) => <StateTag state={row.state} />,
    },
    {
      key: 'id',
      shouldCellUpdate: changed,
      title: t('common.id'),
      width: 182,
      render: (_, row) => <CopyText value={row.id} what={t('common.id')} />,
    },
    {
      key: 'type',
      title: t('instances.type'),
      width: 86,
      sorter: (a, b) => a.instance_type.localeCompare(b.instance_type),
      render: (_, row) => row.instance_type,
    },
    {
      key: 'image',
      title: t('instances.image'),
      width: 106,
      render: (_, row) => (
        <span className="ellipsis" title={row.image_id}>
          {images.get(row.image_id)?.name ?? row.image_id}
        </span>
      ),
    },
    {
      key: 'private_ip',
      shouldCellUpdate: changed,
      title: t('instances.privateIp'),
      width: 128,
      render: (_, row) => <CopyText value={row.private_ip} what={t('instances.privateIp')} />,
    },
    {
      key: 'public_ip',
      shouldCellUpdate: changed,
      title: t('instances.publicIp'),
      width: 136,
      render: (_, row) => <CopyText value={row.public_ip} what={t('instances.publicIp')} />,
    },
    {
      key: 'zone',
      title: t('instances.zone'),
      width: 76,
      render: (_, row) => row.availability_zone,
    },
    {
      key: 'launched',
      title: t('instances.launched'),
      width: 122,
      sorter: (a, b) => Date.parse(launchTime(a)) - Date.parse(launchTime(b)),
      render: (_, row) => <TimeText at={launchTime(row)} />,
    },
    {
      key: 'actions',
      shouldCellUpdate: changed,
      title: <span className="visually-hidden">{t('instances.actions')}</span>,
      width: 48,
      fixed: 'end',
      align: 'center',
      render: (_, row) => <RowActions instance={row} onAction={onAction} />,
    },
  ];
}

/** Whether a row matches what was typed: every word must occur in one of the things the row shows. */
export function matchesSearch(row: Instance, images: Map<string, Image>, typed: string): boolean {
  const text = [
    row.name,
    row.id,
    row.uuid,
    row.instance_type,
    row.image_id,
    images.get(row.image_id)?.name,
    row.private_ip,
    row.public_ip,
    row.availability_zone,
  ]
    .join('\n')
    .toLowerCase();
  return typed
    .toLowerCase()
    .split(/\s+/)
    .every((word) => text.includes(word));
}
