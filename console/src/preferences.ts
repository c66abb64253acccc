/** What this browser remembers about how the console looks. */
import { createSlice, type PayloadAction } from '@reduxjs/toolkit';

export type ThemeChoice = 'system' | 'light' | 'dark';
const THEME_KEY = 'gon.theme';

function storedTheme(): ThemeChoice {
  const stored = localStorage.getItem(THEME_KEY);
  return stored === 'light' || stored === 'dark' ? stored : 'system';
}

const preferences = createSlice({
  name: 'preferences',
  initialState: () => ({ theme: storedTheme() }),
  reducers: {
    themeChosen: (state, { payload }: PayloadAction<ThemeChoice>) => {
      state.theme = payload;
    },
  },
});

export const preferencesReducer = preferences.reducer;

/** Sets the theme and remembers it. */
export function chooseTheme(theme: ThemeChoice): ReturnType<typeof preferences.actions.themeChosen> {
  localStorage.setItem(THEME_KEY, theme);
  return preferences.actions.themeChosen(theme);
}
