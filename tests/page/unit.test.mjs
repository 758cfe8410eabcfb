// The page's logic by itself, without a browser.

import assert from 'node:assert/strict';
import {readdirSync, readFileSync} from 'node:fs';
import {test} from 'node:test';

import {attention, meaningOf as meaningByTheRule, vectorOf as vectorByTheRule} from './oracle.mjs';
import {explainOutput, explainProjection, explainScore, explainWeight, textOf} from '../../server/http/page/arithmetic.mjs';
import {contrast, inkOn, signedColor, weightColor} from '../../server/http/page/colors.mjs';
import {figuresOf} from '../../server/http/page/figures.mjs';
import {format, formatCell, readNumber} from '../../server/http/page/format.mjs';
import {meaningOf, readWords, unknownWords} from '../../server/http/page/meaning.mjs';
import {picture} from '../../server/http/page/picture.mjs';
import {isVisible, labelsOf, problemOf, Refusal} from '../../server/http/page/problem.mjs';
import {rankingOf, sentenceOf, stepSentence, strongest} from '../../server/http/page/reading.mjs';
import {requestOf, resultOf} from '../../server/http/page/request.mjs';
import {CallError, load} from '../../server/http/page/server.mjs';
import {curlCode, pythonCode} from '../../server/http/page/snippets.mjs';
import {defaultState, readLink, writeLink} from '../../server/http/page/state.mjs';
import {gramsOf, hashOf, identityLayer, randomLayer, vectorOf, wordsOf} from '../../server/http/page/vectors.mjs';

const PAGE = new URL('../../server/http/page/', import.meta.url);

test('the hash is FNV-1a: its published test vectors', () => {
  assert.equal(hashOf(''), 0x811c9dc5);
  assert.equal(hashOf('a'), 0xe40c292c);
  assert.equal(hashOf('foobar'), 0xbf9cf968);
});

test('n-grams are all runs of two and three characters of the marked word', () => {
  assert.deepEqual(gramsOf('Cat'), ['<c', 'ca', 'at', 't>', '<ca', 'cat', 'at>']);
  assert.deepEqual(gramsOf('日'), ['<日', '日>', '<日>']);
});

test('words are runs of letters and digits, with apostrophes inside', () => {
  assert.deepEqual(wordsOf('It\'s 5 o\'clock -- "now"!'), ["It's", '5', "o'clock", 'now']);
  assert.deepEqual(wordsOf(' ... '), []);
});

test('vectors are those of the rule, have the mean square 1, and are equal for words that differ in case alone', () => {
  for (const words of [['cat'], ['a'], ['How', 'do', 'I'], ['Straße'], ['мир']]) {
    for (const size of [8, 32]) assert.deepEqual(vectorOf(words, size).values, vectorByTheRule(words, size));
  }
  const {values} = vectorOf(['attention'], 8);
  assert.ok(Math.abs(values.reduce((sum, value) => sum + value * value, 0) / 8 - 1) < 0.02);
  assert.deepEqual(vectorOf(['THE'], 8).values, vectorOf(['the'], 8).values);
});

test('each number of a vector is its grams, with their signs, times the factor', () => {
  const {values, places, factor} = vectorOf(['drinks'], 8);
  assert.equal(places.flat().length, gramsOf('drinks').length);
  places.forEach((grams, i) =>
    assert.ok(Math.abs(grams.reduce((sum, {sign}) => sum + sign, 0) * factor - values[i]) <= 0.005 + 1e-9),
  );
});

const TABLE = readWords(readFileSync(new URL('words.txt', PAGE), 'utf8'));

test('vectors by meaning are those of the table, and of several words their scaled sum', () => {
  assert.ok(TABLE.size > 3000, String(TABLE.size));
  for (const [word, values] of TABLE) {
    assert.match(word, /^[a-z]+$/);
    assert.ok(values.length === 32 && values.every((value) => value >= -3.2 && value <= 3.1), word);
  }
  for (const words of [['cat'], ['Cat', 'and', 'dog'], ['how', 'do', 'I', 'bake', 'bread']])
    assert.deepEqual(meaningOf(words, TABLE).values, meaningByTheRule(words));
  assert.deepEqual(unknownWords(['Cat', 'xyzzy', 'мир', 'xyzzy'], TABLE), ['xyzzy', 'мир']);
});

test('words that mean similar things have vectors that are alike, which spelling would not give', () => {
  const cosine = (one, other) => {
    const [a, b] = [one, other].map((word) => TABLE.get(word));
    return a.reduce((sum, value, i) => sum + value * b[i], 0) / (Math.hypot(...a) * Math.hypot(...b));
  };
  for (const [word, near, far] of [
    ['cat', 'dog', 'car'],
    ['bread', 'dough', 'broad'],
    ['king', 'queen', 'wing'],
    ['bank', 'loan', 'tank'],
  ])
    assert.ok(cosine(word, near) > 0.5 && cosine(word, near) > cosine(word, far) + 0.2, `${word}, ${near}, ${far}`);
});

