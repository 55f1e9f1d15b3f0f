/** Binds the functions of a library that the process itself may already export. */
import { LaminaError } from '../errors.js';
import { koffi } from './koffi.js';

type Library = ReturnType<ReturnType<typeof koffi>['load']>;

/**
 * What `bind` makes of the first library that has every function it asks for: the process itself (Node exports the zlib
 * and, since 22.15, the zstd that it is built with), then the shared object `soname`. Throws NATIVE_UNAVAILABLE, with
 * the Debian package to install.
 */
export function bindLibrary<T>(soname: string, debianPackage: string, bind: (library: Library) => T): T {
  const { load } = koffi();
  let cause: unknown;
  for (const path of [null, soname]) {
    try {
      return bind(load(path));
    } catch (e) {
      cause = e;
    }
  }
  throw new LaminaError('NATIVE_UNAVAILABLE', `Cannot load ${soname} through koffi: ${String(cause)}`, {
    cause,
    hint: `Install ${soname} (Debian and Ubuntu: apt-get install ${debianPackage}), then run \`lamina doctor\`.`,
  });
}
