/** Questions to whoever sits at the terminal, and what comes on standard input. */
import { createInterface } from 'node:readline/promises';
import { Writable } from 'node:stream';
import { LaminaError } from '../errors.js';

export interface Terminal {
  readonly stdin: NodeJS.ReadStream;
  readonly stderr: NodeJS.WriteStream;
}

/** One line, without its end. `hidden`: what is typed does not show. Throws USAGE where nobody answers. */
export async function ask({ stdin, stderr }: Terminal, question: string, hidden: boolean): Promise<string> {
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
  const lines = createInterface({ input: stdin, output: hidden ? nowhere : stderr, terminal: true });
  if (hidden) stderr.write(question);
  try {
    const ended = new Promise<never>((_, reject) => {
      const stop = (): void => reject(new LaminaError('USAGE', 'There was no answer'));
      lines.once('SIGINT', stop);
      lines.once('close', stop);
    });
    return await Promise.race([lines.question(hidden ? '' : question), ended]);
  } finally {
    lines.close();
    if (hidden) stderr.write('\n');
  }
}

const PASSWORD_LIMIT = 64 * 1024;

/** A password from standard input, without the end of its line. Throws LIMIT_EXCEEDED. */
export async function readPassword(stdin: NodeJS.ReadStream): Promise<string> {
  let text = '';
  for await (const part of stdin.setEncoding('utf8') as AsyncIterable<string>) {
    text += part;
    if (text.length > PASSWORD_LIMIT) throw new LaminaError('LIMIT_EXCEEDED', 'The password is too long');
  }
  return text.replace(/\r?\n$/, '');
}
