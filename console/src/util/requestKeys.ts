import { randomUuid } from './uuid';

/**
 * Keys for `Idempotency-Key`: the same body gets the same key until it has succeeded, so sending it again after a lost
 * answer does not make another one.
 */
export class RequestKeys {
  private body = '';
  private key = '';

  keyFor(request: unknown): string {
    const body = JSON.stringify(request);
    if (body !== this.body) {
      this.body = body;
      this.key = randomUuid();
    }
    return this.key;
  }
}
