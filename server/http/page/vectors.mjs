// How the page turns words into vectors, and what layers it makes: rules that anybody can repeat by hand (docs/page.md).
// These vectors tell how a word is spelled and nothing of what it means; meaning.mjs has those that do.

const FNV_OFFSET = 2166136261;
const FNV_PRIME = 16777619;

// The words of a text, as they are written: runs of letters and digits, with apostrophes inside.
export function wordsOf(text) {
  return text.normalize('NFC').match(/[\p{L}\p{M}\p{N}]+(?:['’][\p{L}\p{M}\p{N}]+)*/gu) ?? [];
}

// All runs of two and of three characters of <word>, in lower case.
export function gramsOf(word) {
  const characters = [...`<${word.toLowerCase()}>`];
  const grams = [];
  for (const length of [2, 3]) {
    for (let i = 0; i + length <= characters.length; ++i) grams.push(characters.slice(i, i + length).join(''));
  }
  return grams;
}

// FNV-1a, 32 bits, of the UTF-8 bytes.
export function hashOf(text) {
  let hash = FNV_OFFSET;
  for (const byte of new TextEncoder().encode(text)) hash = Math.imul(hash ^ byte, FNV_PRIME);
  return hash >>> 0;
}

export const roundTo2 = (value) => Math.round(value * 100) / 100;

// {values, factor}: the sums times the factor that makes their mean square 1, with two decimals. Sums that are all 0 stay so.
export function scaled(sums) {
  const squares = sums.reduce((sum, value) => sum + value * value, 0);
  const factor = squares === 0 ? 0 : Math.sqrt(sums.length / squares);
  return {values: sums.map((sum) => roundTo2(sum * factor) + 0), factor};
}

// The vector of some words, `size` numbers with two decimals whose mean square is 1, and how each came about: `places[i]`
// lists the n-grams that fell on number i, each with its sign; `factor` is what their sum is multiplied by. A vector whose
// sums are all 0 stays so.
export function vectorOf(words, size) {
  const places = Array.from({length: size}, () => []);
  for (const gram of words.flatMap(gramsOf)) {
    const hash = hashOf(gram);
    places[hash % size].push({gram, sign: hash >= 2 ** 31 ? -1 : 1});
  }
  const sums = places.map((grams) => grams.reduce((sum, {sign}) => sum + sign, 0));
  return {places, sums, ...scaled(sums)};
}

// mulberry32: 32 bits of state, numbers in [0, 1).
function generatorOf(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let bits = Math.imul(state ^ (state >>> 15), state | 1);
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
    return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
  };
}

// Three matrices [size][size]: the query's, the key's and the value's, each number drawn evenly from -0.80, -0.79 ... 0.80.
export function randomLayer(seed, size) {
  const next = generatorOf(seed);
  const matrix = () =>
    Array.from({length: size}, () => Array.from({length: size}, () => (Math.floor(next() * 161) - 80) / 100));
  return {query: matrix(), key: matrix(), value: matrix()};
}

// The layer that changes nothing: query, key and value are the vector itself.
export function identityLayer(size) {
  const matrix = () =>
    Array.from({length: size}, (_, row) => Array.from({length: size}, (__, column) => (row === column ? 1 : 0)));
  return {query: matrix(), key: matrix(), value: matrix()};
}
