import { readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { readMountInfo } from '../../src/mount/mountinfo.js';
import { runCommand } from '../support/cli.js';
import { watchesMounts } from '../support/namespaces.js';

// It drops caches (../support/page-cache), too.
t.before(watchesMounts);

t.test('the demo does what it says, and leaves nothing behind', async (t) => {
  const script = fileURLToPath(new URL('../../scripts/demo.js', import.meta.url));
  const { code, stdout, stderr } = await runCommand(process.execPath, [script]);
  t.equal(code, 0, `${stderr}\n${stdout}`);
  t.match(stdout, '== Done');
  const directory = /oci:(\S+)\/demo\.oci/.exec(stdout)?.[1] ?? 'none';
  t.match(directory, /\/lamina-demo-\d+-/);
  t.notOk(readdirSync(tmpdir()).some((name) => directory.endsWith(`/${name}`)));
  t.notOk(readMountInfo().some(({ mountpoint }) => mountpoint.startsWith(directory)));
});
