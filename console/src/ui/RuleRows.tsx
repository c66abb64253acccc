import { Form, Input, Select, type TableColumnsType } from 'antd';
import type { ReactNode } from 'react';
import { useTranslation } from 'react-i18next';
import { type Peer, PeerInput } from './PeerInput';
import { type ChangeState, RowsEditor } from './RowsEditor';

/** What the rules of a security group and the entries of a network ACL have in common. */
export interface Rule {
  direction: 'inbound' | 'outbound';
  protocol: string;
  port_range: string;
  icmp_type?: number | null;
  icmp_code?: number | null;
}

/** What the form holds. */
export interface RuleValues {
  direction: Rule['direction'];
  protocol: string;
  /** Ports, or type and code for ICMP; what a protocol has none of is not looked at. */
  ports?: string;
  peer: string;
}

const PROTOCOLS = ['tcp', 'udp', 'icmp', 'all'];
const PORTS = /^(all|\d{1,5}(-\d{1,5})?)$/;
const TYPE_AND_CODE = /^\d{1,3}(\/\d{1,3})?$/;

const hasPorts = (protocol: string) => protocol === 'tcp' || protocol === 'udp';

/** The part of a request that says which packets are meant: ports for TCP and UDP, type and code for ICMP. */
export function packetsOf({ direction, protocol, ports }: RuleValues) {
  const text = ports?.trim() ?? '';
  if (hasPorts(protocol)) {
    return { direction, protocol, port_range: text };
  }
  const [type, code] = text.split('/');
  return {
    direction,
    protocol,
    ...(protocol === 'icmp' && type ? { icmp_type: Number(type) } : {}),
    ...(protocol === 'icmp' && code ? { icmp_code: Number(code) } : {}),
  };
}

/** The form's fields for those of the API. */
const FIELDS: Record<string, string> = {
  port_range: 'ports',
  icmp_type: 'ports',
  icmp_code: 'ports',
  source_destination: 'peer',
  cidr_block: 'peer',
};

/** What the form's field for ports holds for a rule. */
function portsField(rule: Rule): string {
  return hasPorts(rule.protocol) ? rule.port_range : rule.protocol === 'icmp' ? portsText(rule, '') : '';
}

/** Ports, or type and code for ICMP. */
export function portsText(rule: Rule, all: string): string {
  if (rule.protocol === 'icmp') {
    const parts = [rule.icmp_type ?? null, rule.icmp_code ?? null].filter((n) => n !== null);
    return parts.length === 0 ? all : parts.join('/');
  }
  return rule.port_range === 'all' ? all : rule.port_range;
}

/** The field whose meaning follows the protocol. */
function PortsField() {
  const { t } = useTranslation();
  const form = Form.useFormInstance();
  const protocol = (Form.useWatch('protocol', form) as string | undefined) ?? 'tcp';
  const isIcmp = protocol === 'icmp';
  return (
    <Form.Item
      name="ports"
      label={isIcmp ? t('rules.typeAndCode') : t('rules.ports')}
      dependencies={['protocol']}
      validateFirst
      rules={[
        { required: hasPorts(protocol), message: t('rules.portsRequired') },
        ...(hasPorts(protocol) ? [{ pattern: PORTS, message: t('rules.portsWrong') }] : []),
        ...(isIcmp ? [{ pattern: TYPE_AND_CODE, message: t('rules.typeAndCodeWrong') }] : []),
      ]}
    >
      <Input
        className="mono"
        autoComplete="off"
        placeholder={isIcmp ? '8/0' : hasPorts(protocol) ? '80-443' : t('rules.all')}
        disabled={protocol === 'all'}
      />
    </Form.Item>
  );
}

/** The other side: typed, or chosen of what there is. */
function PeerField({ hint, peers }: { hint: string; peers: Peer[] | undefined }) {
  const { t } = useTranslation();
  const direction = (Form.useWatch('direction') as Rule['direction'] | undefined) ?? 'inbound';
  return (
    <Form.Item
      name="peer"
      className="row-wide"
      label={t(direction === 'inbound' ? 'rules.source' : 'rules.destination')}
      rules={[{ required: true, whitespace: true, message: t('rules.peerRequired') }]}
    >
      <PeerInput hint={hint} peers={peers} />
    </Form.Item>
  );
}

