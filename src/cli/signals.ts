/**
 * Commands that leave something behind when they are killed (a half-made bundle, a mount) run inside
 * {@link interruptible}: the first SIGINT, SIGTERM or SIGHUP aborts them, so that they clean up; a second one, later, ends
 * the process. Everywhere else the signals do what they always do.
 */
import { constants } from 'node:os';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** timeout(1) and others signal a process and its group, which is one signal meant and two sent. */
const SECOND_SIGNAL_MS = 500;

/** Thrown into a command that a signal has ended. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted';
  readonly signal: NodeJS.Signals;

  constructor(signal: NodeJS.Signals) {
    super(`interrupted by ${signal}`);
    this.signal = signal;
  }

  /** As shells count: 130 for SIGINT. */
  get exitCode(): number {
    return signalExitCode(this.signal);
  }
}

export function signalExitCode(signal: NodeJS.Signals): number {
  return 128 + constants.signals[signal];
}

/** Throws Interrupted when a signal came, whatever `body` made of its abort. */
export async function interruptible<T>(body: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  let since = Infinity;
  const onSignal = (signal: NodeJS.Signals): void => {
    if (performance.now() - since > SECOND_SIGNAL_MS) process.exit(signalExitCode(signal));
    since = Math.min(since, performance.now());
    controller.abort(new Interrupted(signal));
  };
  for (const signal of SIGNALS) process.on(signal, onSignal);
  try {
    const result = await body(controller.signal);
    controller.signal.throwIfAborted();
    return result;
  } catch (e) {
    controller.signal.throwIfAborted();
    throw e;
  } finally {
    for (const signal of SIGNALS) process.off(signal, onSignal);
  }
}

/** Lets signals and timers have their turn in a long computation. */
export function breathe(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
