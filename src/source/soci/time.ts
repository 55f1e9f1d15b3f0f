/** Times as ztocs have them: RFC 3339 with up to nine decimals of a second, in whatever zone they were written. */
import { sociInvalid } from './errors.js';

const RFC3339 = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)$/;
/** Seconds at the start of the year 0 and of the year 10000: no others can be written. */
const FIRST = -62_167_219_200;
const BEYOND = 253_402_300_800;

/** "" is the time of an entry whose year has not four digits. Throws SOCI_INVALID. */
export function parseTime(text: string): { mtime: number; mtimeNsec: number } {
  if (text === '') return { mtime: 0, mtimeNsec: 0 };
  const [, time = '', fraction = '', zone = ''] = RFC3339.exec(text) ?? [];
  const here = Date.parse(`${time}Z`);
  // Date.parse takes the 31st of any month for the first of the next.
  if (Number.isNaN(here) || new Date(here).toISOString().slice(0, 19) !== time) {
    throw sociInvalid('the ztoc', 'a modification time is no time');
  }
  return { mtime: here / 1000 - offsetOf(zone), mtimeNsec: Number(fraction.padEnd(9, '0')) };
}

/** Seconds. */
function offsetOf(zone: string): number {
  if (zone === 'Z') return 0;
  const seconds = 60 * (60 * Number(zone.slice(1, 3)) + Number(zone.slice(4)));
  return zone.startsWith('-') ? -seconds : seconds;
}

export function formatTime(seconds: number, nanoseconds: number): string {
  if (seconds < FIRST || seconds >= BEYOND) return '';
  const time = new Date(seconds * 1000).toISOString().slice(0, 19);
  const fraction = String(nanoseconds).padStart(9, '0').replace(/0+$/, '');
  return `${time}${fraction === '' ? '' : `.${fraction}`}Z`;
}
