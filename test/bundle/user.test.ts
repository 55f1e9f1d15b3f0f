import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { resolveUser, type ResolvedUser } from '../../src/bundle/user.js';
import { LaminaError } from '../../src/errors.js';
import { group, has, passwd, rootfs, run } from './fixtures.js';

const files = rootfs({ '/etc/passwd': passwd, '/etc/group': group });
const none = rootfs();

type Row = [spec: string, uid: number, gid: number, additionalGids: number[], home: string | undefined];

const resolved: Row[] = [
  ['', 0, 0, [0, 1234], '/root'],
  ['root', 0, 0, [0, 1234], '/root'],
  ['0', 0, 0, [0, 1234], '/root'],
  ['adm', 42, 43, [1234], '/var/adm'],
  ['42', 42, 43, [1234], '/var/adm'],
  ['user7456', 7456, 100, [1234], '/home/user7456'],
  ['adm:', 42, 43, [1234], '/var/adm'],
  // an explicit group, and no supplementary ones
  ['adm:adm', 42, 43, [], '/var/adm'],
  ['adm:grp', 42, 1234, [], '/var/adm'],
  ['adm:7', 42, 7, [], '/var/adm'],
  ['42:7', 42, 7, [], '/var/adm'],
  ['42:grp', 42, 1234, [], '/var/adm'],
  ['5000:grp', 5000, 1234, [], undefined],
  ['5000:7', 5000, 7, [], undefined],
  [':grp', 0, 1234, [], '/root'],
  // a number is never a name: neither the account 111 nor the group 444
  ['111', 111, 112, [], '/home/odd'],
  ['111:444', 111, 444, [], '/home/odd'],
  ['odd:444', 111, 444, [], '/home/odd'],
  ['0042', 42, 43, [1234], '/var/adm'],
  // a uid without an account
  ['5000', 5000, 0, [], undefined],
  ['2147483647', 2147483647, 0, [], undefined],
  ['homeless', 800, 801, [], undefined],
];

t.test('resolveUser: B004, B005, B007', (t) => {
  for (const [spec, uid, gid, additionalGids, home] of resolved) {
    t.strictSame(resolveUser(spec, files), { uid, gid, additionalGids, home }, JSON.stringify(spec));
  }
  t.end();
});

t.test('resolveUser: an image without passwd and group takes numbers only', (t) => {
  const user = (uid: number, gid: number): ResolvedUser => ({ uid, gid, additionalGids: [], home: undefined });
  t.strictSame(resolveUser('', none), user(0, 0));
  t.strictSame(resolveUser('12', none), user(12, 0));
  t.strictSame(resolveUser('12:34', none), user(12, 34));
  t.throws(() => resolveUser('root', none), { code: 'USER_UNKNOWN' });
  t.throws(() => resolveUser('0:root', none), { code: 'USER_UNKNOWN' });
  t.end();
});

t.test('resolveUser: what cannot be resolved is an error that names it', (t) => {
  const rows: [string, RegExp][] = [
    ['nobody', /there is no user "nobody"/],
    ['adm:nogroup', /there is no group "nogroup"/],
    ['2147483648', /not in 0\.\.2147483647/],
    ['-1', /not in 0\.\.2147483647/],
    ['99999999999999999999999', /not in 0\.\.2147483647/],
    ['0:2147483648', /the group id 2147483648/],
    ['adm:grp:x', /there is no group "grp:x"/],
    ['this is just some garbage data', /there is no user/],
    ['+', /there is no user/],
    ['root\0', /there is no user/],
  ];
  for (const [spec, message] of rows) t.throws(() => resolveUser(spec, files), { code: 'USER_UNKNOWN', message }, spec);
  t.end();
});

t.test('resolveUser: a line whose ids are no ids is skipped, and makes nobody root', (t) => {
  const bad = rootfs({
    '/etc/passwd': 'app:x:abc:5\napp2:x:\napp3:x:5:\napp4:x:-1:5\napp5:x:4294967296:5\n:x:7:7\napp:x:9:9::/h\r\n',
    '/etc/group': 'g::\ng2:x:zero:app\ng3:x:-1:app\ng4:x:77:app\n',
  });
  t.strictSame(resolveUser('app', bad), { uid: 9, gid: 9, additionalGids: [77], home: '/h' });
  for (const name of ['app2', 'app3', 'app4', 'app5'])
    t.throws(() => resolveUser(name, bad), { code: 'USER_UNKNOWN' }, name);
  for (const name of ['g', 'g2', 'g3']) t.throws(() => resolveUser(`0:${name}`, bad), { code: 'USER_UNKNOWN' }, name);
  t.strictSame(
    resolveUser('7', bad),
    { uid: 7, gid: 0, additionalGids: [], home: undefined },
    'an account without a name',
  );
  t.end();
});

t.test('resolveUser: passwd and group are read with a limit, and what is no file is an error (B006)', (t) => {
  const limits: number[] = [];
  const refusing = {
    readFile(path: string, limit: number): Uint8Array | undefined {
      limits.push(limit);
      throw new LaminaError('METADATA_INVALID', `${path} is a fifo`);
    },
  };
  t.throws(() => resolveUser('root', refusing), { code: 'METADATA_INVALID', message: '/etc/passwd is a fifo' });
  t.strictSame(limits, [1048576]);

  const careless = { readFile: () => Buffer.alloc(1048577, 'a') };
  t.throws(() => resolveUser('root', careless), { code: 'LIMIT_EXCEEDED' }, 'a reader that ignores the limit');

  const long = rootfs({ '/etc/passwd': `${'x'.repeat(700_000)}\nroot:x:0:0::/root:\n${'\n'.repeat(300_000)}` });
  t.equal(resolveUser('root', long).home, '/root', 'a long line, and many');
  t.end();
});

t.test('resolveUser: agrees with umoci', { skip: has('umoci') ? false : 'umoci is not installed' }, (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'lamina-user-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  mkdirSync(join(dir, 'rootfs/etc'), { recursive: true });
  writeFileSync(join(dir, 'rootfs/etc/passwd'), passwd);
  writeFileSync(join(dir, 'rootfs/etc/group'), group);
  run('umoci', ['init', '--layout', join(dir, 'oci')]);
  const reference = join(dir, 'oci:t');
  run('umoci', ['new', '--image', reference]);
  for (const [spec] of resolved) {
    run('umoci', ['config', '--image', reference, `--config.user=${spec}`]);
    const out = join(dir, 'config.json');
    run('umoci', ['raw', 'runtime-config', '--image', reference, '--rootfs', join(dir, 'rootfs'), out]);
    const config = JSON.parse(readFileSync(out, 'utf8')) as {
      process: { user: { uid: number; gid: number; additionalGids?: number[] }; env: string[] };
    };
    const { uid, gid, additionalGids = [] } = config.process.user;
    const home = config.process.env.find((entry) => entry.startsWith('HOME='))?.slice(5);
    // umoci lists a group as often as the file does
    t.strictSame(resolveUser(spec, files), { uid, gid, additionalGids: [...new Set(additionalGids)], home }, spec);
  }
  t.end();
});
