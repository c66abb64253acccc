import { describe, expect, it } from 'vitest';
import { packetsOf, portsText, type Rule, type RuleValues } from './RuleRows';

const values = (protocol: string, ports?: string): RuleValues => ({
  direction: 'inbound',
  protocol,
  ports,
  peer: '0.0.0.0/0',
});

describe('what a rule is asked for with', () => {
  it.each([
    ['tcp', ' 80-443 ', { port_range: '80-443' }],
    ['udp', 'all', { port_range: 'all' }],
    ['icmp', '8/0', { icmp_type: 8, icmp_code: 0 }],
    ['icmp', '3', { icmp_type: 3 }],
    ['icmp', undefined, {}],
    // Written before another protocol was chosen.
    ['all', '22', {}],
  ])('%s %s', (protocol, ports, expected) => {
    expect(packetsOf(values(protocol, ports))).toEqual({ direction: 'inbound', protocol, ...expected });
  });
});

describe('how the ports of a rule read', () => {
  const rule = (more: Partial<Rule>): Rule => ({
    direction: 'inbound',
    protocol: 'tcp',
    port_range: 'all',
    ...more,
  });
  it.each([
    [rule({}), 'All'],
    [rule({ port_range: '22' }), '22'],
    [rule({ protocol: 'icmp' }), 'All'],
    [rule({ protocol: 'icmp', icmp_type: 0, icmp_code: null }), '0'],
    [rule({ protocol: 'icmp', icmp_type: 3, icmp_code: 4 }), '3/4'],
  ])('%o is %s', (given, text) => {
    expect(portsText(given, 'All')).toBe(text);
  });
});
