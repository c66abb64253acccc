import type { TableColumnsType } from 'antd';
import { useTranslation } from 'react-i18next';
import { Link, Outlet, useLocation } from 'react-router';
import { useListNetworkInterfacesQuery } from '../../api';
import type { ApiProblem } from '../../api/errors';
import type { NetworkInterface } from '../../api/types';
import { paths } from '../../paths';
import { CopyText } from '../../ui/CopyText';
import { vpcColumn } from '../../ui/columns';
import { ListView } from '../../ui/ListView';
import { StateTag } from '../../ui/StateTag';
import { usePolling, useVpcNames } from '../shared/useLists';

/** The network interfaces: those of instances, and those that are of none. */
export function ListPage() {
  const { t } = useTranslation();
  const { search } = useLocation();
  const interfaces = useListNetworkInterfacesQuery(undefined, usePolling());
  const vpcNames = useVpcNames();

  const columns: TableColumnsType<NetworkInterface> = [
    {
      key: 'id',
      title: t('common.id'),
      width: 190,
      render: (_, row) => (
        <Link className="name-link mono ellipsis" to={{ pathname: paths.networkInterface(row.id), search }}>
          {row.id}
        </Link>
      ),
    },
    {
      key: 'state',
      title: t('common.state'),
      width: 115,
      render: (_, row) => <StateTag state={row.status} />,
    },
    {
      key: 'description',
      title: t('common.description'),
      width: 160,
      render: (_, row) => (
        <span className="ellipsis" title={row.description}>
          {row.description || '–'}
        </span>
      ),
    },
    {
      key: 'private',
      title: t('instances.privateIp'),
      width: 150,
      render: (_, row) => <CopyText value={row.private_ip} what={t('instances.privateIp')} />,
    },
    {
      key: 'public',
      title: t('instances.publicIp'),
      width: 155,
      render: (_, row) => <CopyText value={row.public_ip} what={t('instances.publicIp')} />,
    },
    {
      key: 'instance',
      title: t('networkInterfaces.instance'),
      width: 190,
      render: (_, row) =>
        row.instance_id ? (
          <Link className="mono ellipsis" to={paths.instance(row.instance_id)}>
            {row.instance_id}
          </Link>
        ) : (
          '–'
        ),
    },
    vpcColumn(t, vpcNames, 130),
  ];

  return (
    <>
      <ListView
        title={t('networkInterfaces.title')}
        searchLabel={t('networkInterfaces.searchLabel')}
        calls={[{ method: 'GET', path: '/network-interfaces' }]}
        columns={columns}
        rows={interfaces.data}
        words={(row) => [
          row.id,
          row.description,
          row.private_ip,
          ...row.secondary_private_ips,
          row.public_ip,
          row.mac_address,
          row.instance_id,
          row.subnet_id,
          row.vpc_id,
          vpcNames.get(row.vpc_id),
        ]}
        problem={interfaces.error as ApiProblem | undefined}
        onRetry={() => void interfaces.refetch()}
        empty={{ title: t('networkInterfaces.empty'), hint: t('networkInterfaces.emptyHint') }}
        create={{ label: t('networkInterfaces.create'), to: paths.createNetworkInterface() }}
        width={1090}
      />
      <Outlet />
    </>
  );
}
