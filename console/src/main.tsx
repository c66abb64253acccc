import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { App } from './App';
import './app.css';
import { startI18n } from './i18n';
import { makeRouter } from './routes';
import { followWindow, makeStore } from './store';

// After an upgrade of the server the chunks of the old console are gone. Load the new one, but never in a loop.
const RELOADED_KEY = 'gon.reloaded_at';
window.addEventListener('vite:preloadError', (event) => {
  const last = Number(sessionStorage.getItem(RELOADED_KEY) ?? 0);
  if (Date.now() - last > 60_000) {
    event.preventDefault();
    sessionStorage.setItem(RELOADED_KEY, String(Date.now()));
    window.location.reload();
  }
});

const root = document.getElementById('root');
if (root !== null) {
  void startI18n().then(() => {
    const store = makeStore();
    followWindow(store);
    createRoot(root).render(
      <StrictMode>
        <App store={store} router={makeRouter()} />
      </StrictMode>,
    );
  });
}
