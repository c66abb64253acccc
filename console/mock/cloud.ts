/**
 * An in-memory cloud that speaks the REST contract: for tests (through msw) and for `npm run dev:mock` (through a Vite
 * plugin). It checks what the real server checks as far as the console can tell the difference, and no more.
 */
import type {
  ConsoleOutput,
  Instance,
  InstanceState,
  LaunchInstanceRequest,
  LoginRequest,
  Me,
  Page,
  ProblemBody,
  ResourceEvent,
  TokenResponse,
} from '../src/api/types';
import { toBase64 } from '../src/util/text.ts';
import { LIFECYCLE_ROUTES, type LifecycleRoute, makeOrDelete } from './lifecycle.ts';
import { MockNetwork, NETWORK_ROUTES, type NetworkRoute } from './network.ts';
import { Refusal } from './refusal.ts';
import { instance, STATE_CODES, seededWorld, type World } from './seed.ts';

export const MOCK_LOGIN: LoginRequest = { username: 'admin', password: 'gon-admin' };

const ME: Me = {
  user: { id: '019a3f5e-0001-7000-9000-000000000001', username: 'admin', role: 'admin' },
  account: { id: '019a3f5e-0002-7000-9000-000000000002', name: 'main' },
};

/** What it answers; `mock/contract.test.ts` looks each of them up in `openapi/gon-v1.json`. */
export const ROUTES = [
  'POST /auth/login',
  'POST /auth/refresh',
  'POST /auth/logout',
  'GET /auth/me',
  'GET /images',
  'GET /instance-types',
  'GET /vpcs',
  'GET /subnets',
  'GET /key-pairs',
  'GET /security-groups',
  'GET /network-acls',
  'GET /internet-gateways',
  'GET /network-interfaces',
  'GET /route-tables',
  'GET /prefix-lists',
  ...NETWORK_ROUTES,
  ...LIFECYCLE_ROUTES,
  'GET /instances',
  'POST /instances',
  'GET /instances/{id}',
  'DELETE /instances/{id}',
  'POST /instances/{id}/start',
  'POST /instances/{id}/stop',
  'POST /instances/{id}/reboot',
  'GET /instances/{id}/console-output',
] as const;
type Route = (typeof ROUTES)[number];

/** The routes as patterns; every pair of braces stands for one word of the path. */
const PATTERNS = ROUTES.map((route) => ({
  route,
  pattern: new RegExp(`^${route.replace(/\{\w+\}/g, '([^/]+)')}$`),
}));

function isNetworkRoute(route: Route | undefined): route is NetworkRoute {
  return (NETWORK_ROUTES as readonly (string | undefined)[]).includes(route);
}

function isLifecycleRoute(route: Route | undefined): route is LifecycleRoute {
  return (LIFECYCLE_ROUTES as readonly (string | undefined)[]).includes(route);
}

interface Call {
  method: string;
  path: string;
  body: unknown;
  headers: Headers;
}

export interface MockOptions {
  world?: World;
  /** How long an instance stays in a passing state, in milliseconds; null leaves it there. */
  step?: number | null;
  /** How long every answer takes, in milliseconds. */
  latency?: number;
  /** Lifetime of an access token, in seconds. */
  tokenLifetime?: number;
}

export class MockCloud {
  readonly world: World;
  readonly network: MockNetwork;
  /** Every call that came in, for tests to look at. */
  readonly calls: Call[] = [];
  private readonly step: number | null;
  private readonly latency: number;
  private readonly tokenLifetime: number;
  private readonly accessTokens = new Set<string>();
  private readonly refreshTokens = new Set<string>();
  private readonly launches = new Map<string, { body: string; instance: Instance }>();
  private readonly listeners = new Set<(event: ResourceEvent) => void>();
  private serial = 0;

  constructor({ world = seededWorld(), step = 1500, latency = 0, tokenLifetime = 900 }: MockOptions = {}) {
    this.world = world;
    this.network = new MockNetwork(world);
    this.step = step;
    this.latency = latency;
    this.tokenLifetime = tokenLifetime;
  }

  /** Whether new sockets are turned away. */
  refusesSockets = false;

