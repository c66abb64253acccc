import type { Image, Instance } from '../../api/types';
import { shellQuote } from '../../util/curl';

/** The login when an image does not name one. */
export const FALLBACK_USER = 'root';

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
  const user = image?.default_user || FALLBACK_USER;
  const keyFile = `${instance.key_name}.pem`;
  const command = `ssh -i ${shellQuote(keyFile)} ${shellQuote(`${user}@${instance.public_ip}`)}`;
  return { possible: true, command, user, keyFile };
}
