// The arithmetic behind one number, with the numbers themselves: what a heatmap tells about a cell.
//
// An explanation is {heading, parts, note, uses}: parts are pieces of the formula, each {text, role} with a role of q, k, v, w, x,
// result or none; `uses` names the cells that went in, as {figure, row, columns} with null for a whole row.

import {format} from './format.mjs';
import {isVisible} from './problem.mjs';

const plain = (text) => ({text, role: ''});

// a1 × b1 + a2 × b2 ..., each factor in the colour of its role.
function products(pairs, leftRole, rightRole) {
  return pairs.flatMap(([left, right], index) => [
    ...(index === 0 ? [] : [plain(' + ')]),
    {text: format(left), role: leftRole},
    plain(' × '),
    {text: format(right), role: rightRole},
  ]);
}

const ends = (value) => [plain(' = '), {text: format(value), role: 'result'}];
const range = (from, length) => Array.from({length}, (_, i) => from + i);
const quoted = (label) => `“${label}”`;

// Why number `column` of a vector of words is what it is.
export function explainVector(label, vector, column) {
  return vector.places ? explainSpelling(label, vector, column) : explainMeaning(label, vector, column);
}

function explainMeaning(label, {parts, factor, values}, column) {
  const heading = `Number ${column + 1} of ${quoted(label)}`;
  if (parts.length === 1)
    return {
      heading,
      parts: [plain('as the model has it'), ...ends(values[column])],
      note: 'From the table of words by meaning: all-MiniLM-L6-v2 read this word by itself; its 384 numbers were reduced.',
      uses: [],
    };
  const sum = parts.flatMap(({word, values: numbers}, index) => [
    ...(index === 0 ? [] : [plain(' + ')]),
    {text: format(numbers[column], 1), role: 'x'},
    {text: ` (${word})`, role: 'gram'},
  ]);
  const rounded = [plain(' ≈ '), {text: format(values[column], 2), role: 'result'}];
  return {
    heading,
    parts: [plain('('), ...sum, plain(') × '), {text: format(factor), role: 'w'}, ...rounded],
    note: 'The numbers of its words, added up; the factor makes the mean square of the vector 1. Rounded to two decimals.',
    uses: [],
  };
}

function explainSpelling(label, vector, column) {
  const grams = vector.places[column];
  const heading = `Number ${column + 1} of ${quoted(label)}`;
  if (grams.length === 0)
    return {heading, parts: [plain('no n-gram falls on this number'), ...ends(vector.values[column])], note: '', uses: []};
  const sum = grams.flatMap(({gram, sign}, index) => [
    plain(sign < 0 ? (index ? ' − ' : '−') : index ? ' + ' : ''),
    {text: '1', role: 'x'},
    {text: ` (${gram})`, role: 'gram'},
  ]);
  const rounded = [plain(' ≈ '), {text: format(vector.values[column], 2), role: 'result'}];
  return {
    heading,
    parts: [plain('('), ...sum, plain(') × '), {text: format(vector.factor), role: 'w'}, ...rounded],
    note: 'The n-grams that fall on this number, each with its sign; the factor makes the mean square of the vector 1. Rounded to two decimals.',
    uses: [],
  };
}

function explainGiven(problem, row, column) {
  return {
    heading: `Number ${column + 1} of ${quoted(problem.queries[row])}`,
    parts: [plain('as you typed it'), ...ends(problem.rows[row].values[column])],
    note: '',
    uses: [],
  };
}

export function explainEmbedding(problem, row, column) {
  const token = problem.rows[row];
  return token.places || token.parts ? explainVector(token.label, token, column) : explainGiven(problem, row, column);
}

const LETTERS = {query: 'Q', key: 'K', value: 'V'};

// A number of Q, K or V: the embedding times a row of the layer's matrix.
export function explainProjection(problem, result, name, row, column) {
  const role = LETTERS[name].toLowerCase();
  const matrix = problem.layer[name][column];
  return {
    heading: `Number ${column + 1} of the ${name} of ${quoted(problem.queries[row])}`,
    parts: [
      ...products(
        problem.rows[row].values.map((value, i) => [value, matrix[i]]),
        'x',
        role,
      ),
      ...ends(result[name][row][column]),
    ],
    note: `The word's vector, number by number, times row ${column + 1} of the ${name} matrix.`,
    uses: [
      {figure: 'x', row, columns: null},
      {figure: `matrix-${role}`, row: column, columns: null},
    ],
  };
}

// A score: the dot product of a query and a key, scaled.
export function explainScore(problem, result, head, row, column) {
  const from = head * problem.headSize;
  const columns = range(from, problem.headSize);
  const value = result.scores[head][row][column];
  const heading = `How well the query of ${quoted(problem.queries[row])} fits the key of ${quoted(problem.keys[column])}`;
  const uses = [
    {figure: 'q', row, columns},
    {figure: 'k', row: column, columns},
  ];
  if (!isVisible(problem, row, column)) {
    const why = problem.causal && column > row ? 'comes later in the text' : 'is outside the window';
    return {
      heading,
      parts: [plain('hidden'), ...ends(value)],
      note: `${quoted(problem.keys[column])} ${why}, so it gets no attention at all.`,
      uses,
    };
  }
  const pairs = columns.map((i) => [result.query[row][i], result.key[column][i]]);
  return {
    heading,
    parts: [{text: format(problem.scale), role: 'w'}, plain(' × ('), ...products(pairs, 'q', 'k'), plain(')'), ...ends(value)],
    note: `The scale is 1 / (√${problem.headSize} × temperature).`,
    uses,
  };
}

// A weight: the softmax of a row of scores.
export function explainWeight(problem, result, head, row, column) {
  const scores = result.scores[head][row];
  const value = result.weights[head][row][column];
  const heading = `How much ${quoted(problem.queries[row])} attends to ${quoted(problem.keys[column])}`;
  const seen = scores.filter((score) => score !== -Infinity);
  const uses = [{figure: `scores-${head + 1}`, row, columns: scores.flatMap((score, j) => (score === -Infinity ? [] : [j]))}];
  if (scores[column] === -Infinity)
    return {heading, parts: [plain('hidden'), ...ends(value)], note: 'A hidden word has the weight 0.', uses};
  const power = (score, role) => [
    {text: 'e', role: ''},
    {text: format(score), role, raised: true},
  ];
  return {
    heading,
    parts: [
      ...power(scores[column], 'k'),
      plain(' / ('),
      ...seen.flatMap((score, index) => [...(index ? [plain(' + ')] : []), ...power(score, '')]),
      plain(')'),
      ...ends(value),
    ],
    note: 'The softmax: each score becomes e to its power, divided by the sum over the row. So a row adds up to 1.',
    uses,
  };
}

// A number of the output: the values, mixed by the weights.
export function explainOutput(problem, result, row, column) {
  const head = Math.floor(column / problem.headSize);
  const weights = result.weights[head][row];
  return {
    heading: `Number ${column + 1} of the output of ${quoted(problem.queries[row])}`,
    parts: [
      ...products(
        weights.map((weight, j) => [weight, result.value[j][column]]),
        'w',
        'v',
      ),
      ...ends(result.output[row][column]),
    ],
    note: `Each word's value, times the attention that ${quoted(problem.queries[row])} pays to it${problem.heads > 1 ? ` in head ${head + 1}` : ''}.`,
    uses: [
      {figure: `weights-${head + 1}`, row, columns: null},
      ...weights.map((_, j) => ({figure: 'values', row: j, columns: [column]})),
    ],
  };
}

export const textOf = ({parts}) => parts.map(({text, raised}) => (raised ? `^(${text})` : text)).join('');
