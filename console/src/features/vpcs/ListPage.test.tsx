import { screen, waitFor, within } from '@testing-library/react';
import { HttpResponse, http } from 'msw';
import { describe, expect, it } from 'vitest';
import { callsTo, confirmed, openConsole } from '../../../test/console';
import { server } from '../../../test/setup';
import { resourceMap } from './resourceMap';

describe('a VPC', () => {
  it('is shown as subnets with their instances, the table they follow, and where that leads', async () => {
    const { cloud, user } = openConsole('/vpcs');
    await user.click(await screen.findByRole('link', { name: 'production' }));
    const behindPublic = await screen.findByRole('region', { name: 'Subnets that follow public' });
    const [web1] = cloud.world.instances;
    expect(within(behindPublic).getByText('web-a')).toBeTruthy();
    expect(within(behindPublic).getByRole('link', { name: 'web-1' }).getAttribute('href')).toBe(
      `/instances/${web1?.id}`,
    );
    expect(within(behindPublic).getByText('production-out')).toBeTruthy();
    expect(within(behindPublic).getByText('192.168.7.0/24')).toBeTruthy();
    expect(within(behindPublic).getByText('Blackhole')).toBeTruthy();
    const behindMain = screen.getByRole('region', { name: 'Subnets that follow main' });
    expect(within(behindMain).getByText('data-a')).toBeTruthy();
    expect(within(behindMain).getByText('Nothing outside the VPC.')).toBeTruthy();
    expect(await screen.findByText('Applied 2/2')).toBeTruthy();
  });

  it('says why there is no map, and tries again when asked to', async () => {
    const { user } = openConsole('/vpcs');
    let broken = true;
    server.use(
      // What answers nothing leaves it to the cloud.
      http.get('*/api/v1/route-tables', () =>
        broken
          ? HttpResponse.json({ code: 'InternalError', detail: 'no database', status: 500 }, { status: 500 })
          : undefined,
      ),
    );
    await user.click(await screen.findByRole('link', { name: 'production' }));
    expect(await screen.findByText('no database')).toBeTruthy();
    expect(screen.queryByText('production-out')).toBeNull();
    broken = false;
    await user.click(screen.getByRole('button', { name: 'Try again' }));
    expect(await screen.findByText('production-out')).toBeTruthy();
    expect(screen.queryByText('no database')).toBeNull();
  });

  it('gets further blocks and loses all but the first', async () => {
    const { cloud, user } = openConsole('/vpcs');
    await user.click(await screen.findByRole('link', { name: 'production' }));
    const blocks = await screen.findByLabelText('CIDR blocks');
    const form = screen.getByRole('form', { name: 'Add a CIDR block' });
    await user.click(within(form).getByRole('button', { name: 'Add' }));
    expect(await within(form).findByText('Say which block, /16 to /28.')).toBeTruthy();
    await user.type(within(form).getByLabelText('CIDR block'), '10.1.0.0/16');
    await user.click(within(form).getByRole('button', { name: 'Add' }));
    expect(await within(blocks).findByText('10.1.0.0/16')).toBeTruthy();
    const id = cloud.world.vpcs[0]?.id;
    expect(callsTo(cloud, 'POST', `/vpcs/${id}/cidr-blocks`).map(({ body }) => body)).toEqual([
      { cidr_block: '10.1.0.0/16' },
    ]);
    const removes = within(blocks).getAllByRole('button', { name: /^Remove / });
    expect(removes.map((button) => button.getAttribute('aria-label'))).toEqual(['Remove 10.1.0.0/16']);
    await confirmed(user, within(blocks).getByRole('button', { name: 'Remove 10.1.0.0/16' }), 'Remove');
    await waitFor(() => expect(within(blocks).queryByText('10.1.0.0/16')).toBeNull());
  });

  it('that does not exist is said not to', async () => {
    openConsole('/vpcs/vpc-0000000000000dead');
    expect(await screen.findByText('This VPC does not exist, or no longer does.')).toBeTruthy();
  });
});

describe('the resource map', () => {
  it('counts an instance once per subnet, and names the gateways that no route leads to', () => {
    const { cloud } = openConsole('/login', { loggedIn: false });
    const { world } = cloud;
    const [prod, lab] = world.vpcs;
    const [gateway] = world.internetGateways;
    const [appliance, primary] = world.networkInterfaces;
    const web = world.subnets.find(({ name }) => name === 'web-a');
    if (!prod || !lab || !gateway || !appliance || !primary || !web) {
      throw new Error('the seed has changed');
    }
    const known = () => ({
      subnets: world.subnets,
      tables: world.routeTables,
      gateways: world.internetGateways,
      interfaces: world.networkInterfaces,
      instances: world.instances,
    });
    Object.assign(appliance, { subnet_id: web.id, instance_id: primary.instance_id });
    const [main, open] = resourceMap(prod.id, known()).groups;
    expect(main?.table.is_main).toBe(true);
    expect(main?.targets).toEqual([]);
    expect(open?.subnets.map(({ subnet }) => subnet.name)).toEqual(['web-a']);
    expect(open?.subnets[0]?.instances.filter(({ id }) => id === primary.instance_id)).toHaveLength(1);
    expect(open?.targets.map(({ name, isBlackhole }) => [name, isBlackhole])).toEqual([
      ['production-out', false],
      ['Firewall, inside', true],
    ]);
    expect(resourceMap(prod.id, known()).unused).toEqual([]);
    gateway.vpc_id = lab.id;
    expect(resourceMap(lab.id, known()).unused).toEqual([gateway]);
  });
});
