/** The in-memory cloud for msw: REST and the event socket. */
import { http, type RequestHandler, type WebSocketHandler, ws } from 'msw';
import type { MockCloud } from './cloud';

const SOCKET = ws.link('ws://*/api/v1/ws');

export function handlersFor(cloud: MockCloud): (RequestHandler | WebSocketHandler)[] {
  return [
    http.all('*/api/v1/*', ({ request }) => cloud.handle(request)),
    SOCKET.addEventListener('connection', ({ client }) => {
      if (cloud.refusesSockets) {
        client.close(1013, 'try again later');
        return;
      }
      let stop = () => {};
      client.addEventListener('message', ({ data }) => {
        const message = JSON.parse(String(data)) as { type: string; token?: string };
        if (message.type !== 'auth' || !cloud.acceptsToken(message.token)) {
          client.close(4401, 'unauthorized');
          return;
        }
        client.send(JSON.stringify({ type: 'ready' }));
        stop = cloud.subscribe((event) => client.send(JSON.stringify(event)));
      });
      client.addEventListener('close', () => stop());
    }),
  ];
}

/** The open sockets, so that a test can cut them. */
export function openSockets() {
  return SOCKET.clients;
}
