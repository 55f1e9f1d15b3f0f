/**
 * Names that come out of an image are bytes, and nobody has checked them. Here they are carried as latin1 strings (one
 * character a byte), printed raw into files and pipes, escaped on a terminal, which obeys control characters, and
 * written as UTF-8 text with the bytes beside it in JSON, which knows nothing else.
 */
import { isUtf8 } from 'node:buffer';
import { readFileSync } from 'node:fs';

/** UTF-8 text as bytes. */
export function toBytes(text: string): string {
  return Buffer.from(text, 'utf8').toString('latin1');
}

/** Bytes as text; what is not UTF-8 becomes U+FFFD. */
export function toText(bytes: string): string {
  return Buffer.from(bytes, 'latin1').toString('utf8');
}

const CONTROL = /[\p{Cc}\p{Cf}\u2028\u2029]/gu;
const NOT_PLAIN_ASCII = /[^\x20-\x7e]/g;

/** Text whose control and formatting characters, newlines included, are spelled out. */
export function escapeControls(text: string): string {
  return text.replace(CONTROL, (c) => {
    if (c === '\n') return '\\n';
    if (c === '\t') return '\\t';
    const code = c.codePointAt(0) ?? 0;
    return code < 0x100 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u{${code.toString(16)}}`;
  });
}

/** Bytes that a terminal shows and does not obey. Bytes that are not UTF-8 could be 8-bit controls: all are spelled out. */
export function escapeBytes(bytes: string): string {
  if (isUtf8(Buffer.from(bytes, 'latin1'))) return toBytes(escapeControls(toText(bytes)));
  return bytes.replace(NOT_PLAIN_ASCII, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`);
}

/** `{ name: text }`, and where the bytes are not UTF-8 also `{ nameBytes: hex }`, from which they can be had back. */
export function bytesField<K extends string>(key: K, bytes: string): Record<K, string> & Record<string, string> {
  const field = { [key]: toText(bytes) } as Record<K, string>;
  const raw = Buffer.from(bytes, 'latin1');
  return isUtf8(raw) ? field : { ...field, [`${key}Bytes`]: raw.toString('hex') };
}

/**
 * The bytes of a command line argument. Node decodes arguments as UTF-8 and loses what is not; the kernel still has them
 * (proc(5), /proc/self/cmdline).
 */
export function argumentBytes(argument: string, cmdline: () => Buffer = readCommandLine): string {
  if (!argument.includes('\ufffd')) return toBytes(argument);
  const raw = cmdline().toString('latin1').split('\0');
  return raw.find((bytes) => toText(bytes) === argument) ?? toBytes(argument);
}

function readCommandLine(): Buffer {
  return readFileSync('/proc/self/cmdline');
}

const UNITS = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'] as const;

/** "1.5 MB": powers of 1000, three digits. */
export function formatBytes(bytes: number): string {
  let unit = 0;
  let value = bytes;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit++;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return `${value.toFixed(digits)} ${UNITS[unit]}`;
}

/** "12 MB/s"; undefined where the time is too short to say. */
export function formatRate(bytes: number, seconds: number): string | undefined {
  return seconds < 0.001 ? undefined : `${formatBytes(bytes / seconds)}/s`;
}

/** "4.2 s", "350 ms", "3 min 20 s", "2 d 4 h". */
export function formatDuration(seconds: number): string {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86_400)} d ${Math.floor((whole % 86_400) / 3600)} h`;
}

/** "1 layer", "3 layers". */
export function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

/** "sha256:0123456789ab": enough for people. */
export function shortDigest(digest: string): string {
  const colon = digest.indexOf(':');
  return digest.slice(0, colon + 13);
}
