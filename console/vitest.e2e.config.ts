import { defineConfig } from 'vitest/config';

/** What runs in a real browser against a server that is already there; see e2e/. */
export default defineConfig({
  test: {
    environment: 'node',
    include: ['e2e/**/*.e2e.ts'],
    testTimeout: 300_000,
    hookTimeout: 60_000,
    fileParallelism: false,
  },
});
