/** Documents that name what the code has: they are held together here. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { exitCodes } from '../../src/errors.js';
import { projectRoot } from '../support/project.js';

const read = (file: string): string => readFileSync(join(projectRoot, file), 'utf8');

interface PackageFile {
  readonly dependencies: Record<string, string>;
  readonly devDependencies: Record<string, string>;
  readonly optionalDependencies?: Record<string, string>;
}

t.test('native-notes/ERRORS.md lists the error codes of src/errors.ts, each once', async (t) => {
  // A code is listed where it opens a table row, a list item or a heading: "| `USAGE` | 2 | ..".
  const rows = [
    ...read('native-notes/ERRORS.md').matchAll(/^(?:\||[-*]|#+) *`([A-Z][A-Z0-9_]+)`(?: *\| *(\d+) *\|)?/gm),
  ];
  const listed = rows.map(([, code = '']) => code);
  const known = Object.keys(exitCodes);
  t.strictSame(
    known.filter((code) => !listed.includes(code)),
    [],
    'codes that the document lacks',
  );
  t.strictSame(
    listed.filter((code, i) => !known.includes(code) || listed.indexOf(code) !== i),
    [],
    'codes that do not exist, or stand there twice',
  );
  const exits: Readonly<Record<string, number>> = exitCodes;
  const wrong = rows.filter(([, code = '', exit]) => exit !== undefined && exits[code] !== Number(exit));
  t.strictSame(
    wrong.map(([row]) => row),
    [],
    'exit codes that are not so',
  );
});

t.test('native-notes/DEPENDENCIES.md names every package that is used', async (t) => {
  const { dependencies, devDependencies, optionalDependencies = {} } = JSON.parse(read('package.json')) as PackageFile;
  const notes = read('native-notes/DEPENDENCIES.md');
  for (const name of Object.keys({ ...dependencies, ...optionalDependencies })) {
    t.ok(notes.includes(`\`${name}\``) || notes.includes(`**${name}**`), `${name} is named`);
  }
  const ranges = Object.entries({ ...dependencies, ...devDependencies, ...optionalDependencies });
  t.strictSame(
    ranges.filter(([, version]) => !/^\d+\.\d+\.\d+$/.test(version)),
    [],
    'versions are exact',
  );
});
