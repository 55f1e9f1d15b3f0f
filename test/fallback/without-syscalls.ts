/**
 * Runs a command for which system calls do not exist, as on an older kernel: a seccomp filter answers them with ENOSYS.
 *
 *     node without-syscalls.js NUMBER[,NUMBER...] COMMAND [ARGUMENT...]
 */
import { spawnSync } from 'node:child_process';
import { constants } from 'node:os';
import koffi from 'koffi';

const PR_SET_NO_NEW_PRIVS = 38;
const PR_SET_SECCOMP = 22;
const SECCOMP_MODE_FILTER = 2;
const SECCOMP_RET_ALLOW = 0x7fff_0000;
const SECCOMP_RET_ERRNO = 0x0005_0000;
/** linux/bpf_common.h: load a word of struct seccomp_data; jump if equal; return. */
const LOAD = 0x20;
const JUMP_EQUAL = 0x15;
const RETURN = 0x06;

function filter(numbers: readonly number[]): Buffer {
  const code = Buffer.alloc((numbers.length + 3) * 8);
  const put = (i: number, op: number, yes: number, no: number, k: number): void => {
    code.writeUInt16LE(op, i * 8);
    code.writeUInt8(yes, i * 8 + 2);
    code.writeUInt8(no, i * 8 + 3);
    code.writeUInt32LE(k, i * 8 + 4);
  };
  put(0, LOAD, 0, 0, 0);
  numbers.forEach((number, i) => put(i + 1, JUMP_EQUAL, numbers.length - i, 0, number));
  put(numbers.length + 1, RETURN, 0, 0, SECCOMP_RET_ALLOW);
  put(numbers.length + 2, RETURN, 0, 0, SECCOMP_RET_ERRNO | constants.errno.ENOSYS);
  return code;
}

const [numbers = '', command = '', ...args] = process.argv.slice(2);
const code = filter(numbers.split(',').map(Number));
const program = Buffer.alloc(16);
program.writeUInt16LE(code.length / 8, 0);
program.writeBigUInt64LE(koffi.address(code), 8);
const prctl = koffi
  .load(null)
  .func('int prctl(int option, unsigned long a, void *b, unsigned long c, unsigned long d)') as (
  ...args: unknown[]
) => number;
if (
  prctl(PR_SET_NO_NEW_PRIVS, 1, null, 0, 0) !== 0 ||
  prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0) !== 0
) {
  throw new Error(`seccomp: errno ${koffi.errno()}`);
}
// The filter is this thread's, and that of what it starts.
const { status, error } = spawnSync(command, args, { stdio: 'inherit' });
if (error !== undefined) throw error;
process.exitCode = status ?? 1;
