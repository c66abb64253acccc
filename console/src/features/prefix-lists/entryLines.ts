import type { PrefixListEntry } from '../../api/types';

/** Entries from a text: one in each line, the block first and after a space what it is for. */
export function entriesOf(text: string): PrefixListEntry[] {
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '')
    .map((line) => {
      const [cidr = '', ...words] = line.split(/\s+/);
      return { cidr, ...(words.length > 0 ? { description: words.join(' ') } : {}) };
    });
}