test('by meaning, every input of the page as it is first seen can be computed, and unknown words are named', () => {
  for (const input of ['words', 'search']) {
    const problem = problemOf({...defaultState(), input, vectors: 'meaning'}, TABLE);
    assert.equal(problem.size, 32);
  }
  const wrong = {...defaultState(), vectors: 'meaning', text: 'The xyzzy drinks Straße'};
  assert.throws(() => problemOf(wrong, TABLE), /“xyzzy”, “Straße”: not among the \d+ English words/);
  assert.equal(problemOf({...defaultState(), input: 'numbers', vectors: 'meaning'}, null).size, 2);
});

test('a seed gives the same layer on every machine, in hundredths from -0.80 to 0.80, and another seed another', () => {
  const layer = randomLayer(42, 8);
  // Recorded: permalinks show the same numbers for ever.
  assert.deepEqual(layer.query[0], [0.16, -0.08, 0.57, 0.27, -0.52, 0.04, -0.37, 0.2]);
  for (const value of Object.values(layer).flat(2))
    assert.ok(Number.isInteger(Math.round(value * 1e6) / 1e4) && Math.abs(value) <= 0.8, String(value));
  assert.notDeepEqual(randomLayer(43, 8), layer);
  assert.deepEqual(identityLayer(2).key, [
    [1, 0],
    [0, 1],
  ]);
});

test('links hold what differs from the defaults, and give it back', () => {
  assert.equal(writeLink(defaultState()), '');
  const state = {
    ...defaultState(),
    input: 'numbers',
    numbers: 'a: 1 2\nb: 3 & 4 #',
    heads: 2,
    causal: 'yes',
    window: '1',
    temperature: 0.3,
    step: 2,
    word: 1,
    layer: 'spelling',
  };
  assert.deepEqual(readLink(`#${writeLink(state)}`), {state, complaints: []});
});

test('what a link says wrongly is named and left at its default', () => {
  const {state, complaints} = readLink('#heads=5&window=9&seed=1.5&colour=red&temperature=abc&constructor=1&causal=maybe');
  assert.deepEqual(state, defaultState());
  assert.equal(complaints.length, 7);
  assert.match(complaints[0], /heads=5; heads is 1 or 2 or 4\./);
  assert.match(complaints[3], /“colour”, which this page does not know/);
});

test('a link says nothing that the controls cannot show', () => {
  const {state, complaints} = readLink('#heads=3&temperature=0.15');
  assert.deepEqual(state, defaultState());
  assert.deepEqual(complaints, [
    'The link says heads=3; heads is 1 or 2 or 4.',
    'The link says temperature=0.15; temperature is a number from 0.1 to 4, with 1 decimal at most.',
  ]);
  for (let tenths = 1; tenths <= 40; ++tenths)
    assert.equal(readLink(`#temperature=${tenths / 10}`).state.temperature, tenths / 10);
});

test('line ends of any kind may stand between numbers', () => {
  const {rows} = problemOf({...defaultState(), input: 'numbers', numbers: 'a: 1\u20282\n3\r4'});
  assert.deepEqual(
    rows.map(({label, values}) => [label, values]),
    [
      ['a', [1, 2]],
      ['2', [3, 4]],
    ],
  );
});

test('a file that breaks off is a sentence', async (context) => {
  context.mock.method(globalThis, 'fetch', async () => ({ok: true, text: () => Promise.reject(new TypeError('network'))}));
  await assert.rejects(load('words.txt'), CallError);
});

const REFUSED = [
  [{text: ' ,.'}, /at least one word/],
  [{text: 'a '.repeat(25)}, /at most 24 words; here are 25/],
  [{input: 'numbers', numbers: ''}, /at least one line/],
  [{input: 'numbers', numbers: '1 2\n1 x'}, /Line 2: “x” is not a number/],
  [{input: 'numbers', numbers: '1 2\nb: 1'}, /Line 2 holds 1 numbers, the first one 2/],
  [{input: 'numbers', numbers: '1 '.repeat(17)}, /1 to 16 numbers; the first one holds 17/],
  [{input: 'numbers', numbers: '1e300 1'}, /“1e300” is not a number between/],
  [{input: 'numbers', numbers: '1 2 3', heads: 2}, /2 heads cannot share vectors of 3 numbers/],
  [{input: 'search', query: '?'}, /at least one word to search for/],
  [{input: 'search', documents: ''}, /at least one document/],
  [{input: 'search', documents: 'a | b\nc |'}, /Document 2 needs words on both sides/],
];
for (const [changes, sentence] of REFUSED) {
  test(`input that is no problem is refused with a sentence: ${sentence.source}`, () => {
    assert.throws(
      () => problemOf({...defaultState(), ...changes}),
      (error) => error instanceof Refusal && sentence.test(error.message),
    );
  });
}

