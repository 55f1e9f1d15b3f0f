/** encodeMember, judged by tar-stream and GNU tar, at the places where a field of ustar ends and PAX begins. */
import { execFileSync } from 'node:child_process';
import { extract, type Header } from 'tar-stream';
import t from 'tap';
import { END_OF_ARCHIVE, encodeMember, paddingOf, type TarMember } from '../../src/tar/writer.js';

const plain: TarMember = {
  type: 'file',
  name: 'file',
  linkName: '',
  mode: 0o644,
  uid: 0,
  gid: 0,
  mtime: 0,
  mtimeNsec: 0,
  size: 0,
  devMajor: 0,
  devMinor: 0,
  xattrs: [],
};

async function read(bytes: Buffer): Promise<Header[]> {
  const headers: Header[] = [];
  const parser = extract();
  parser.on('entry', (header, stream, next) => {
    headers.push(header);
    stream.on('end', next);
    stream.resume();
  });
  const done = new Promise<void>((resolve, reject) => parser.on('finish', resolve).on('error', reject));
  parser.end(bytes);
  await done;
  return headers;
}

function paxOf(header: Header | undefined): Readonly<Record<string, string | undefined>> {
  const pax: unknown = header === undefined || !('pax' in header) ? undefined : header.pax;
  return (pax ?? {}) as Readonly<Record<string, string | undefined>>;
}

/** Whether a PAX header stands before the member's own. */
function hasPax(member: TarMember): boolean {
  return encodeMember(member).bytes.toString('latin1', 156, 157) === 'x';
}

t.test('names and numbers come back, whatever their length', async (t) => {
  const names = [
    'a'.repeat(100),
    'a'.repeat(101),
    `${'p'.repeat(155)}/${'n'.repeat(100)}`,
    `${'p'.repeat(156)}/${'n'.repeat(99)}`,
    `${'p/'.repeat(127)}end`,
    `${'long/'.repeat(100)}end`,
  ];
  const members: TarMember[] = names.map((name) => ({ ...plain, name }));
  for (const value of [0, 0o7777777, 0o10000000, 0xffffffff]) members.push({ ...plain, uid: value, gid: value });
  for (const linkName of ['l'.repeat(100), 'l'.repeat(101)]) members.push({ ...plain, type: 'symlink', linkName });
  members.push(
    { ...plain, type: 'directory', name: 'd'.repeat(99) },
    { ...plain, type: 'directory', name: 'd'.repeat(100) },
  );
  const headers = await read(Buffer.concat([...members.map((member) => encodeMember(member).bytes), END_OF_ARCHIVE]));
  t.equal(headers.length, members.length);
  members.forEach(({ name, uid, gid, linkName, type }, i) => {
    const header = headers[i];
    t.equal(header?.name.replace(/\/$/, ''), name);
    // tar-stream gives the numbers of PAX as its text, and no more.
    t.equal(Number(paxOf(header)['uid'] ?? header?.uid), uid);
    t.equal(Number(paxOf(header)['gid'] ?? header?.gid), gid);
    t.match(header, { linkname: linkName === '' ? null : linkName, type });
  });
  t.notOk(hasPax({ ...plain, name: names[0] ?? '' }), 'ustar is enough');
  t.notOk(hasPax({ ...plain, name: names[2] ?? '' }), 'its prefix, too');
  t.ok(hasPax({ ...plain, name: names[1] ?? '' }));
  t.ok(hasPax({ ...plain, type: 'directory', name: 'd'.repeat(100) }), 'a slash too much');
});

t.test('the length of a PAX record counts its own digits', async (t) => {
  for (let length = 1; length < 1100; length++) {
    const member: TarMember = { ...plain, xattrs: [['user.x', Buffer.alloc(length, 'v')]] };
    const body = encodeMember(member).bytes.subarray(512);
    const said = parseInt(body.toString('latin1', 0, 6), 10);
    if (body[said - 1] !== 0x0a || body[said - 2] !== 0x76) t.fail(`a value of ${length} bytes`);
  }
  const times = [
    [-2, 750_000_000, '-1.25'],
    [-1, 500_000_000, '-0.5'],
    [-3, 0, '-3'],
    [5, 1, '5.000000001'],
    [5, 120_000_000, '5.12'],
  ] as const;
  for (const [mtime, mtimeNsec, text] of times) {
    const [header] = await read(Buffer.concat([encodeMember({ ...plain, mtime, mtimeNsec }).bytes, END_OF_ARCHIVE]));
    t.equal(paxOf(header)['mtime'], text);
  }
});

t.test('sparse files, as GNU tar reads them', (t) => {
  const runs = [
    { offset: 512, length: 1024 },
    { offset: 8192, length: 100 },
  ];
  const cases = [
    { size: 8292, runs },
    { size: 9000, runs },
    { size: 5000, runs: [] },
    { size: 512 * 4000, runs: Array.from({ length: 1000 }, (_, i) => ({ offset: i * 2048, length: 512 })) },
  ];
  for (const { size, runs: all } of cases) {
    const { bytes, dataSize } = encodeMember({ ...plain, name: `${'deep/'.repeat(40)}sparse`, size, runs: all });
    const expected = Buffer.alloc(size);
    const data: Buffer[] = [];
    all.forEach(({ offset, length }, i) => {
      expected.fill(1 + (i % 250), offset, offset + length);
      data.push(expected.subarray(offset, offset + length));
    });
    t.equal(dataSize, Buffer.concat(data).length);
    const input = Buffer.concat([bytes, ...data, paddingOf(dataSize), END_OF_ARCHIVE]);
    t.equal(input.length % 512, 0);
    const got = execFileSync('tar', ['-xOf', '-'], { input, maxBuffer: 1 << 26 });
    t.ok(got.equals(expected), `${all.length} runs of ${size} bytes`);
    t.match(execFileSync('tar', ['-tvf', '-'], { input }).toString(), new RegExp(` ${size} .*deep/sparse$`, 'm'));
  }
  t.end();
});
