/** What registries and web pages answer. */
import { parseChallenges } from '../../src/source/registry/challenge.js';
import { metaTags } from '../../src/source/registry/meta-tags.js';
import { convertSchema1 } from '../../src/source/registry/schema1.js';
import type { Target } from './targets.js';
import { sum, words } from './words.js';

const challenge: Target = {
  name: 'challenge',
  runs: 15_000,
  most: 16_384,
  dictionary: words('Bearer ', 'Basic ', 'realm=', '"', '\\"', ',', 'scope="repository:a:pull"', 'abc==', ' = ', '\t'),
  run(bytes) {
    const challenges = parseChallenges(bytes.toString('latin1'));
    const text = challenges.map(({ scheme, params }) => `${scheme} ${JSON.stringify([...params])}`);
    return `challenges-${Math.min(challenges.length, 9)} ${sum(text.join('\n'))}`;
  },
};

const page: Target = {
  name: 'page',
  runs: 8000,
  most: 20_000,
  dictionary: words(
    '<meta ',
    'name=',
    'content="',
    "'",
    '>',
    '/>',
    '<!--',
    '-->',
    '<script>',
    '</script>',
    '&amp;',
    '&#x2f;',
  ),
  run(bytes) {
    const tags = metaTags(bytes.toString('utf8'));
    return `tags-${Math.min(tags.length, 9)} ${sum(JSON.stringify(tags.map((tag) => [...tag])))}`;
  },
};

const id = '1'.repeat(64);
const schema1: Target = {
  name: 'schema1',
  runs: 6000,
  most: 20_000,
  dictionary: words(
    '"fsLayers":',
    '"blobSum":',
    '"history":',
    '"v1Compatibility":',
    '"signatures":',
    '"protected":',
    '\\"throwaway\\":true',
    `\\"parent\\":\\"${id}\\"`,
    `{"v1Compatibility":"{\\"id\\":\\"${id}\\"}"}`,
    `{"blobSum":"sha256:${id}"}`,
    ',',
    'null',
  ),
  run(bytes) {
    const { layers, config } = convertSchema1(bytes);
    return `layers-${layers.length} ${sum(JSON.stringify([layers, config]))}`;
  },
};

export const registryTargets: readonly Target[] = [challenge, page, schema1];
