/**
 * Platforms: which of an index's images is for this machine. The spellings and the order of preference are containerd's
 * (github.com/containerd/platforms, database.go and compare.go), without its fallbacks from a 64-bit to a 32-bit
 * architecture: those run only on some machines, and must be asked for by name.
 */
import { readFileSync } from 'node:fs';
import { LaminaError } from '../errors.js';

export interface Platform {
  /** As Go calls it: "linux". */
  readonly os: string;
  /** As Go calls it: "amd64". */
  readonly architecture: string;
  /** "v7"; absent where it is the architecture's default. */
  readonly variant?: string;
}

/** `OS/ARCH[/VARIANT]`, normalised. Throws USAGE. */
export function parsePlatform(text: string): Platform {
  const [os = '', architecture = '', variant, ...rest] = text.split('/');
  const isWord = (part: string): boolean => /^[A-Za-z0-9._-]{1,64}$/.test(part);
  if (!isWord(os) || !isWord(architecture) || (variant !== undefined && !isWord(variant)) || rest.length > 0) {
    throw new LaminaError('USAGE', `Cannot read the platform ${JSON.stringify(text.slice(0, 100))}`, {
      hint: 'A platform is OS/ARCH or OS/ARCH/VARIANT, such as linux/amd64 or linux/arm/v7.',
    });
  }
  return normalizePlatform({ os, architecture, ...(variant === undefined ? {} : { variant }) });
}

/** `OS/ARCH[/VARIANT]`; what is not said is "unknown". */
export function formatPlatform({ os, architecture, variant }: Platform): string {
  const parts = [os || 'unknown', architecture || 'unknown'];
  return (variant ? [...parts, variant] : parts).join('/');
}

/** One spelling for each platform, so that equal platforms compare equal: "Linux/aarch64/v8" is linux/arm64. */
export function normalizePlatform(platform: Platform): Platform {
  const os = platform.os.toLowerCase();
  const { architecture, variant } = normalizeArchitecture(
    platform.architecture.toLowerCase(),
    platform.variant?.toLowerCase() ?? '',
  );
  return { os: os === 'macos' ? 'darwin' : os, architecture, ...(variant === '' ? {} : { variant }) };
}

function normalizeArchitecture(architecture: string, variant: string): { architecture: string; variant: string } {
  switch (architecture) {
    case 'i386':
      return { architecture: '386', variant: '' };
    case 'x86_64':
    case 'x86-64':
    case 'amd64':
      return { architecture: 'amd64', variant: variant === 'v1' ? '' : variant };
    case 'aarch64':
    case 'arm64':
      return { architecture: 'arm64', variant: arm64Variants.get(variant) ?? variant };
    case 'armhf':
      return { architecture: 'arm', variant: 'v7' };
    case 'armel':
      return { architecture: 'arm', variant: 'v6' };
    case 'arm':
      return { architecture, variant: armVariants.get(variant) ?? variant };
    default:
      return { architecture, variant };
  }
}

const arm64Variants: ReadonlyMap<string, string> = new Map([
  ['8', ''],
  ['v8', ''],
  ['v8.0', ''],
  ['9', 'v9'],
  ['9.0', 'v9'],
  ['v9.0', 'v9'],
]);
const armVariants: ReadonlyMap<string, string> = new Map([
  ['', 'v7'],
  ['5', 'v5'],
  ['6', 'v6'],
  ['7', 'v7'],
  ['8', 'v8'],
]);

/** Both normalised: the same OS, architecture and variant. */
export function equalPlatforms(a: Platform, b: Platform): boolean {
  return a.os === b.os && a.architecture === b.architecture && a.variant === b.variant;
}

/** What runs where `platform` is wanted, best first: itself, then the variants that it includes. Normalised. */
export function candidates(platform: Platform): Platform[] {
  const { os, architecture, variant = '' } = normalizePlatform(platform);
  const others = includedVariants(architecture, variant).filter((v) => v !== variant);
  return [variant, ...others].map((v) => ({ os, architecture, ...(v === '' ? {} : { variant: v }) }));
}

function includedVariants(architecture: string, variant: string): string[] {
  const [, majorText = '0', minorText = '0'] = /^v(\d{1,2})(?:\.(\d{1,2}))?$/.exec(variant) ?? [];
  const major = Number(majorText);
  const minor = Number(minorText);
  switch (architecture) {
    case 'amd64':
      return [...countDown(major, 2).map((n) => `v${n}`), ''];
    case 'arm':
      return countDown(major, 5).map((n) => `v${n}`);
    case 'arm64':
      // Armv9.x includes Armv8.(x+5).
      if (major === 9) return [...countDown(minor, 1).map((n) => `v9.${n}`), 'v9', ...arm64v8(minor + 5)];
      return major === 8 ? arm64v8(minor) : [];
    default:
      return [];
  }
}

function arm64v8(minor: number): string[] {
  return [...countDown(minor, 1).map((n) => `v8.${n}`), ''];
}

function countDown(from: number, to: number): number[] {
  return Array.from({ length: Math.max(from - to + 1, 0) }, (_, i) => from - i);
}

/** Node's names to Go's, where they differ. */
const architectures: ReadonlyMap<string, string> = new Map([
  ['x64', 'amd64'],
  ['ia32', '386'],
  ['ppc64', 'ppc64le'],
  ['mipsel', 'mipsle'],
]);

/**
 * This machine's platform. Only 32-bit ARM has a variant, as the kernel tells it (proc(5), /proc/cpuinfo,
 * "CPU architecture").
 */
export function hostPlatform(nodeArchitecture: string = process.arch, cpuinfo: () => string = readCpuinfo): Platform {
  const architecture = architectures.get(nodeArchitecture) ?? nodeArchitecture;
  if (architecture !== 'arm') return normalizePlatform({ os: 'linux', architecture });
  const [, version = '7'] = /^CPU architecture\s*:\s*(\d+)/im.exec(cpuinfo()) ?? [];
  return normalizePlatform({ os: 'linux', architecture, variant: `v${version}` });
}

function readCpuinfo(): string {
  try {
    return readFileSync('/proc/cpuinfo', 'latin1');
  } catch {
    return '';
  }
}
