import { describe, expect, it, vi } from 'vitest';
import { en } from './en';
import { preferredLanguage } from './index';
import { ko } from './ko';

function flatten(texts: object, prefix = ''): Map<string, string> {
  return new Map(
    Object.entries(texts).flatMap(([key, value]) =>
      typeof value === 'string' ? [[prefix + key, value]] : [...flatten(value, `${prefix}${key}.`)],
    ),
  );
}
const placeholders = (text: string) => [...text.matchAll(/\{\{(\w+)\}\}/g)].map(([, name]) => name).sort();

describe('the languages', () => {
  const english = flatten(en);
  const korean = flatten(ko);

  it('have the same keys', () => {
    expect([...korean.keys()].sort()).toEqual([...english.keys()].sort());
  });

  it('have no empty text and the same placeholders', () => {
    for (const [key, text] of english) {
      const other = korean.get(key) ?? '';
      expect(text.trim(), key).not.toBe('');
      expect(other.trim(), key).not.toBe('');
      expect(placeholders(other), key).toEqual(placeholders(text));
    }
  });

  it('are translated: only names and abbreviations are the same in both', () => {
    const same = [...english].filter(([key, text]) => korean.get(key) === text).map(([key]) => key);
    expect(same.sort()).toEqual([
      'api.button',
      'app.name',
      'common.id',
      'common.uuid',
      'common.vpc',
      'instances.changed',
    ]);
  });

  it('follow the browser unless one was chosen', () => {
    const languages = vi.spyOn(navigator, 'languages', 'get');
    languages.mockReturnValue(['fr-FR', 'ko-KR', 'en-US']);
    expect(preferredLanguage()).toBe('ko');
    languages.mockReturnValue(['fr-FR']);
    expect(preferredLanguage()).toBe('en');
    localStorage.setItem('gon.language', 'ko');
    expect(preferredLanguage()).toBe('ko');
  });
});
