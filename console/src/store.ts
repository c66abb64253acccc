/** The Redux store: RTK Query holds what the server says; the slices hold session, theme and socket state only. */
import { combineReducers, configureStore } from '@reduxjs/toolkit';
import { setupListeners } from '@reduxjs/toolkit/query';
import { type TypedUseSelectorHook, useDispatch, useSelector } from 'react-redux';
import { api } from './api';
import { liveReducer, replayMiddleware } from './api/events';
import { sessionReducer } from './api/session';
import { preferencesReducer } from './preferences';

const rootReducer = combineReducers({
  [api.reducerPath]: api.reducer,
  session: sessionReducer,
  live: liveReducer,
  preferences: preferencesReducer,
});

export function makeStore() {
  return configureStore({
    reducer: rootReducer,
    // A list of a thousand rows is no reason for a warning of the checks that run in development.
    middleware: (defaults) =>
      defaults({ immutableCheck: { warnAfter: 1000 }, serializableCheck: { warnAfter: 1000 } })
        .prepend(replayMiddleware)
        .concat(api.middleware),
    devTools: import.meta.env.DEV,
  });
}

export type AppStore = ReturnType<typeof makeStore>;

/**
 * Tells the store when somebody looks at the window: what is shown is read again then, and on no timer while nobody
 * does. Until the returned function is called.
 */
export function followWindow(store: AppStore): () => void {
  return setupListeners(store.dispatch);
}
export type RootState = ReturnType<typeof rootReducer>;
export type AppDispatch = AppStore['dispatch'];
export const useAppDispatch: () => AppDispatch = useDispatch;
export const useAppSelector: TypedUseSelectorHook<RootState> = useSelector;
