/** The daemon as the commands use it. */
import { readlinkSync } from 'node:fs';
import { DaemonClient } from '../daemon/client.js';
import { ensureDaemon } from '../daemon/launch.js';
import type { MountRequestInput, MountStatus, PrepareEvent } from '../daemon/protocol.js';
import { LaminaError } from '../errors.js';
import type { Context } from './context.js';

/** Mounts, with progress and warnings on stderr. Aborting `signal` undoes it. Throws what the daemon says. */
export async function mountVisibly(
  context: Context,
  daemon: DaemonClient,
  request: MountRequestInput,
  signal: AbortSignal,
): Promise<MountStatus> {
  const mounted = await visibly(context, (onEvent) => daemon.mount(request, onEvent, signal));
  // The signal may have come with the answer.
  if (signal.aborted) await daemon.unmount(mounted.id, { lazy: true });
  return mounted;
}

/** Shows on stderr what the daemon says while it prepares an image. */
export async function visibly<T>(
  context: Context,
  act: (onEvent: (event: PrepareEvent) => void) => Promise<T>,
): Promise<T> {
  const progress = context.progress();
  try {
    return await act((event) => {
      if (event.type === 'progress') progress.onProgress(event.event);
      else context.out.warn(event.message);
    });
  } finally {
    progress.end();
  }
}

/** The running daemon, started where none runs. Its store is its own: another that the user has named is said to be ignored. */
export async function startedDaemon(context: Context): Promise<DaemonClient> {
  const daemon = await ensureDaemon({ run: context.run, store: context.store });
  if (context.storeChosen && daemon.store !== context.store)
    context.out.warn(`the daemon that runs already uses the store ${daemon.store}`);
  return daemon;
}

/** The running daemon; undefined where none runs. */
export function findDaemon(context: Context): Promise<DaemonClient | undefined> {
  return DaemonClient.connect(context.run);
}

/** Throws DAEMON_UNREACHABLE where none runs. */
export async function requireDaemon(context: Context): Promise<DaemonClient> {
  const daemon = await findDaemon(context);
  if (daemon !== undefined) return daemon;
  throw new LaminaError('DAEMON_UNREACHABLE', `No daemon runs with the run directory ${context.run}`, {
    hint: 'It starts with the first mount, or with `lamina daemon start`.',
  });
}

/** Whether what the daemon mounts is seen by this process; true where that cannot be found out. */
export async function sharesMountNamespace(context: Context): Promise<boolean> {
  const status = await (await requireDaemon(context)).status();
  try {
    return readlinkSync('/proc/self/ns/mnt') === readlinkSync(`/proc/${status.serverPid}/ns/mnt`);
  } catch {
    return true;
  }
}
