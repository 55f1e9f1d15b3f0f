/** Examples for the end of a command's help. */

/** Pairs of a command line and what it does. */
export function examples(lines: readonly (readonly [string, string])[]): string {
  const width = Math.max(...lines.map(([line]) => line.length));
  return ['', 'Examples:', ...lines.map(([line, what]) => `  ${line.padEnd(width)}  # ${what}`)].join('\n');
}
