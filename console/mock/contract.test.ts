import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { ROUTES } from './cloud';

it('the in-memory cloud answers only what the contract has', () => {
  const contract = JSON.parse(readFileSync('../openapi/gon-v1.json', 'utf8')) as {
    paths: Record<string, Record<string, unknown>>;
  };
  const known = Object.entries(contract.paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method.toUpperCase()} ${path.replace(/^\/api\/v1/, '')}`),
  );
  expect(ROUTES.filter((route) => !known.includes(route))).toEqual([]);
});
