// From what the page shows to the attention problem: labels, vectors, layer and options.

import {readNumber} from './format.mjs';
import {meaningOf, MEANING_SIZE, unknownWords} from './meaning.mjs';
import {identityLayer, randomLayer, vectorOf, wordsOf} from './vectors.mjs';

export const WORD_SIZE = 8;
export const TEXT_SIZE = 32;
const MOST_TOKENS = 24;
const MOST_NUMBERS = 16;

// Says in a sentence why there is no problem to compute.
export class Refusal extends Error {}

// Words that occur twice get a number, so that each can be told from the other: the₁ cat the₂.
export function labelsOf(words) {
  const seen = new Map();
  const count = (word) => words.filter((other) => other === word).length;
  return words.map((word) => {
    if (count(word) === 1) return word;
    seen.set(word, (seen.get(word) ?? 0) + 1);
    return word + [...String(seen.get(word))].map((digit) => '₀₁₂₃₄₅₆₇₈₉'[digit]).join('');
  });
}

// Those that are not empty.
function linesOf(text) {
  const lines = text.split('\n').map((line) => line.trim());
  return lines.filter(Boolean);
}

function checkCount(count, what) {
  if (count > MOST_TOKENS)
    throw new Refusal(`This page draws at most ${MOST_TOKENS} ${what}; here are ${count}. attend itself takes thousands.`);
}

// Whether the vectors come from the table of words by meaning.
export const needsTable = ({input, vectors}) => vectors === 'meaning' && input !== 'numbers';

// Makes vectors of words, some of `all`: by spelling with `size` numbers, or by meaning.
function maker(state, all, size, table) {
  if (!needsTable(state)) return {size, make: (words) => vectorOf(words, size)};
  const unknown = unknownWords(all, table).map((word) => `“${word}”`);
  if (unknown.length > 0)
    throw new Refusal(
      `${unknown.join(', ')}: not among the ${table.size} English words whose meaning this page knows. ` +
        'Take other words, or vectors by spelling.',
    );
  return {size: MEANING_SIZE, make: (words) => meaningOf(words, table)};
}

function wordRows(state, table) {
  const words = wordsOf(state.text);
  if (words.length === 0) throw new Refusal('Type at least one word.');
  checkCount(words.length, 'words');
  const {make} = maker(state, words, WORD_SIZE, table);
  return words.map((word) => ({label: word, ...make([word])}));
}

function numberRow(line, index) {
  const [, label, rest] = /^(?:([^:]*):)?(.*)$/s.exec(line);
  const parts = rest.split(/[\s,;]+/).filter(Boolean);
  const values = parts.map(readNumber);
  const wrong = values.findIndex((value) => !(Math.abs(value) <= 1e6));
  if (wrong >= 0) throw new Refusal(`Line ${index + 1}: “${parts[wrong]}” is not a number between -1000000 and 1000000.`);
  return {label: label?.trim() || String(index + 1), values};
}

function numberRows(text) {
  const lines = linesOf(text);
  if (lines.length === 0) throw new Refusal('Type at least one line of numbers.');
  checkCount(lines.length, 'lines');
  const rows = lines.map(numberRow);
  const size = rows[0].values.length;
  if (size === 0 || size > MOST_NUMBERS)
    throw new Refusal(`A line holds 1 to ${MOST_NUMBERS} numbers; the first one holds ${size}.`);
  const other = rows.findIndex((row) => row.values.length !== size);
  if (other >= 0)
    throw new Refusal(
      `Line ${other + 1} holds ${rows[other].values.length} numbers, the first one ${size}: all lines need the same.`,
    );
  return rows;
}

// Self-attention over the words or the lines of numbers.
function attendProblem(state, table) {
  const rows = state.input === 'words' ? wordRows(state, table) : numberRows(state.numbers);
  const size = rows[0].values.length;
  if (size % state.heads !== 0) throw new Refusal(`${state.heads} heads cannot share vectors of ${size} numbers evenly.`);
  const labels = labelsOf(rows.map((row) => row.label));
  const headSize = size / state.heads;
  return {
    kind: 'attend',
    queries: labels,
    keys: labels,
    rows,
    size,
    headSize,
    heads: state.heads,
    layer: state.layer === 'random' ? randomLayer(state.seed, size) : identityLayer(size),
    scale: 1 / (Math.sqrt(headSize) * state.temperature),
    causal: state.causal === 'yes',
    window: state.window === 'all' ? null : Number(state.window),
  };
}

function readDocument(line, index, make) {
  const bar = line.indexOf('|');
  const [description, text] = bar < 0 ? [line, line] : [line.slice(0, bar).trim(), line.slice(bar + 1).trim()];
  if (wordsOf(description).length === 0 || wordsOf(text).length === 0) {
    throw new Refusal(`Document ${index + 1} needs words on both sides of the “|”.`);
  }
  return {description, text, key: make(wordsOf(description)), value: make(wordsOf(text))};
}

// A question looks through documents: descriptions are keys, the documents values.
function searchProblem(state, table) {
  if (wordsOf(state.query).length === 0) throw new Refusal('Type at least one word to search for.');
  const lines = linesOf(state.documents);
  if (lines.length === 0) throw new Refusal('Type at least one document: description | text.');
  checkCount(lines.length, 'documents');
  const {size, make} = maker(state, wordsOf(`${state.query} ${lines.join(' ')}`), TEXT_SIZE, table);
  const documents = lines.map((line, index) => readDocument(line, index, make));
  return {
    kind: 'search',
    queries: ['query'],
    keys: documents.map(({description}, index) => `${index + 1} ${wordsOf(description)[0]}`),
    size,
    headSize: size,
    heads: 1,
    documents,
    query: make(wordsOf(state.query)),
    scale: 1 / (Math.sqrt(size) * state.temperature),
    causal: false,
    window: null,
  };
}

// `table`: readWords of words.txt, if needsTable. Throws Refusal.
export function problemOf(state, table) {
  return state.input === 'search' ? searchProblem(state, table) : attendProblem(state, table);
}

// How many numbers a vector has, or undefined while the input cannot be read.
export function sizeOf(state) {
  if (needsTable(state)) return MEANING_SIZE;
  try {
    return problemOf({...state, heads: 1}).size;
  } catch {
    return undefined;
  }
}

// Whether the query at `row` may look at the key at `column`.
export function isVisible({causal, window}, row, column) {
  return !(causal && column > row) && !(window !== null && Math.abs(row - column) > window);
}