test('words that occur twice are told apart', () => {
  assert.deepEqual(labelsOf(['to', 'be', 'or', 'not', 'to', 'be']), ['to₁', 'be₁', 'or', 'not', 'to₂', 'be₂']);
  assert.deepEqual(labelsOf(Array(11).fill('a')).slice(9), ['a₁₀', 'a₁₁']);
});

// An answer of the oracle in the server's form.
function answerOf(problem) {
  const request = requestOf(problem);
  const {query, key, value, scores, weights, output} = attention(request);
  const tensor = (shape, values) => ({
    shape: shape.map(String),
    values: values.flat(Infinity).map((number) => (Number.isFinite(number) ? number : String(number))),
  });
  const split = (rows) =>
    Array.from({length: problem.heads}, (_, head) =>
      rows.map((row) => row.slice(head * problem.headSize, (head + 1) * problem.headSize)),
    );
  const [T, S, H, E] = [query.length, key.length, problem.heads, problem.headSize];
  const maps = problem.kind === 'search' ? [T, S] : [H, T, S];
  return {
    query: tensor([H, T, E], split(query)),
    key: tensor([H, S, E], split(key)),
    value: tensor([H, S, E], split(value)),
    scores: tensor(maps, scores),
    attentionWeights: tensor(maps, weights),
    output: tensor([T, output[0].length], output),
    receipt: {serverVersion: '0', kernel: 'none'},
  };
}
const computed = (changes) => {
  const problem = problemOf({...defaultState(), ...changes});
  return {problem, result: resultOf(problem, answerOf(problem))};
};

test('an answer is read by heads, with -Infinity for what is hidden', () => {
  const {problem, result} = computed({heads: 2, causal: 'yes'});
  const expected = attention(requestOf(problem));
  for (const name of ['query', 'key', 'value', 'scores', 'weights', 'output'])
    assert.deepEqual(result[name], expected[name], name);
  assert.equal(result.scores[1][0][1], -Infinity);
});

test('arithmetic takes the numbers of its own head', () => {
  const {problem, result} = computed({heads: 2});
  const [q, k, v] = [result.query[1], result.key[3], result.value];
  const shown = (value) => format(value);
  assert.ok(
    textOf(explainScore(problem, result, 1, 1, 3)).includes(
      `(${shown(q[4])} × ${shown(k[4])} + ${shown(q[5])} × ${shown(k[5])}`,
    ),
  );
  assert.ok(
    textOf(explainOutput(problem, result, 0, 5)).startsWith(`${shown(result.weights[1][0][0])} × ${shown(v[0][5])} + `),
  );
  assert.ok(
    textOf(explainProjection(problem, result, 'key', 2, 6)).startsWith(
      `${shown(problem.rows[2].values[0])} × ${shown(problem.layer.key[6][0])} + `,
    ),
  );
});

test('a request says what the switches say, and the page hides what the formulas hide', () => {
  for (const changes of [{}, {causal: 'yes'}, {window: '0'}, {window: '2'}, {causal: 'yes', window: '1'}]) {
    const {problem, result} = computed(changes);
    const {options} = requestOf(problem).body;
    const width = changes.window === undefined ? undefined : Number(changes.window);
    assert.deepEqual([options.sliding_window_left, options.sliding_window_right], [width, width]);
    assert.equal(options.causal, changes.causal && 'CAUSAL_MODE_BOTTOM_RIGHT');
    result.scores[0].forEach((row, t) => row.forEach((score, j) => assert.equal(isVisible(problem, t, j), score !== -Infinity)));
  }
});

test('a hidden key is left out of the softmax and says why', () => {
  const {problem, result} = computed({causal: 'yes', window: '1'});
  assert.match(explainScore(problem, result, 0, 0, 1).note, /comes later in the text/);
  assert.match(explainScore(problem, result, 0, 3, 0).note, /outside the window/);
  assert.equal(
    textOf(explainWeight(problem, result, 0, 0, 0)),
    `e^(${format(result.scores[0][0][0])}) / (e^(${format(result.scores[0][0][0])})) = 1.000`,
  );
  assert.equal(textOf(explainWeight(problem, result, 0, 0, 1)), 'hidden = 0.000');
});

