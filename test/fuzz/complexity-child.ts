/** Measures one case of complexity-cases.ts at one size, in a process whose heap the caller has limited: CASE N. */
import { cases } from './complexity-cases.js';

const [name = '', n = '0'] = process.argv.slice(2);
const found = cases[name];
if (found === undefined) throw new Error(`There is no case ${name}`);
const run = found.prepare(Number(n));
run(); // compiles what is hot
const before = process.cpuUsage();
for (let i = found.times ?? 1; i > 0; i--) run();
const { user, system } = process.cpuUsage(before);
process.stdout.write(JSON.stringify({ cpu: (user + system) / 1000 }));
