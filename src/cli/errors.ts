/** How a command that failed says so: "lamina: message" and a hint on stderr, or one JSON object there, and the exit code. */
import { CommanderError } from 'commander';
import { LaminaError, exitCodes, toLaminaError } from '../errors.js';
import { paint, wantsColor, OutputClosed } from './output.js';
import { Interrupted } from './signals.js';
import { escapeControls } from './text.js';

/** Printed already, or nothing to say: only the exit code is left. */
export class Exit extends Error {
  override readonly name = 'Exit';
  readonly code: number;

  constructor(code: number) {
    super(`exit ${code}`);
    this.code = code;
  }
}

export interface ReportOptions {
  readonly json: boolean;
  readonly stderr: NodeJS.WriteStream;
  readonly env: NodeJS.ProcessEnv;
}

/** Prints what there is to print about `e` and returns the exit code. */
export function report(e: unknown, options: ReportOptions): number {
  if (e instanceof Exit) return e.code;
  if (e instanceof OutputClosed) return 0;
  if (e instanceof Interrupted) return e.exitCode;
  if (e instanceof CommanderError && e.exitCode === 0) return 0;
  // commander has printed the help already
  if (e instanceof CommanderError && e.code === 'commander.help') return exitCodes.USAGE;
  const error = e instanceof CommanderError ? usageError(e) : toLaminaError(e);
  printError(error, options);
  if (error.code === 'INTERNAL' && options.env['LAMINA_DEBUG'] !== undefined)
    options.stderr.write(`${error.stack ?? ''}\n`);
  return error.exitCode;
}

export function printError(error: LaminaError, { json, stderr, env }: ReportOptions): void {
  if (json) {
    stderr.write(`${JSON.stringify({ error: error.toJSON() })}\n`);
    return;
  }
  stderr.write(`${paint(wantsColor(stderr, env), 'red', 'lamina:')} ${escapeLines(error.message)}\n`);
  if (error.hint !== undefined) stderr.write(`${escapeLines(error.hint)}\n`);
}

function escapeLines(text: string): string {
  return text.split('\n').map(escapeControls).join('\n');
}

function usageError(e: CommanderError): LaminaError {
  const message = e.message.replace(/^error: /, '');
  return new LaminaError('USAGE', message.charAt(0).toUpperCase() + message.slice(1), {
    hint: 'See `lamina help`, or `lamina help COMMAND`.',
  });
}
