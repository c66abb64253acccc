import react from '@vitejs/plugin-react';
import { defineConfig } from 'vitest/config';
import { mockCloudPlugin } from './mock/vitePlugin.ts';

/** Where `npm run dev` finds the API. */
const SERVER = process.env.GON_URL ?? 'http://127.0.0.1:8080';

export default defineConfig(({ mode }) => ({
  plugins: [react(), ...(mode === 'mock' ? [mockCloudPlugin()] : [])],
  server: { port: 5173, proxy: mode === 'mock' ? undefined : { '/api': { target: SERVER, ws: true } } },
  preview: { port: 4173 },
  build: {
    target: 'es2022',
    // The policy forbids data: scripts and fonts; everything is a file.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 700,
    reportCompressedSize: true,
  },
  test: {
    environment: 'jsdom',
    environmentOptions: { jsdom: { url: 'http://console.test/' } },
    include: ['src/**/*.test.{ts,tsx}', 'mock/**/*.test.ts'],
    setupFiles: ['test/setup.ts'],
    testTimeout: 90_000,
    // In NODE_ENV "test" antd gives every element the same id, and labels no longer find what they name.
    env: { DEBUG_PRINT_LIMIT: '0', NODE_ENV: 'development' },
    restoreMocks: true,
    maxWorkers: 2,
  },
}));
