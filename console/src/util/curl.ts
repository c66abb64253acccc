/** One REST call, as a person would make it from a shell. */
export interface RestCall {
  method: 'GET' | 'POST' | 'PUT' | 'DELETE';
  /** Below `/api/v1`, with the leading slash. */
  path: string;
  body?: unknown;
}

/** Quotes a word for a POSIX shell. */
export function shellQuote(word: string): string {
  return /^[A-Za-z0-9_./:=@%+-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

/** The curl command for a call. The token is left to the environment: a snippet gets pasted into tickets. */
export function toCurl(origin: string, call: RestCall): string {
  const lines = [
    `curl -sS ${call.method === 'GET' ? '' : `-X ${call.method} `}${shellQuote(`${origin}/api/v1${call.path}`)}`,
  ];
  lines.push(`-H "Authorization: Bearer $GON_TOKEN"`);
  if (call.method === 'POST') {
    lines.push(`-H "Idempotency-Key: $(uuidgen)"`);
  }
  if (call.body !== undefined) {
    lines.push(`-H 'Content-Type: application/json'`, `-d ${shellQuote(JSON.stringify(call.body, null, 2))}`);
  }
  return lines.join(' \\\n  ');
}
