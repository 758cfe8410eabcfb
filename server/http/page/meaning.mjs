// The vectors of words by meaning: what the model all-MiniLM-L6-v2 makes of each word by itself, reduced, from words.txt
// (docs/page.md). A vector knows its word alone and nothing of the sentence around it.

import {scaled} from './vectors.mjs';

export const MEANING_SIZE = 32;
const DIGITS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';

// The numbers of each word of the file, by word.
export function readWords(file) {
  const lines = file.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return new Map(
    lines.map((line) => {
      const [word, digits] = line.split(' ');
      return [word, [...digits].map((digit) => (DIGITS.indexOf(digit) - DIGITS.length / 2) / 10)];
    }),
  );
}

const keyOf = (word) => word.toLowerCase();

// Those of the words that the table does not have, each once.
export const unknownWords = (words, table) => [...new Set(words)].filter((word) => !table.has(keyOf(word)));

// The vector of some words: the table's numbers of one word, of several the sum of theirs, with a mean square of 1 and two
// decimals. `parts` are the words with their numbers; `factor` is what the sum is multiplied by. The table has all the words.
export function meaningOf(words, table) {
  const parts = words.map((word) => ({word, values: table.get(keyOf(word))}));
  if (parts.length === 1) return {values: parts[0].values, parts, factor: 1};
  const sums = parts[0].values.map((_, i) => parts.reduce((sum, {values}) => sum + values[i], 0));
  return {parts, ...scaled(sums)};
}
