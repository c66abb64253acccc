/**
 * The in-memory cloud behind Vite's dev and preview servers (`--mode mock`): REST below /api/v1, the event socket, and,
 * in the preview, the headers the real server sends, so that a violation of the policy shows here first.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import type { Connect, Plugin, PreviewServer, ViteDevServer } from 'vite';
import { WebSocketServer } from 'ws';
import { MockCloud } from './cloud.ts';
import { fillWorld } from './seed.ts';

/** README, "Security". */
export const CONTENT_SECURITY_POLICY = [
  "default-src 'self'",
  "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data:",
  "object-src 'none'",
  "base-uri 'none'",
  "form-action 'self'",
  "frame-ancestors 'none'",
].join('; ');

async function toRequest(incoming: IncomingMessage): Promise<Request> {
  const chunks: Buffer[] = [];
  for await (const chunk of incoming) {
    chunks.push(chunk as Buffer);
  }
  const headers = new Headers();
  for (const [name, value] of Object.entries(incoming.headers)) {
    if (typeof value === 'string') {
      headers.set(name, value);
    }
  }
  const method = incoming.method ?? 'GET';
  const url = `http://${incoming.headers.host ?? 'localhost'}${incoming.url ?? '/'}`;
  return new Request(url, { method, headers, body: chunks.length === 0 ? null : Buffer.concat(chunks) });
}

function restMiddleware(cloud: MockCloud): Connect.NextHandleFunction {
  return (incoming: IncomingMessage, outgoing: ServerResponse, next: Connect.NextFunction) => {
    if (!incoming.url?.startsWith('/api/v1/')) {
      next();
      return;
    }
    toRequest(incoming)
      .then((request) => cloud.handle(request))
      .then(async (response) => {
        outgoing.writeHead(response.status, Object.fromEntries(response.headers));
        outgoing.end(Buffer.from(await response.arrayBuffer()));
      })
      .catch(next);
  };
}

function eventSocket(
  cloud: MockCloud,
  server: ViteDevServer['httpServer'] | PreviewServer['httpServer'],
): void {
  const sockets = new WebSocketServer({ noServer: true });
  server?.on('upgrade', (request: IncomingMessage, stream: Duplex, head: Buffer) => {
    if (request.url !== '/api/v1/ws') {
      return;
    }
    sockets.handleUpgrade(request, stream, head, (socket) => {
      let stop = () => {};
      socket.on('message', (data) => {
        const message = JSON.parse(String(data)) as { type: string; token?: string };
        if (message.type !== 'auth' || !cloud.acceptsToken(message.token)) {
          socket.close(4401, 'unauthorized');
          return;
        }
        socket.send(JSON.stringify({ type: 'ready' }));
        stop = cloud.subscribe((event) => socket.send(JSON.stringify(event)));
      });
      socket.on('close', () => stop());
    });
  });
}

export function mockCloudPlugin(): Plugin {
  const cloud = new MockCloud({ latency: 40 });
  // For a look at a large cloud: GON_MOCK_INSTANCES=10000 npm run dev:mock
  fillWorld(cloud.world, Number(process.env.GON_MOCK_INSTANCES ?? 0));
  return {
    name: 'gon-mock-cloud',
    configureServer(server) {
      server.middlewares.use(restMiddleware(cloud));
      eventSocket(cloud, server.httpServer);
    },
    configurePreviewServer(server) {
      server.middlewares.use((_request, response, next) => {
        response.setHeader('Content-Security-Policy', CONTENT_SECURITY_POLICY);
        response.setHeader('X-Content-Type-Options', 'nosniff');
        next();
      });
      server.middlewares.use(restMiddleware(cloud));
      eventSocket(cloud, server.httpServer);
    },
  };
}
