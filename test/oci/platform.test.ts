import t from 'tap';
import { candidates, formatPlatform, hostPlatform, normalizePlatform, parsePlatform } from '../../src/oci/platform.js';

t.test('parsePlatform normalises as containerd does', async (t) => {
  const table: [string, string][] = [
    ['linux/amd64', 'linux/amd64'],
    ['Linux/x86_64', 'linux/amd64'],
    ['linux/x86-64/v1', 'linux/amd64'],
    ['linux/amd64/v3', 'linux/amd64/v3'],
    ['linux/aarch64', 'linux/arm64'],
    ['linux/arm64/v8', 'linux/arm64'],
    ['linux/arm64/8', 'linux/arm64'],
    ['linux/arm64/v8.0', 'linux/arm64'],
    ['linux/arm64/9', 'linux/arm64/v9'],
    ['linux/arm64/v9.0', 'linux/arm64/v9'],
    ['linux/arm64/v9.2', 'linux/arm64/v9.2'],
    ['linux/arm', 'linux/arm/v7'],
    ['linux/arm/6', 'linux/arm/v6'],
    ['linux/armhf', 'linux/arm/v7'],
    ['linux/armel', 'linux/arm/v6'],
    ['linux/i386', 'linux/386'],
    ['macOS/arm64', 'darwin/arm64'],
    ['linux/riscv64/rva20u64', 'linux/riscv64/rva20u64'],
    ['linux/arm64/constructor', 'linux/arm64/constructor'],
  ];
  for (const [text, expected] of table) t.equal(formatPlatform(parsePlatform(text)), expected, text);
});

t.test('parsePlatform refuses what is no platform', async (t) => {
  for (const text of [
    '',
    'linux',
    'linux/',
    '/amd64',
    'linux/amd64/',
    'linux/amd64/v3/x',
    'linux /amd64',
    'a/\u00e9',
  ]) {
    t.throws(() => parsePlatform(text), { code: 'USAGE', exitCode: 2 }, text);
  }
});

t.test('candidates: itself, then what it includes, never a 32-bit architecture for a 64-bit one', async (t) => {
  const table: [string, string[]][] = [
    ['linux/amd64', ['linux/amd64']],
    ['linux/amd64/v3', ['linux/amd64/v3', 'linux/amd64/v2', 'linux/amd64']],
    ['linux/arm', ['linux/arm/v7', 'linux/arm/v6', 'linux/arm/v5']],
    ['linux/arm/v8', ['linux/arm/v8', 'linux/arm/v7', 'linux/arm/v6', 'linux/arm/v5']],
    ['linux/arm/v5', ['linux/arm/v5']],
    ['linux/arm64', ['linux/arm64']],
    ['linux/arm64/v8.2', ['linux/arm64/v8.2', 'linux/arm64/v8.1', 'linux/arm64']],
    [
      'linux/arm64/v9.1',
      ['v9.1', 'v9', 'v8.6', 'v8.5', 'v8.4', 'v8.3', 'v8.2', 'v8.1']
        .map((v) => `linux/arm64/${v}`)
        .concat('linux/arm64'),
    ],
    [
      'linux/arm64/v9',
      ['v9', 'v8.5', 'v8.4', 'v8.3', 'v8.2', 'v8.1'].map((v) => `linux/arm64/${v}`).concat('linux/arm64'),
    ],
    ['linux/ppc64le/power9', ['linux/ppc64le/power9']],
    ['linux/amd64/v999999999', ['linux/amd64/v999999999', 'linux/amd64']],
  ];
  for (const [text, expected] of table)
    t.strictSame(candidates(parsePlatform(text)).map(formatPlatform), expected, text);
});

t.test('hostPlatform: Go names; a variant from cpuinfo on 32-bit ARM only', async (t) => {
  const cpuinfo = (text: string) => () => text;
  const fail = (): string => t.fail('cpuinfo must not be read') as never;
  t.equal(formatPlatform(hostPlatform('x64', fail)), 'linux/amd64');
  t.equal(formatPlatform(hostPlatform('ia32', fail)), 'linux/386');
  t.equal(formatPlatform(hostPlatform('arm64', fail)), 'linux/arm64');
  t.equal(formatPlatform(hostPlatform('s390x', fail)), 'linux/s390x');
  t.equal(formatPlatform(hostPlatform('arm', cpuinfo('processor: 0\nCPU architecture: 6TEJ\n'))), 'linux/arm/v6');
  t.equal(formatPlatform(hostPlatform('arm', cpuinfo('CPU architecture\t: 8\n'))), 'linux/arm/v8');
  t.equal(formatPlatform(hostPlatform('arm', cpuinfo(''))), 'linux/arm/v7');
  t.equal(hostPlatform().os, 'linux');
});

t.test('formatPlatform says what is not known', async (t) => {
  t.equal(formatPlatform({ os: '', architecture: '' }), 'unknown/unknown');
  t.strictSame(normalizePlatform({ os: 'linux', architecture: 'amd64', variant: '' }), {
    os: 'linux',
    architecture: 'amd64',
  });
});
