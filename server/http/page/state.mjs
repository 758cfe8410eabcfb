// What the page shows, and its form in the address: #text=...&heads=2. Defaults are left out of it.

import {readNumber} from './format.mjs';

const oneOf = (standard, ...choices) => ({
  standard,
  read: (text) => choices.find((choice) => String(choice) === text),
  means: choices.join(' or '),
});
const text = (standard) => ({
  standard,
  read: (given) => (given.length <= 8000 ? given : undefined),
  means: 'a text of at most 8000 characters',
});
const number = (standard, least, most, decimals = 0) => ({
  standard,
  read: (given) => {
    const value = readNumber(given);
    return value >= least && value <= most && Number(value.toFixed(decimals)) === value ? value : undefined;
  },
  means: `a ${decimals ? '' : 'whole '}number from ${least} to ${most}${decimals ? `, with ${decimals} decimal at most` : ''}`,
});

const FIELDS = {
  input: oneOf('words', 'words', 'numbers', 'search'),
  text: text('The cat drinks its milk'),
  numbers: text('north: 1 0\neast: 0 1\nnorth-east: 0.7 0.7\nsouth: -1 0'),
  query: text('How do I bake bread?'),
  documents: text(
    [
      'bread, dough, baking | Knead the dough until it is smooth, then let it rise for an hour.',
      'bakery, opening hours | The bakery opens at six and closes at noon.',
      'tomato sauce, cooking | Simmer the tomatoes slowly to make a thick sauce.',
      'roses, pruning | Roses need pruning at the end of winter.',
      'beans, soaking | Soak dried beans in cold water before cooking them.',
    ].join('\n'),
  ),
  // What vectors of words know of: their spelling, or their meaning as a trained model has it.
  vectors: oneOf('spelling', 'spelling', 'meaning'),
  layer: oneOf('random', 'random', 'spelling'),
  seed: number(42, 0, 999999),
  heads: oneOf(1, 1, 2, 4),
  causal: oneOf('no', 'no', 'yes'),
  // How many words before and after its own a word sees.
  window: oneOf('all', 'all', '0', '1', '2', '3', '4'),
  temperature: number(1, 0.1, 4, 1),
  // 0 shows all steps at once.
  step: number(0, 0, 4),
  // The query whose row is picked out.
  word: number(0, 0, 23),
};

export function defaultState() {
  return Object.fromEntries(Object.entries(FIELDS).map(([name, {standard}]) => [name, standard]));
}

// {state, complaints}: what cannot be read is left at its default, with a sentence that says so.
export function readLink(fragment) {
  const state = defaultState();
  const complaints = [];
  const pairs = [...new URLSearchParams(fragment.replace(/^#/, ''))];
  for (const [name, given] of pairs) {
    const field = Object.hasOwn(FIELDS, name) ? FIELDS[name] : undefined;
    const value = field?.read(given);
    if (!field) complaints.push(`The link says “${name}”, which this page does not know.`);
    else if (value === undefined) complaints.push(`The link says ${name}=${given.slice(0, 40)}; ${name} is ${field.means}.`);
    else state[name] = value;
  }
  return {state, complaints};
}

// The fragment without its '#'; empty for the defaults.
export function writeLink(state) {
  const link = new URLSearchParams();
  for (const [name, {standard}] of Object.entries(FIELDS)) {
    if (state[name] !== standard) link.set(name, String(state[name]));
  }
  return link.toString();
}
