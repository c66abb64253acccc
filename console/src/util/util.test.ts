import { describe, expect, it } from 'vitest';
import { shellQuote, toCurl } from './curl';
import { fromBase64, plainTerminalText, toBase64, utf8Length } from './text';
import { agoText } from './time';
import { memoryText } from './units';
import { randomUuid } from './uuid';

describe('text', () => {
  it('travels through base64 as UTF-8', () => {
    expect(fromBase64(toBase64('한글 ✓'))).toBe('한글 ✓');
    expect(toBase64('한글')).toBe('7ZWc6riA');
    expect(fromBase64('%%%')).toBeNull();
    expect(fromBase64(btoa('\xff\xfe'))).toBe('\ufffd\ufffd');
    expect(utf8Length('한글')).toBe(6);
  });

  it('of a terminal loses everything that moves or colours', () => {
    expect(plainTerminalText('\u001b[0;32m[  OK  ]\u001b[0m up\r\n')).toBe('[  OK  ] up\n');
    expect(plainTerminalText('\u001b]0;title\u0007a\u001b[2J\u001b[Hb\u0000c\td')).toBe('abc\td');
    expect(plainTerminalText('\u001b(B\u001bcx')).toBe('x');
  });
});

describe('curl', () => {
  it('quotes for a shell', () => {
    expect(shellQuote('plain-1.2:/x')).toBe('plain-1.2:/x');
    expect(shellQuote("a'b; rm -rf $HOME")).toBe(`'a'\\''b; rm -rf $HOME'`);
  });

  it('never holds a token, and a key only where one is needed', () => {
    const get = toCurl('https://gon.example', { method: 'GET', path: '/vpcs' });
    expect(get).toBe(`curl -sS https://gon.example/api/v1/vpcs \\\n  -H "Authorization: Bearer $GON_TOKEN"`);
    const post = toCurl('https://gon.example', {
      method: 'POST',
      path: '/instances',
      body: { name: "it's" },
    });
    expect(post).toContain('-H "Idempotency-Key: $(uuidgen)"');
    expect(post).toContain(`-d '{\n  "name": "it'\\''s"\n}'`);
  });
});

describe('time and units', () => {
  it('are said in one unit and in the language asked for', () => {
    expect(agoText(0, 59_000, 'en')).toBe('59 seconds ago');
    expect(agoText(0, 60_000, 'en')).toBe('1 minute ago');
    expect(agoText(0, 23 * 3_600_000, 'ko')).toBe('23시간 전');
    expect(agoText(0, 0, 'en')).toBe('now');
    expect([128, 1024, 1536].map(memoryText)).toEqual(['128 MiB', '1 GiB', '1.5 GiB']);
  });
});

describe('uuid', () => {
  it('is one, also where the page is not a secure context', () => {
    const { randomUUID } = crypto;
    Object.defineProperty(crypto, 'randomUUID', { value: undefined, configurable: true });
    const made = randomUuid();
    Object.defineProperty(crypto, 'randomUUID', { value: randomUUID, configurable: true });
    for (const id of [made, randomUuid()]) {
      expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    }
  });
});
