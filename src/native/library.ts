/** Binds the functions of a library that the process itself may already export. */
import koffi from 'koffi';
import { LaminaError } from '../errors.js';

type Library = ReturnType<typeof koffi.load>;

/**
 * What `bind` makes of the first library that has every function it asks for: the process itself (Node exports the zlib
 * and, since 22.15, the zstd that it is built with), then the shared object `soname`. Throws NATIVE_UNAVAILABLE, with
 * the Debian package to install.
 */
export function bindLibrary<T>(soname: string, debianPackage: string, bind: (library: Library) => T): T {
  let cause: unknown;
  for (const path of [null, soname]) {
    try {
      return bind(koffi.load(path));
    } catch (e) {
      cause = e;
    }
  }
  throw new LaminaError('NATIVE_UNAVAILABLE', `Cannot load ${soname} through koffi: ${String(cause)}`, {
    cause,
    hint: `Install ${soname} (Debian and Ubuntu: apt-get install ${debianPackage}), then run \`lamina doctor\`.`,
  });
}
