/** Other programs that tests compare with. */
import { execFileSync } from 'node:child_process';

/** Whether a command is in PATH. */
export function commandExists(name: string): boolean {
  try {
    execFileSync('sh', ['-c', 'command -v -- "$1"', 'sh', name], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}