  /** Calls `listener` with every event until the returned function is called. */
  subscribe(listener: (event: ResourceEvent) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  acceptsToken(token: unknown): boolean {
    return typeof token === 'string' && this.accessTokens.has(token);
  }

  /** Makes every access token invalid, as time does. */
  expireAccessTokens(): void {
    this.accessTokens.clear();
  }

  /** Makes every refresh token invalid, as a revocation does. */
  revokeRefreshTokens(): void {
    this.refreshTokens.clear();
  }

  /** Accepts a refresh token that some earlier tab was given. */
  adoptRefreshToken(token: string): void {
    this.refreshTokens.add(token);
  }

  /** Grants tokens without a login. */
  grant(): TokenResponse {
    this.serial += 1;
    const tokens: TokenResponse = {
      access_token: `access-${this.serial}`,
      token_type: 'Bearer',
      expires_in: this.tokenLifetime,
      refresh_token: `refresh-${this.serial}`,
    };
    this.accessTokens.add(tokens.access_token);
    this.refreshTokens.add(tokens.refresh_token);
    return tokens;
  }

  /** Changes an instance and tells everybody. */
  change(id: string, change: Partial<Instance>): Instance {
    const index = this.world.instances.findIndex((item) => item.id === id);
    const old = this.world.instances[index];
    if (old === undefined) {
      throw new Error(`no instance ${id}`);
    }
    const item = { ...old, ...change, updated_at: new Date().toISOString() };
    item.state_code = STATE_CODES[item.state];
    this.world.instances[index] = item;
    this.emit(id, item);
    return item;
  }

  /** Forgets a terminated instance, as the server does after an hour. */
  forget(id: string): void {
    this.world.instances = this.world.instances.filter((item) => item.id !== id);
    this.emit(id, null);
  }

  /** Tells everybody that something other than an instance has changed. */
  tell(resource: Exclude<ResourceEvent['resource'], 'instance'>, id: string): void {
    this.serial += 1;
    for (const listener of this.listeners) {
      listener({ type: 'event', seq: this.serial, resource, id, item: null });
    }
  }

  private emit(id: string, item: Instance | null): void {
    this.serial += 1;
    for (const listener of this.listeners) {
      listener({ type: 'event', seq: this.serial, resource: 'instance', id, item });
    }
  }

  /** Answers one request. */
  async handle(request: Request): Promise<Response> {
    if (this.latency > 0) {
      await new Promise((done) => setTimeout(done, this.latency));
    }
    this.serial += 1;
    const requestId = `req-${String(this.serial).padStart(6, '0')}`;
    try {
      const [status, body] = await this.route(request);
      return body === null
        ? new Response(null, { status, headers: { 'x-request-id': requestId } })
        : Response.json(body, { status, headers: { 'x-request-id': requestId } });
    } catch (error) {
      if (!(error instanceof Refusal)) {
        throw error;
      }
      const problem: ProblemBody = {
        type: `urn:gon:problem:${error.code}`,
        title: error.code,
        status: error.status,
        code: error.code,
        detail: error.detail,
        ...(error.field === undefined ? {} : { field: error.field }),
        ...(error.blockers.length === 0 ? {} : { blockers: error.blockers }),
        request_id: requestId,
      };
      return new Response(JSON.stringify(problem), {
        status: error.status,
        headers: { 'content-type': 'application/problem+json', 'x-request-id': requestId },
      });
    }
  }

  private async route(request: Request): Promise<[number, unknown]> {
    const url = new URL(request.url);
    const path = url.pathname.replace(/^\/api\/v1/, '');
    const text = await request.text();
    const body: unknown = text === '' ? undefined : JSON.parse(text);
    this.calls.push({ method: request.method, path: path + url.search, body, headers: request.headers });
    const match = PATTERNS.map(({ route, pattern }) => ({
      route,
      words: pattern.exec(`${request.method} ${path}`),
    })).find(({ words }) => words !== null);
    const route = match?.route;
    const ids = (match?.words?.slice(1) ?? []).map(decodeURIComponent);
    const [id = ''] = ids;

    if (route === 'POST /auth/login') {
      const login = body as LoginRequest;
      if (login.username !== MOCK_LOGIN.username || login.password !== MOCK_LOGIN.password) {
        throw new Refusal(401, 'AuthFailure', 'wrong user name or password');
      }
      return [200, this.grant()];
    }
    if (route === 'POST /auth/refresh') {
      const { refresh_token } = body as { refresh_token: string };
      if (!this.refreshTokens.delete(refresh_token)) {
        throw new Refusal(401, 'AuthFailure', 'the refresh token is not valid');
      }
      return [200, this.grant()];
    }
    const token = request.headers.get('authorization')?.replace(/^Bearer /, '');
    if (!this.acceptsToken(token)) {
      throw new Refusal(401, 'AuthFailure', 'the access token is missing or has expired');
    }
    if (request.method === 'POST' && !path.startsWith('/auth/') && !request.headers.get('idempotency-key')) {
      throw new Refusal(400, 'MissingParameter', 'a POST needs an Idempotency-Key');
    }
    if (isNetworkRoute(route)) {
      return this.network.answer(route, { ids, query: url.searchParams, body });
    }
    if (isLifecycleRoute(route)) {
      const item = makeOrDelete(this.world, route, { ids, query: url.searchParams, body });
      const status = item === null ? 204 : /tach$/.test(route) || route.startsWith('PUT') ? 200 : 201;
      return [status, item && this.network.changed(item)];
    }
    switch (route) {
      case 'POST /auth/logout':
        this.refreshTokens.delete((body as { refresh_token: string }).refresh_token);
        this.accessTokens.delete(token ?? '');
        return [204, null];
      case 'GET /auth/me':
        return [200, ME];
      case 'GET /images':
        return [200, page(this.world.images, url)];
      case 'GET /instance-types':
        return [200, page(this.world.instanceTypes, url)];
      case 'GET /vpcs':
        return [200, page(this.world.vpcs, url)];
      case 'GET /subnets':
        return [200, page(this.world.subnets, url)];
      case 'GET /key-pairs':
        return [200, page(this.world.keyPairs, url)];
      case 'GET /security-groups': {
        const vpc = url.searchParams.get('vpc_id');
        return [
          200,
          page(
            this.world.securityGroups.filter((item) => vpc === null || item.vpc_id === vpc),
            url,
          ),
        ];
      }
      case 'GET /network-acls':
        return [200, page(this.world.networkAcls, url)];
      case 'GET /internet-gateways':
        return [200, page(this.world.internetGateways, url)];
      case 'GET /network-interfaces':
        return [200, page(this.world.networkInterfaces, url)];
      case 'GET /route-tables':
        return [200, page(this.world.routeTables, url)];
      case 'GET /prefix-lists':
        return [200, page(this.world.prefixLists, url)];
      case 'GET /instances':
        return [200, page(this.world.instances, url)];
      case 'POST /instances':
        return [
          202,
          this.launch(body as LaunchInstanceRequest, request.headers.get('idempotency-key') ?? ''),
        ];
      case 'GET /instances/{id}':
        return [200, this.instance(id)];
      case 'DELETE /instances/{id}': {
        const { state } = this.instance(id);
        if (state === 'terminated' || state === 'shutting-down') {
          return [202, this.instance(id)];
        }
        return [202, this.walk(id, 'shutting-down', 'terminated', { public_ip: null })];
      }
      case 'POST /instances/{id}/start':
        this.require(id, 'stopped');
        return [202, this.walk(id, 'pending', 'running', {})];
      case 'POST /instances/{id}/stop':
        this.require(id, 'running');
        return [202, this.walk(id, 'stopping', 'stopped', {})];
      case 'POST /instances/{id}/reboot':
        this.require(id, 'running');
        return [202, this.instance(id)];
      case 'GET /instances/{id}/console-output':
        return [200, this.consoleOutput(this.instance(id))];
      default:
        throw new Refusal(404, 'NotFound', 'there is no such route');
    }
  }

  private instance(id: string): Instance {
    const found = this.world.instances.find((item) => item.id === id);
    if (found === undefined) {
      throw new Refusal(404, 'InvalidInstanceID.NotFound', `the instance ${id} does not exist`);
    }
    return found;
  }

  private require(id: string, state: InstanceState): void {
    const actual = this.instance(id).state;
    if (actual !== state) {
      throw new Refusal(409, 'IncorrectInstanceState', `the instance is ${actual}, not ${state}`);
    }
  }

  /** Enters the passing state at once and the lasting one a moment later. */
  private walk(
    id: string,
    passing: InstanceState,
    lasting: InstanceState,
    change: Partial<Instance>,
  ): Instance {
    const item = this.change(id, { state: passing, generation: this.instance(id).generation + 1 });
    if (this.step !== null) {
      setTimeout(() => {
        if (this.world.instances.some((row) => row.id === id && row.state === passing)) {
          this.change(id, { state: lasting, ...change });
        }
      }, this.step);
    }
    return item;
  }

  private launch(body: LaunchInstanceRequest, key: string): Instance {
    const before = this.launches.get(key);
    if (before !== undefined) {
      if (before.body !== JSON.stringify(body)) {
        throw new Refusal(409, 'IdempotentParameterMismatch', 'the key was used with another body');
      }
      return before.instance;
    }
    if (!body.name || body.name.length > 100 || body.name.trim() !== body.name) {
      throw new Refusal(400, 'InvalidParameterValue', 'a name has 1 to 100 characters', 'name');
    }
    if (this.world.instances.some(({ name, state }) => name === body.name && state !== 'terminated')) {
      throw new Refusal(409, 'InvalidParameterValue', 'the name is taken', 'name');
    }
    const subnet = this.world.subnets.find(({ id }) => id === body.subnet_id);
    if (subnet === undefined) {
      throw new Refusal(400, 'InvalidSubnetID.NotFound', 'the subnet does not exist', 'subnet_id');
    }
    const image = this.world.images.find(({ id }) => id === body.image_id);
    if (image === undefined) {
      throw new Refusal(400, 'InvalidAMIID.NotFound', 'the image does not exist', 'image_id');
    }
    const type = this.world.instanceTypes.find(({ name }) => name === body.instance_type);
    if (type === undefined || type.memory_mib < image.min_memory_mib) {
      throw new Refusal(
        400,
        'InvalidInstanceType',
        'there is no such type, or it is too small',
        'instance_type',
      );
    }
    if (body.key_name && !this.world.keyPairs.some(({ name }) => name === body.key_name)) {
      throw new Refusal(400, 'InvalidKeyPair.NotFound', 'the key pair does not exist', 'key_name');
    }
    const groups = this.world.securityGroups.filter(({ vpc_id }) => vpc_id === subnet.vpc_id);
    const usual = groups.filter(({ is_default }) => is_default).map(({ id }) => id);
    const chosen = body.security_group_ids ?? usual;
    if (chosen.some((id) => !groups.some((group) => group.id === id))) {
      throw new Refusal(400, 'InvalidGroup.NotFound', 'no such group in this VPC', 'security_group_ids');
    }
    const item = instance({
      name: body.name,
      state: 'pending',
      type,
      image,
      subnet,
      groups: chosen,
      key: body.key_name ?? null,
      host: 20 + this.world.instances.length,
      publicIp: body.associate_public_ip ?? subnet.map_public_ip_on_launch,
      age: 0,
    });
    this.world.instances.unshift(item);
    this.launches.set(key, { body: JSON.stringify(body), instance: item });
    this.emit(item.id, item);
    if (this.step !== null) {
      setTimeout(() => {
        if (this.world.instances.some(({ id, state }) => id === item.id && state === 'pending')) {
          this.change(item.id, { state: 'running', launched_at: new Date().toISOString() });
        }
      }, this.step);
    }
    return item;
  }

  private consoleOutput({ name, state }: Instance): ConsoleOutput {
    const text =
      state === 'pending'
        ? ''
        : [
            '[    0.000000] Linux version 6.1.0-41-cloud-amd64 (debian-kernel@lists.debian.org)',
            '[    0.000000] Command line: console=ttyS0 quiet',
            '[    0.412907] Run /init as init process',
            '\u001b[0;32m[  OK  ]\u001b[0m network: lease of 10.0.1.10/24, router 10.0.1.1, mtu 1500',
            `\u001b[0;32m[  OK  ]\u001b[0m metadata: hostname ${name}`,
            '\u001b[0;32m[  OK  ]\u001b[0m ssh: host key SHA256:2Yv1k7mJqz0Wc8n3',
            'gon-linux ready after 1.61 s',
            '',
            `${name} login: `,
          ].join('\r\n');
    return { output: toBase64(text), timestamp: new Date().toISOString() };
  }
}

function page<T>(items: T[], url: URL): Page<T> {
  const limit = Number(url.searchParams.get('limit') ?? 100);
  const start = Number(url.searchParams.get('cursor') ?? 0);
  const end = start + limit;
  return { items: items.slice(start, end), next_cursor: end < items.length ? String(end) : null };
}
