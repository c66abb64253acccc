import { screen, waitFor, within } from '@testing-library/react';
import { HttpResponse, http } from 'msw';
import { describe, expect, it } from 'vitest';
import { callsTo, confirmed, openConsole, openForm } from '../../../test/console';
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
    expect(screen.queryByRole('region', { name: 'Subnets that follow public' })).toBeNull();
    broken = false;
    await user.click(screen.getByRole('button', { name: 'Try again' }));
    expect(await screen.findByRole('region', { name: 'Subnets that follow public' })).toBeTruthy();
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

  it('is made, gets a subnet and a gateway, loses them, and is deleted', async () => {
    const { cloud, user, router } = openConsole('/vpcs');
    const form = await openForm(user, 'Create VPC');
    await user.type(within(form).getByLabelText('Name'), 'staging');
    await user.type(within(form).getByLabelText('CIDR block'), '10.8.0.0/12');
    await user.click(within(form).getByRole('button', { name: 'Create' }));
    expect(await within(form).findByText('InvalidVpc.Range')).toBeTruthy();
    await user.clear(within(form).getByLabelText('CIDR block'));
    await user.type(within(form).getByLabelText('CIDR block'), '10.8.0.0/16');
    await user.click(within(form).getByRole('button', { name: 'Create' }));
    const subnets = await screen.findByLabelText('Subnets of staging');
    const id = cloud.world.vpcs.at(-1)?.id;
    expect(router.state.location.pathname).toBe(`/vpcs/${id}`);

    const addSubnet = screen.getByRole('form', { name: 'Add a subnet' });
    await user.type(within(addSubnet).getByLabelText('Name'), 'front');
    await user.type(within(addSubnet).getByLabelText('CIDR block'), '10.8.1.0/24');
    await user.type(within(addSubnet).getByLabelText('Availability zone'), 'gon-1b');
    await user.click(within(addSubnet).getByRole('button', { name: 'Add' }));
    expect(await within(subnets).findByText('10.8.1.0/24')).toBeTruthy();
    expect(callsTo(cloud, 'POST', `/vpcs/${id}/subnets`).map(({ body }) => body)).toEqual([
      { name: 'front', cidr_block: '10.8.1.0/24', availability_zone: 'gon-1b' },
    ]);
    const front = cloud.world.subnets.at(-1)?.id;
    await user.click(within(subnets).getByRole('switch', { name: 'Public IP on launch in front' }));
    await waitFor(() =>
      expect(callsTo(cloud, 'PUT', `/subnets/${front}`).map(({ body }) => body)).toEqual([
        { map_public_ip_on_launch: true },
      ]),
    );

    const gateways = screen.getByLabelText('Internet gateways');
    const addGateway = screen.getByRole('form', { name: 'Add an internet gateway' });
    await user.type(within(addGateway).getByLabelText('Name of the gateway'), 'staging-out');
    await user.click(within(addGateway).getByRole('button', { name: 'Add' }));
    expect(await within(gateways).findByText('Attached')).toBeTruthy();

    const remove = () => screen.getByRole('button', { name: 'Delete' });
    await confirmed(user, remove(), 'Delete');
    const alert = (await screen.findByText('DependencyViolation')).closest('[role=alert]');
    expect(alert?.textContent).toContain(front);

    await confirmed(user, within(subnets).getByRole('button', { name: 'Remove front' }), 'Delete');
    await waitFor(() => expect(within(subnets).queryByText('front')).toBeNull());
    await confirmed(user, within(gateways).getByRole('button', { name: 'Detach' }), 'Detach');
    expect(await within(gateways).findByText('Detached')).toBeTruthy();
    await confirmed(user, within(gateways).getByRole('button', { name: 'Remove staging-out' }), 'Delete');
    await waitFor(() => expect(within(gateways).queryByText('staging-out')).toBeNull());
    await confirmed(user, remove(), 'Delete');
    await waitFor(() => expect(router.state.location.pathname).toBe('/vpcs'));
    await waitFor(() => expect(screen.queryByRole('link', { name: 'staging' })).toBeNull());
  });

  it('is made as the default one while there is none', async () => {
    const { cloud, user, router } = openConsole('/vpcs/create');
    await user.click(await screen.findByRole('button', { name: 'Create the default VPC' }));
    await waitFor(() => expect(router.state.location.pathname).toBe(`/vpcs/${cloud.world.vpcs.at(-1)?.id}`));
    expect(cloud.world.vpcs.at(-1)?.is_default).toBe(true);
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
