/** Languages: English and Korean, the browser's by default. Each is a chunk of its own with antd's texts for it. */
import type { Locale } from 'antd/es/locale';
import i18next, { type i18n } from 'i18next';
import { initReactI18next } from 'react-i18next';
import type { Texts } from './en';

export const LANGUAGES = { en: 'English', ko: '한국어' } as const;
export type Language = keyof typeof LANGUAGES;
const LANGUAGE_KEY = 'gon.language';

declare module 'i18next' {
  interface CustomTypeOptions {
    defaultNS: 'translation';
    resources: { translation: Texts };
  }
}

const antdLocales: Partial<Record<Language, Locale>> = {};

async function load(language: Language): Promise<void> {
  if (antdLocales[language] !== undefined) {
    return;
  }
  const [texts, locale] =
    language === 'ko'
      ? await Promise.all([import('./ko').then((m) => m.ko), import('antd/es/locale/ko_KR')])
      : await Promise.all([import('./en').then((m) => m.en), import('antd/es/locale/en_US')]);
  i18next.addResourceBundle(language, 'translation', texts);
  antdLocales[language] = locale.default;
}

function isLanguage(value: string | null | undefined): value is Language {
  return value === 'en' || value === 'ko';
}

/** The remembered language, else the first of the browser's that we have, else English. */
export function preferredLanguage(): Language {
  const remembered = localStorage.getItem(LANGUAGE_KEY);
  if (isLanguage(remembered)) {
    return remembered;
  }
  return navigator.languages.map((tag) => tag.split('-')[0]).find(isLanguage) ?? 'en';
}

async function activate(language: Language): Promise<void> {
  await load(language);
  await i18next.changeLanguage(language);
  document.documentElement.lang = language;
}

/** Switches the language and remembers it. */
export async function chooseLanguage(language: Language): Promise<void> {
  localStorage.setItem(LANGUAGE_KEY, language);
  await activate(language);
}

/** To be awaited before the first render: no text ever appears as a key. */
export async function startI18n(language: Language = preferredLanguage()): Promise<i18n> {
  if (!i18next.isInitialized) {
    await i18next.use(initReactI18next).init({
      fallbackLng: false,
      resources: {},
      // React escapes.
      interpolation: { escapeValue: false },
    });
  }
  await activate(language);
  return i18next;
}

export function currentLanguage(): Language {
  return isLanguage(i18next.language) ? i18next.language : 'en';
}

/** antd's own texts for a language that is active. */
export function antdLocale(language: Language): Locale | undefined {
  return antdLocales[language];
}