/** Rules as a table, with a form for another one. */
export function RuleRows<T extends Rule, V extends RuleValues = RuleValues>({
  label,
  addLabel,
  rows,
  rowKey,
  peerOf,
  renderPeer = (row) => <span className="mono">{peerOf(row)}</span>,
  nameOf = (_, text) => text,
  empty,
  columns = {},
  fields = {},
  initial,
  peerHint,
  peers,
  isFixed,
  rowClassName,
  onAdd,
  replace,
  onRemove,
  state,
}: {
  label: string;
  addLabel: string;
  rows: T[];
  rowKey: (row: T) => string;
  /** The other side in one word. */
  peerOf: (row: T) => string;
  /** The other side as the table shows it. */
  renderPeer?: (row: T) => ReactNode;
  /** What a rule is called, made of what it says. */
  nameOf?: (row: T, text: string) => string;
  empty?: string;
  /** Columns of its own: after the direction, and at the end. */
  columns?: { first?: TableColumnsType<T>; last?: TableColumnsType<T> };
  /** Fields of its own: after the direction (told whether a rule is being changed), and at the end. */
  fields?: { first?: (changing: boolean) => ReactNode; last?: ReactNode };
  initial?: Partial<V>;
  /** What the other side may be. */
  peerHint: string;
  /** What of that has a name to choose it by. */
  peers?: Peer[];
  isFixed?: (row: T) => boolean;
  rowClassName?: (row: T) => string;
  onAdd: (values: V) => Promise<boolean>;
  /** How one is put in the place of another, where that can be done: what the form holds beside the packets. */
  replace?: { values: (row: T) => Partial<V>; send: (values: V) => Promise<boolean> };
  onRemove: (row: T) => Promise<boolean>;
  state: ChangeState;
}) {
  const { t } = useTranslation();
  const protocolText = (protocol: string) => (protocol === 'all' ? t('rules.all') : protocol.toUpperCase());
  return (
    <RowsEditor<T, V>
      label={label}
      rows={rows}
      rowKey={rowKey}
      empty={empty}
      isFixed={isFixed}
      rowClassName={rowClassName}
      nameOf={(row) =>
        nameOf(
          row,
          [
            t(`rules.${row.direction}`),
            protocolText(row.protocol),
            portsText(row, t('rules.all')),
            peerOf(row),
          ].join(' '),
        )
      }
      columns={[
        { key: 'direction', title: t('rules.direction'), render: (_, row) => t(`rules.${row.direction}`) },
        ...(columns.first ?? []),
        { key: 'protocol', title: t('rules.protocol'), render: (_, row) => protocolText(row.protocol) },
        { key: 'ports', title: t('rules.ports'), render: (_, row) => portsText(row, t('rules.all')) },
        {
          key: 'peer',
          title: t('rules.peer'),
          render: (_, row) => renderPeer(row),
        },
        ...(columns.last ?? []),
      ]}
      onRemove={onRemove}
      edit={
        replace && {
          first: 'protocol',
          send: replace.send,
          values: (row) =>
            ({
              direction: row.direction,
              protocol: row.protocol,
              ports: portsField(row),
              peer: peerOf(row),
              ...replace.values(row),
            }) as Partial<V>,
        }
      }
      add={{
        label: addLabel,
        initial: { direction: 'inbound', protocol: 'tcp', ...initial } as Partial<V>,
        send: onAdd,
        fieldOf: (field) => FIELDS[field] ?? field,
        fields: (changing) => (
          <>
            <Form.Item name="direction" label={t('rules.direction')}>
              <Select
                disabled={changing}
                options={(['inbound', 'outbound'] as const).map((value) => ({
                  value,
                  label: t(`rules.${value}`),
                }))}
              />
            </Form.Item>
            {fields.first?.(changing)}
            <Form.Item name="protocol" label={t('rules.protocol')}>
              <Select options={PROTOCOLS.map((value) => ({ value, label: protocolText(value) }))} />
            </Form.Item>
            <PortsField />
            <PeerField hint={peerHint} peers={peers} />
            {fields.last}
          </>
        ),
      }}
      state={state}
    />
  );
}
