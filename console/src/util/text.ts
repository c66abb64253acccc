/** Base64 of the UTF-8 bytes of a text. */
export function toBase64(text: string): string {
  let binary = '';
  for (const byte of new TextEncoder().encode(text)) {
    binary += String.fromCharCode(byte);
  }
  return btoa(binary);
}

/** The UTF-8 text in a base64 string; bytes that are no UTF-8 become U+FFFD. Null if it is not base64. */
export function fromBase64(base64: string): string | null {
  try {
    const binary = atob(base64);
    return new TextDecoder().decode(Uint8Array.from(binary, (char) => char.charCodeAt(0)));
  } catch {
    return null;
  }
}

/** How many bytes a text has in UTF-8. */
export function utf8Length(text: string): number {
  return new TextEncoder().encode(text).length;
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: terminal sequences begin with a control character.
const ESCAPES = /\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[ -/]*[0-~])/g;
// biome-ignore lint/suspicious/noControlCharactersInRegex: every control character but tab and line feed.
const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f]/g;

/** A serial console's bytes as plain lines: no colours, no cursor movement, no carriage returns. */
export function plainTerminalText(raw: string): string {
  return raw.replace(ESCAPES, '').replace(/\r+\n/g, '\n').replace(CONTROLS, '');
}
