/** What the in-memory cloud says no with: a problem as the server words it. */
export class Refusal extends Error {
  readonly status: number;
  readonly code: string;
  readonly detail: string;
  readonly field: string | undefined;
  readonly blockers: string[];

  constructor(status: number, code: string, detail: string, field?: string, blockers: string[] = []) {
    super(detail);
    this.status = status;
    this.code = code;
    this.detail = detail;
    this.field = field;
    this.blockers = blockers;
  }
}

/** What was looked for, or a refusal with EC2's code for that kind of thing. */
export function found<T>(item: T | undefined, kind: string, id: string): T {
  if (item === undefined) {
    throw new Refusal(404, `Invalid${kind}.NotFound`, `${id} does not exist`);
  }
  return item;
}
