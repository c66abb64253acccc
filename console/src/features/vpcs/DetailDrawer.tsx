import { useTranslation } from 'react-i18next';
import { Link, useParams } from 'react-router';
import { useGetVpcQuery, useListRouteTablesQuery, useListSecurityGroupsQuery } from '../../api';
import type { Vpc } from '../../api/types';
import { paths } from '../../paths';
import { AppliedText } from '../../ui/AppliedText';
import { CopyText } from '../../ui/CopyText';
import { Facts } from '../../ui/Facts';
import { Reference } from '../../ui/Reference';
import { ResourceDrawer } from '../../ui/ResourceDrawer';
import { Section } from '../../ui/Section';
import { StateTag } from '../../ui/StateTag';
import { TimeText } from '../../ui/TimeText';
import { useDetails } from '../shared/useDetails';
import { nameIn } from '../shared/useLists';
import { ResourceMap } from './ResourceMap';

function Summary({ vpc }: { vpc: Vpc }) {
  const { t } = useTranslation();
  const { data: tables } = useListRouteTablesQuery();
  const { data: groups } = useListSecurityGroupsQuery({ vpc_id: vpc.id });
  const main = vpc.main_route_table_id;
  const usual = vpc.default_security_group_id;
  return (
    <Facts
      items={[
        [t('applied.label'), <AppliedText key="applied" applied={vpc.applied} />],
        [t('detail.generation'), vpc.generation],
        [t('common.id'), <CopyText key="id" value={vpc.id} what={t('common.id')} />],
        [t('common.uuid'), <CopyText key="uuid" value={vpc.uuid} what={t('common.uuid')} />],
        [
          t('vpcs.blocks'),
          <ul key="blocks">
            {vpc.cidr_block_associations.map(({ id, cidr_block }) => (
              <li key={id} className="mono">
                {cidr_block}
              </li>
            ))}
          </ul>,
        ],
        [
          t('vpcs.mainTable'),
          <Link key="main" to={paths.routeTable(main)}>
            {nameIn(tables, main) ?? main}
          </Link>,
        ],
        [
          t('vpcs.defaultGroup'),
          <Reference key="group" id={usual} name={nameIn(groups, usual)} what={t('vpcs.defaultGroup')} />,
        ],
        [t('vpcs.isDefault'), vpc.is_default ? t('common.yes') : t('common.no')],
        [t('common.created'), <TimeText key="created" at={vpc.created_at} />],
        [t('detail.updated'), <TimeText key="updated" at={vpc.updated_at} />],
      ]}
    />
  );
}

/** Everything about one VPC, beside the list. */
export function DetailDrawer() {
  const { t } = useTranslation();
  const { id = '' } = useParams();
  const { options, read } = useDetails();
  const { item, problem, refetch } = read(useGetVpcQuery(id, options));
  return (
    <ResourceDrawer
      size={860}
      title={(known) => (
        <div className="drawer-title">
          <span>{known?.name ?? id}</span>
          {known !== undefined && <StateTag state={known.state} />}
        </div>
      )}
      calls={[
        { method: 'GET', path: `/vpcs/${id}?wait=applied` },
        { method: 'GET', path: `/vpcs/${id}/subnets` },
        { method: 'GET', path: `/route-tables?vpc_id=${id}` },
        { method: 'GET', path: `/internet-gateways?vpc_id=${id}` },
        { method: 'GET', path: `/network-interfaces?vpc_id=${id}` },
      ]}
      list={paths.vpcs()}
      item={item}
      problem={problem}
      onRetry={refetch}
      missing={{ title: t('vpcs.missing'), back: t('vpcs.showAll') }}
    >
      {(vpc) => (
        <>
          <Section title={t('vpcs.map')}>
            <ResourceMap vpc={vpc} />
          </Section>
          <Section title={t('detail.summary')}>
            <Summary vpc={vpc} />
          </Section>
        </>
      )}
    </ResourceDrawer>
  );
}
