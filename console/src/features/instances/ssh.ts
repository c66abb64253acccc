import type { Image, Instance } from '../../api/types';
import { shellQuote } from '../../util/curl';

/** Whose SSH daemon expects another login than root, by the beginning of the image's name. Debian's EC2 images: admin. */
const LOGINS: readonly (readonly [name: string, login: string])[] = [
  ['debian', 'admin'],
  ['ubuntu', 'ubuntu'],
  ['fedora', 'fedora'],
];

/** The login that cloud images of this name use; root where nothing else is known (`gon-linux`). */
function usualLogin(image: Image | undefined): string {
  return LOGINS.find(([name]) => image?.name.startsWith(name))?.[1] ?? 'root';
}

export type SshHint =
  | { possible: true; command: string; user: string; keyFile: string }
  | { possible: false; reason: 'sshNotRunning' | 'sshNoAddress' | 'sshNoKey' };

/** The command line that logs in, or why there is none. Names are quoted: they come from people. */
export function sshHint(instance: Instance, image: Image | undefined): SshHint {
  if (instance.state !== 'running') {
    return { possible: false, reason: 'sshNotRunning' };
  }
  if (!instance.public_ip) {
    return { possible: false, reason: 'sshNoAddress' };
  }
  if (!instance.key_name) {
    return { possible: false, reason: 'sshNoKey' };
  }
  const user = usualLogin(image);
  const keyFile = `${instance.key_name}.pem`;
  const command = `ssh -i ${shellQuote(keyFile)} ${shellQuote(`${user}@${instance.public_ip}`)}`;
  return { possible: true, command, user, keyFile };
}
