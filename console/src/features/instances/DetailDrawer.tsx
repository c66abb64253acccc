import { Button } from 'antd';
import type { ReactNode } from 'react';
import { useTranslation } from 'react-i18next';
import { useLocation, useNavigate, useParams } from 'react-router';
import {
  useGetInstanceQuery,
  useListImagesQuery,
  useListSecurityGroupsQuery,
  useListSubnetsQuery,
  useListVpcsQuery,
} from '../../api';
import type { ApiProblem } from '../../api/errors';
import { pollingInterval } from '../../api/events';
import type { Instance } from '../../api/types';
import { paths } from '../../paths';
import { useAppSelector } from '../../store';
import { CopyButton } from '../../ui/CopyButton';
import { CopyText } from '../../ui/CopyText';
import { Facts } from '../../ui/Facts';
import { Reference } from '../../ui/Reference';
import { ResourceDrawer } from '../../ui/ResourceDrawer';
import { ScrollText } from '../../ui/ScrollText';
import { Section } from '../../ui/Section';
import { StateTag } from '../../ui/StateTag';
import { TimeText } from '../../ui/TimeText';
import { memoryText } from '../../util/units';
import { nameIn } from '../shared/useLists';
import { sshHint } from './ssh';
import { ACTIONS, isAllowed, useInstanceActions } from './useInstanceActions';

function Connect({ instance }: { instance: Instance }) {
  const { t } = useTranslation();
  const { data: images } = useListImagesQuery();
  const hint = sshHint(
    instance,
    images?.find(({ id }) => id === instance.image_id),
  );
  if (!hint.possible) {
    return <p className="muted">{t(`detail.${hint.reason}`)}</p>;
  }
  return (
    <>
      <div className="code-box">
        <ScrollText label={t('detail.ssh')} text={hint.command} />
        <CopyButton className="code-copy" text={hint.command} what={t('detail.ssh')} />
      </div>
      <p className="hint">
        {t('detail.sshPath', { file: hint.keyFile })} {t('detail.sshUser', { user: hint.user })}
      </p>
    </>
  );
}

function Details({ instance }: { instance: Instance }) {
  const { t } = useTranslation();
  const { data: images } = useListImagesQuery();
  const { data: subnets } = useListSubnetsQuery();
  const { data: vpcs } = useListVpcsQuery();
  const { data: groups } = useListSecurityGroupsQuery({ vpc_id: instance.vpc_id });
  return (
    <>
      <Section title={t('detail.connect')}>
        <Connect instance={instance} />
      </Section>
      <Section title={t('detail.summary')}>
        <Facts
          items={[
            [t('common.state'), <StateTag key="state" state={instance.state} />],
            ...(instance.state_reason
              ? [[t('detail.reason'), instance.state_reason] satisfies [string, ReactNode]]
              : []),
            [t('common.id'), <CopyText key="id" value={instance.id} what={t('common.id')} />],
            [t('common.uuid'), <CopyText key="uuid" value={instance.uuid} what={t('common.uuid')} />],
            [
              t('instances.type'),
              <span key="type">
                {instance.instance_type}{' '}
                <span className="muted">
                  {t('launch.typeSpec', { vcpus: instance.vcpus, memory: memoryText(instance.memory_mib) })}
                </span>
              </span>,
            ],
            [
              t('instances.image'),
              <Reference
                key="image"
                id={instance.image_id}
                name={nameIn(images, instance.image_id)}
                what={t('instances.image')}
              />,
            ],
            [t('detail.keyPair'), instance.key_name ?? t('common.none')],
            [t('instances.launched'), <TimeText key="launched" at={instance.launched_at} />],
            [t('common.created'), <TimeText key="created" at={instance.created_at} />],
            [t('detail.updated'), <TimeText key="updated" at={instance.updated_at} />],
          ]}
        />
      </Section>
      <Section title={t('detail.network')}>
        <Facts
          items={[
            [
              t('instances.publicIp'),
              <CopyText key="public" value={instance.public_ip} what={t('instances.publicIp')} />,
            ],
            [
              t('instances.privateIp'),
              <CopyText key="private" value={instance.private_ip} what={t('instances.privateIp')} />,
            ],
            [t('detail.mac'), <CopyText key="mac" value={instance.mac_address} what={t('detail.mac')} />],
            [
              t('detail.interface'),
              instance.network_interface_id ? (
                <Reference
                  key="eni"
                  id={instance.network_interface_id}
                  what={t('detail.interface')}
                  to={paths.networkInterface(instance.network_interface_id)}
                />
              ) : (
                '–'
              ),
            ],
            [
              t('common.vpc'),
              <Reference
                key="vpc"
                id={instance.vpc_id}
                name={nameIn(vpcs, instance.vpc_id)}
                what={t('common.vpc')}
                to={paths.vpc(instance.vpc_id)}
              />,
            ],
            [
              t('common.subnet'),
              <Reference
                key="subnet"
                id={instance.subnet_id}
                name={nameIn(subnets, instance.subnet_id)}
                what={t('common.subnet')}
              />,
            ],
            [
              t('detail.securityGroups'),
              <ul key="groups">
                {instance.security_group_ids.map((id) => (
                  <li key={id}>
                    <Reference
                      id={id}
                      name={nameIn(groups, id)}
                      what={t('detail.securityGroups')}
                      to={paths.securityGroup(id)}
                    />
                  </li>
                ))}
              </ul>,
            ],
            [t('common.zone'), instance.availability_zone],
            [t('detail.node'), instance.worker_node ?? '–'],
            [
              t('detail.generation'),
              t('detail.applied', {
                generation: instance.generation,
                acked: instance.applied.acked,
                nodes: instance.applied.nodes,
              }),
            ],
          ]}
        />
      </Section>
    </>
  );
}

/** Everything about one instance, beside the list. */
export function DetailDrawer() {
  const { t } = useTranslation();
  const { id = '' } = useParams();
  const navigate = useNavigate();
  const { search } = useLocation();
  const live = useAppSelector((state) => state.live.status);
  const {
    currentData: instance,
    error,
    refetch,
  } = useGetInstanceQuery(id, {
    pollingInterval: pollingInterval(live),
    skipPollingIfUnfocused: true,
    // The list may be a moment old; a page about one instance should not be.
    refetchOnMountOrArgChange: true,
  });
  const act = useInstanceActions();
  return (
    <ResourceDrawer
      title={(known) => (
        <div className="drawer-title">
          <span>{instance?.name ?? id}</span>
          {known !== undefined && <StateTag state={known.state} />}
        </div>
      )}
      calls={[
        { method: 'GET', path: `/instances/${id}` },
        { method: 'DELETE', path: `/instances/${id}` },
      ]}
      list={paths.instances()}
      item={instance}
      problem={error as ApiProblem | undefined}
      onRetry={() => void refetch()}
      missing={{ title: t('instances.missing'), back: t('instances.showAll') }}
    >
      {(known) => (
        <>
          <div className="detail-actions">
            {ACTIONS.map((action) => (
              <Button
                key={action}
                danger={action === 'terminate'}
                disabled={!isAllowed(action, known.state)}
                onClick={() => act(action, known)}
              >
                {t(`instances.${action}`)}
              </Button>
            ))}
            <Button onClick={() => void navigate({ pathname: paths.instanceConsole(id), search })}>
              {t('instances.console')}
            </Button>
          </div>
          <Details instance={known} />
        </>
      )}
    </ResourceDrawer>
  );
}