test('sentences name the strongest key, all of them when they are equal, and none when all are hidden', () => {
  const problem = {kind: 'attend', queries: ['it', 'cat'], keys: ['it', 'cat']};
  assert.equal(
    sentenceOf(
      problem,
      0,
      [
        [0.58, 0.42],
        [0.5, 0.5],
      ].map((row) => row.toReversed?.() ?? [...row].reverse()),
    ),
    '“it” attends most to “cat” (0.58)',
  );
  assert.equal(
    sentenceOf(problem, 1, [
      [1, 0],
      [0.5, 0.5],
    ]),
    '“cat” attends most to “it” and “cat” (0.50 each)',
  );
  assert.equal(sentenceOf(problem, 0, [[0.9, 0.1]]), '“it” attends most to itself (0.90), then to “cat” (0.10)');
  assert.equal(sentenceOf(problem, 0, [[1, 0]]), '“it” attends most to itself (1.00)');
  assert.equal(sentenceOf(problem, 0, [[0, 0]]), '“it” attends to nothing');
  assert.deepEqual(strongest([0.2, 0.4, 0.4]), [1, 2]);
});

test('the narration names all of the strongest keys', () => {
  const problem = {kind: 'attend', heads: 1, queries: ['it'], keys: ['it', 'cat', 'dog']};
  const said = (step, weights) => stepSentence(problem, {weights: [[weights]]}, step, 0);
  assert.match(said(2, [0.4, 0.2, 0.4]), /it fits the keys of “it” and “dog” best\.$/);
  assert.match(said(3, [0.4, 0.2, 0.4]), /add up to 1; “it” and “dog” get the largest\.$/);
  assert.match(said(2, [0.6, 0.2, 0.2]), /it fits the key of “it” best\.$/);
  assert.match(said(3, [0, 0, 0]), /; nothing gets the largest\.$/);
});

test('documents are ranked by weight, equal ones in their order', () => {
  assert.deepEqual(
    rankingOf([0.2, 0.5, 0.2, 0.1]).map(({index}) => index),
    [1, 0, 2, 3],
  );
});

test('numbers are shown without a negative zero and without hiding small ones', () => {
  assert.deepEqual(
    [0, -0, 0.1234, -1.5, 1e-5, -3e-4, 123456, -Infinity].map((value) => format(value)),
    ['0.000', '0.000', '0.123', '−1.500', '1.0e−5', '−3.0e−4', '1.2e+5', '−∞'],
  );
  assert.deepEqual([-0.001, 0.004, -0.126, 12345].map(formatCell), ['0.00', '0.00', '−0.13', '12300']);
});

test('typed numbers are read whole or not at all', () => {
  assert.deepEqual(['1', '-2.5', '−3', '.5', '1e-3', '2.'].map(readNumber), [1, -2.5, -3, 0.5, 0.001, 2]);
  for (const text of ['', 'x', '1x', '0x10', 'Infinity', '1e', '--1', '1,5']) assert.ok(Number.isNaN(readNumber(text)), text);
});

test('text on every colour of both scales has a contrast of 4.5, in both themes', () => {
  for (const theme of ['light', 'dark']) {
    for (let share = -1; share <= 1; share += 0.01) {
      for (const color of [signedColor(share, theme), weightColor(Math.abs(share), theme)])
        assert.ok(contrast(inkOn(color), color) >= 4.5, `${theme} ${share}`);
    }
  }
});

test('what a person typed cannot leave its place in an SVG or in code', () => {
  const nasty = '</svg><script>alert(1)</script>"\'\\: 1 0\nb: 0 1';
  const {problem, result} = computed({input: 'numbers', numbers: nasty});
  const {vectors} = figuresOf(problem, result);
  assert.ok(!picture(vectors, nasty).includes('<script'));
  assert.ok(
    !curlCode(requestOf(problem), 'http://127.0.0.1:1')
      .slice(10)
      .replace(/^.*-d '/s, '')
      .slice(0, -2)
      .includes("'"),
  );
  assert.match(pythonCode(problem), /^words = \["<\/svg><script>alert\(1\)<\/script>\\"'\\\\", "b"\]$/m);
});

test('the page is below 300 kB in all, and asks nobody but its server', () => {
  const files = readdirSync(PAGE);
  const total = files.reduce((sum, name) => sum + readFileSync(new URL(name, PAGE)).length, 0);
  assert.ok(total < 300_000, `${total} bytes`);
  const ids = [...readFileSync(new URL('index.html', PAGE), 'utf8').matchAll(/ id="([^"]+)"/g)].map(([, id]) => id);
  assert.deepEqual(ids, [...new Set(ids)]);
  for (const name of files) {
    const text = readFileSync(new URL(name, PAGE), 'utf8').replaceAll('http://www.w3.org/2000/svg', '');
    assert.ok(!/https?:\/\/|style="|\son\w+="|innerHTML/.test(text), name);
  }
});
