import { LaminaError } from '../errors.js';

/**
 * The promise's outcome, or MOUNT_FAILED after `milliseconds`: "DOING took longer than 10 s". What was started goes on;
 * a system call cannot be called back.
 */
export async function withDeadline<T>(promise: Promise<T>, milliseconds: number, doing: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new LaminaError('MOUNT_FAILED', `${doing} took longer than ${milliseconds / 1000} s`));
    }, milliseconds);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
