import type { Command } from 'commander';
import { exitCodes } from '../../errors.js';
import type { Cli } from '../cli.js';
import type { Context } from '../context.js';
import { examples } from '../help.js';
import { openImage } from '../open-image.js';
import { addImageOptions, type ImageOptions } from '../options.js';
import { keyValues, table, type Output } from '../output.js';
import { interruptible } from '../signals.js';
import { formatBytes, shortDigest } from '../text.js';
import { verifyImage, type ImageVerdict, type LayerVerdict, type Verdict } from '../verify-image.js';

export function register(program: Command, cli: Cli): void {
  const command = program
    .command('verify')
    .description('Read every blob of an image and compare it with its digest, and its content with the diffID.')
    .argument('<image>', 'what to verify');
  addImageOptions(command)
    .addHelpText(
      'after',
      examples([
        ['lamina verify oci:app.oci:latest', 'exit code 3 when something does not match'],
        ['lamina verify -q app.tar && echo good', 'only the exit code'],
      ]),
    )
    .action((image: string, options: ImageOptions) => cli.run(command, (context) => verify(context, image, options)));
}

async function verify(context: Context, reference: string, options: ImageOptions): Promise<number> {
  const { out } = context;
  const image = await openImage(context, reference, options);
  const progress = context.progress();
  const verdict = await interruptible((signal) =>
    verifyImage(image, { onProgress: progress.onProgress, signal }).finally(() => progress.end()),
  );
  if (out.json) await out.document(verdict);
  else if (!out.quiet) await out.lines(verdictLines(out, verdict));
  return verdict.ok ? 0 : exitCodes.BLOB_DIGEST_MISMATCH;
}

const RIGHT_ALIGNED = [0, 2];

function verdictLines(out: Output, { reference, manifestDigest, configDigest, ok, layers }: ImageVerdict): string[] {
  const say = (verdict: Verdict): string =>
    out.paint(verdict === 'ok' ? 'green' : verdict === 'unchecked' ? 'yellow' : 'red', verdict);
  const rows = layers.map((layer) => [
    String(layer.layer),
    shortDigest(layer.digest ?? layer.diffId),
    formatBytes(layer.size),
    say(layer.blob),
    say(layer.content),
  ]);
  return [
    ...keyValues([
      ['image', out.text(reference)],
      ['manifest', manifestDigest === null ? undefined : `${manifestDigest} ${say('ok')}`],
      ['config', `${configDigest} ${say('ok')}`],
    ]),
    ...table([['LAYER', 'DIGEST', 'SIZE', 'BLOB', 'CONTENT'], ...rows], RIGHT_ALIGNED),
    ...layers.flatMap(reasons).map((line) => out.text(line)),
    ok ? out.paint('green', 'verified') : out.paint('red', 'NOT verified'),
  ];
}

function reasons({ layer, digest, diffId, gotDigest, gotDiffId, reason }: LayerVerdict): string[] {
  const lines: string[] = [];
  if (gotDigest !== null) lines.push(`layer ${layer}: the blob is ${gotDigest}, wanted ${digest}`);
  if (gotDiffId !== null) lines.push(`layer ${layer}: the content is ${gotDiffId}, wanted ${diffId}`);
  if (reason !== null) lines.push(`layer ${layer}: ${reason}`);
  return lines;
}
