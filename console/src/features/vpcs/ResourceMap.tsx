import { Skeleton } from 'antd';
import type { ReactNode } from 'react';
import { useTranslation } from 'react-i18next';
import { Link } from 'react-router';
import {
  useListInternetGatewaysQuery,
  useListNetworkInterfacesQuery,
  useListRouteTablesQuery,
  useListSubnetsQuery,
} from '../../api';
import type { ApiProblem } from '../../api/errors';
import type { Vpc } from '../../api/types';
import { paths } from '../../paths';
import { ProblemAlert } from '../../ui/ProblemAlert';
import { StateTag } from '../../ui/StateTag';
import { useInstances } from '../instances/useInstances';
import { usePolling } from '../shared/useLists';
import { type MapGroup, type MapSubnet, type MapTarget, resourceMap } from './resourceMap';

/** So many instances of a subnet are named; of the rest only the number is told. */
const NAMED = 6;

function Column({ label, empty, children }: { label: string; empty?: string; children: ReactNode[] }) {
  return (
    <div className="map-column">
      <div className="map-label">{label}</div>
      {children.length === 0 ? <p className="muted">{empty}</p> : <ul aria-label={label}>{children}</ul>}
    </div>
  );
}

function SubnetNode({ subnet, instances }: MapSubnet) {
  const { t } = useTranslation();
  return (
    <li className="map-node">
      <strong>{subnet.name}</strong>
      <span className="mono">{subnet.cidr_block}</span>
      <span className="muted">
        {subnet.availability_zone} · {t(`vpcs.${subnet.subnet_type}`)}
      </span>
      {instances.length > 0 && (
        <ul className="map-instances" aria-label={t('vpcs.instancesOf', { name: subnet.name })}>
          {instances.slice(0, NAMED).map(({ id, name }) => (
            <li key={id}>
              <Link className="ellipsis" title={name} to={paths.instance(id)}>
                {name}
              </Link>
            </li>
          ))}
          {instances.length > NAMED && (
            <li className="muted">{t('vpcs.more', { count: instances.length - NAMED })}</li>
          )}
        </ul>
      )}
    </li>
  );
}

function TargetNode({ id, name, destinations, isBlackhole }: MapTarget) {
  return (
    <li className="map-node">
      {name !== undefined && <strong>{name}</strong>}
      {id.startsWith('eni-') ? (
        <Link className="mono ellipsis" to={paths.networkInterface(id)}>
          {id}
        </Link>
      ) : (
        <span className="mono ellipsis">{id}</span>
      )}
      <span className="muted mono">{destinations.join(', ')}</span>
      {isBlackhole && <StateTag state="blackhole" />}
    </li>
  );
}

function Group({ table, subnets, targets }: MapGroup) {
  const { t } = useTranslation();
  return (
    <section className="map-group" aria-label={t('vpcs.following', { name: table.name })}>
      <Column label={t('vpcs.subnets')} empty={t('vpcs.noFollowers')}>
        {subnets.map((item) => (
          <SubnetNode key={item.subnet.id} {...item} />
        ))}
      </Column>
      <Column label={t('vpcs.routeTable')}>
        {[
          <li key={table.id} className="map-node">
            <Link className="name-link" to={paths.routeTable(table.id)}>
              {table.name}
            </Link>
            {table.is_main && <span className="muted">{t('routeTables.main')}</span>}
          </li>,
        ]}
      </Column>
      <Column label={t('vpcs.connections')} empty={t('vpcs.noConnections')}>
        {targets.map((target) => (
          <TargetNode key={target.id} {...target} />
        ))}
      </Column>
    </section>
  );
}

/** Subnets with their instances, the route tables they follow, and what is reached through those. */
export function ResourceMap({ vpc }: { vpc: Vpc }) {
  const { t } = useTranslation();
  const polling = usePolling();
  const subnets = useListSubnetsQuery(undefined, polling);
  const tables = useListRouteTablesQuery(undefined, polling);
  const gateways = useListInternetGatewaysQuery(undefined, polling);
  const interfaces = useListNetworkInterfacesQuery(undefined, polling);
  const instances = useInstances();
  const lists = [subnets, tables, gateways, interfaces];
  const problem =
    (lists.find(({ error }) => error !== undefined)?.error as ApiProblem | undefined) ?? instances.problem;
  const retry = () => {
    for (const list of lists) {
      void list.refetch();
    }
    instances.refetch();
  };
  const map =
    subnets.data && tables.data && gateways.data && interfaces.data && instances.rows
      ? resourceMap(vpc.id, {
          subnets: subnets.data,
          tables: tables.data,
          gateways: gateways.data,
          interfaces: interfaces.data,
          instances: instances.rows,
        })
      : undefined;
  return (
    <>
      {problem !== undefined && (
        <div className="above-panel">
          <ProblemAlert problem={problem} onRetry={retry} />
        </div>
      )}
      {map === undefined && problem === undefined && <Skeleton active paragraph={{ rows: 6 }} />}
      {map?.groups.map((group) => (
        <Group key={group.table.id} {...group} />
      ))}
      {map?.unused.map(({ id, name }) => (
        <p key={id} className="hint">
          {t('vpcs.unused', { name, id })}
        </p>
      ))}
    </>
  );
}
