/**
 * Programs that keep passwords (github.com/docker/docker-credential-helpers): `docker-credential-NAME get|store|erase`,
 * which read a host or JSON from standard input and answer in JSON.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { z } from 'zod';
import { LaminaError } from '../../errors.js';
import { parseJson } from '../../oci/json.js';
import type { Credentials } from './credentials.js';
import { oneLine } from './failures.js';
import { Secret } from './secret.js';

/** Milliseconds: some ask a service on the network, or the user. */
const DEADLINE_MS = 60_000;
const ANSWER_LIMIT = 1024 * 1024;

const answerSchema = z.object({ Username: z.string().nullish(), Secret: z.string() });

/** The user name by which a helper says that the secret is an identity token. */
const TOKEN_USER = '<token>';

/** Undefined where the helper has none for `server`. Throws REGISTRY_AUTH where it cannot be run, fails or is late. */
export async function getFromHelper(
  name: string,
  server: string,
  env: NodeJS.ProcessEnv,
  deadlineMs = DEADLINE_MS,
): Promise<Credentials | undefined> {
  const { code, stdout } = await runHelper(name, 'get', server, env, deadlineMs);
  if (code !== 0) {
    // The protocol has no other way to say so (credentials/error.go).
    if (/credentials not found/i.test(stdout)) return undefined;
    throw failed(name, 'get', server, stdout);
  }
  const document = {
    what: `the answer of docker-credential-${name}`,
    code: 'REGISTRY_AUTH',
    limit: ANSWER_LIMIT,
  } as const;
  const answer = parseJson(Buffer.from(stdout), answerSchema, document);
  const secret = new Secret(answer.Secret);
  if (answer.Username === TOKEN_USER) return { kind: 'identity', token: secret };
  return answer.Secret === '' ? undefined : { kind: 'password', username: answer.Username ?? '', password: secret };
}

/** Throws REGISTRY_AUTH. */
export async function storeInHelper(
  name: string,
  server: string,
  { username, password }: Extract<Credentials, { kind: 'password' }>,
  env: NodeJS.ProcessEnv,
): Promise<void> {
  const input = JSON.stringify({ ServerURL: server, Username: username, Secret: password.reveal() });
  const { code } = await runHelper(name, 'store', input, env);
  // What it prints is not shown: it has just read a password.
  if (code !== 0) throw failed(name, 'store', server, '');
}

/** Throws REGISTRY_AUTH. */
export async function eraseFromHelper(name: string, server: string, env: NodeJS.ProcessEnv): Promise<void> {
  const { code, stdout } = await runHelper(name, 'erase', server, env);
  if (code !== 0 && !/credentials not found/i.test(stdout)) throw failed(name, 'erase', server, stdout);
}

function runHelper(
  name: string,
  verb: 'get' | 'store' | 'erase',
  input: string,
  env: NodeJS.ProcessEnv,
  deadlineMs = DEADLINE_MS,
): Promise<{ code: number; stdout: string }> {
  const program = `docker-credential-${name}`;
  if (!/^[\w.-]+$/.test(name)) {
    throw new LaminaError('CONFIG_INVALID', `${JSON.stringify(name.slice(0, 100))} is no name of a credential helper`);
  }
  return new Promise((resolve, reject) => {
    // A group of its own: many are scripts, which leave a child that holds the pipes when they alone are killed.
    const child = spawn(program, [verb], { env, stdio: ['pipe', 'pipe', 'ignore'], detached: true });
    const giveUp = (why: string): void => {
      clearTimeout(deadline);
      killGroup(child);
      child.stdin.destroy();
      child.stdout.destroy();
      reject(new LaminaError('REGISTRY_AUTH', `The credential helper ${program} ${why} (${verb})`));
    };
    // Not spawn's own `timeout`: Node 20 leaves its timer running where the program is not there.
    const deadline = setTimeout(() => giveUp(`has not answered in ${deadlineMs / 1000} s`), deadlineMs);
    const parts: Buffer[] = [];
    let size = 0;
    child.stdout.on('data', (bytes: Buffer) => {
      size += bytes.length;
      if (size > ANSWER_LIMIT) giveUp(`answers with more than ${ANSWER_LIMIT} bytes`);
      else parts.push(bytes);
    });
    // It may end without reading.
    child.stdin.on('error', () => undefined);
    child.stdin.end(input);
    child.once('error', (e) => {
      clearTimeout(deadline);
      reject(
        new LaminaError('REGISTRY_AUTH', `Cannot run the credential helper ${program}: ${e.message}`, {
          hint: 'Install it, or take it out of the configuration (credHelpers, credsStore).',
          cause: e,
        }),
      );
    });
    child.once('close', (code) => {
      clearTimeout(deadline);
      resolve({ code: code ?? -1, stdout: Buffer.concat(parts).toString('utf8') });
    });
  });
}

function killGroup({ pid }: ChildProcess): void {
  try {
    if (pid !== undefined) process.kill(-pid, 'SIGKILL');
  } catch {
    // All of it has ended.
  }
}

function failed(name: string, verb: string, server: string, said: string): LaminaError {
  const words = oneLine(said, 200);
  const text = `The credential helper docker-credential-${name} failed (${verb} ${server})`;
  return new LaminaError('REGISTRY_AUTH', words === '' ? text : `${text}: ${words}`);
}
