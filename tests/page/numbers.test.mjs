// Every number on the page is the server's, and the arithmetic that explains it is right.

import assert from 'node:assert/strict';
import {after, before, test} from 'node:test';

import {startServer} from './attend_server.mjs';
import {assertQuiet, openPage, readFigures, startBrowser, visit} from './browser.mjs';
import {attention, meaningOf, rowsOf, vectorOf} from './oracle.mjs';

let server, browser;
before(async () => ([server, browser] = await Promise.all([startServer(), startBrowser()])));
after(async () => {
  await browser?.close();
  await server?.stop();
});

const CASES = {
  'five words': '',
  'four heads, causal, window': 'heads=4&causal=yes&window=2&text=to+be+or+not+to+be+that+is+the+question',
  'spelling, two heads': 'layer=spelling&heads=2&text=cat+cats+catch+dog',
  cold: 'temperature=0.1&seed=7&window=0',
  '24 words': `heads=2&temperature=4&text=${'one+two+three+four+five+six+'.repeat(4).slice(0, -1)}`,
  'other alphabets': `text=${encodeURIComponent("l'été über Straße мир 日本 don’t 42")}`,
  'one word': 'text=a',
  numbers: 'input=numbers&heads=2',
  'large and small numbers': `input=numbers&numbers=${encodeURIComponent('a: 1e6 -1e-6 3\nb: -2.5 0 1\n.5, 6; 7')}`,
  search: 'input=search',
  meaning: 'vectors=meaning&layer=spelling&heads=2&text=Cats+drink+milk%2C+dogs+eat+meat',
  'search by meaning': 'input=search&vectors=meaning',
  'sharp search': `input=search&temperature=0.2&query=roses&documents=${encodeURIComponent('roses | a\nposes | b\nroses | c')}`,
};

// What the code for curl on the page sends.
async function requestOf(page) {
  const code = await page.locator('#curl').textContent();
  const [, method, body] = /AttentionService\/(\w+) [^]* -d '([^']*)'\n$/.exec(code);
  return {method, body: JSON.parse(body)};
}

async function ask({method, body}) {
  const response = await fetch(`${server.origin}/attend.v1.AttentionService/${method}`, {
    method: 'POST',
    headers: {'content-type': 'application/json'},
    body: JSON.stringify(body),
  });
  assert.equal(response.status, 200, await response.clone().text());
  return response.json();
}

// The flat numbers of each figure, from the server's own answer to the same request, where [tokens][heads * E] is flattened from
// [heads][tokens][E].
function flatFigures({method, body}, answer) {
  const numbers = (tensor) => tensor.values.map(Number);
  const heads = body.layer?.num_heads ?? 1;
  const joined = (tensor) => {
    const [, tokens, size] = tensor.shape.map(Number);
    const flat = numbers(tensor);
    return Array.from({length: tokens * heads * size}, (_, i) => {
      const [token, head, e] = [Math.floor(i / (heads * size)), Math.floor((i % (heads * size)) / size), i % size];
      return flat[(head * tokens + token) * size + e];
    });
  };
  const split = (tensor) => {
    const flat = numbers(tensor);
    return Array.from({length: heads}, (_, head) =>
      flat.slice((head * flat.length) / heads, ((head + 1) * flat.length) / heads),
    );
  };
  const given =
    method === 'Attend'
      ? {
          x: body.embeddings.values,
          q: joined(answer.query),
          k: joined(answer.key),
          v: joined(answer.value),
          'matrix-q': body.layer.query_projection.weight.values,
          'matrix-k': body.layer.key_projection.weight.values,
          'matrix-v': body.layer.value_projection.weight.values,
        }
      : {q: body.query.values, k: body.key.values, v: body.value.values};
  const perHead = (name, tensor) => Object.fromEntries(split(tensor).map((values, head) => [`${name}-${head + 1}`, values]));
  return {
    ...given,
    values: given.v,
    ...perHead('scores', answer.scores),
    ...perHead('weights', answer.attentionWeights),
    output: numbers(answer.output),
  };
}

function assertNear(
  actual,
  expected,
  what,
  scale = Math.max(1, ...expected.flat(Infinity).filter(Number.isFinite).map(Math.abs)),
) {
  const [one, other] = [actual.flat(Infinity), expected.flat(Infinity)];
  assert.equal(one.length, other.length, what);
  other.forEach((value, i) =>
    assert.ok(one[i] === value || Math.abs(one[i] - value) <= 2e-5 * scale, `${what}[${i}]: ${one[i]}, expected ${value}`),
  );
}

// The number of decimals that a cell's text shows, and whether it is the value rounded to them.
function assertShows(text, value, what) {
  if (text === '·') return assert.ok(!Number.isFinite(value) || value === 0, `${what}: ${text} for ${value}`);
  const shown = Number(text.replaceAll('−', '-'));
  const decimals = /\.(\d+)$/.exec(text)?.[1].length ?? 0;
  const tolerance = Math.abs(value) >= 100 ? Math.abs(value) * 0.0501 : 0.5000001 * 10 ** -decimals;
  assert.ok(Math.abs(shown - value) <= tolerance, `${what}: shows ${text} for ${value}`);
}

for (const [name, link] of Object.entries(CASES)) {
  test(`every number is the server's, and right by a float64 computation: ${name}`, async () => {
    const visitor = await openPage(browser);
    assert.equal(await visit(visitor.page, server.origin, link), 'ready');
    const request = await requestOf(visitor.page);
    const figures = await readFigures(visitor.page);
    for (const id of Object.keys(figures).filter((one) => !one.startsWith('matrix')))
      assert.ok(await visitor.page.locator(`[data-figure="${id}"]`).isVisible(), `${id} is seen`);
    const expected = flatFigures(request, await ask(request));
    assert.deepEqual(Object.keys(figures).sort(), Object.keys(expected).sort());
    for (const [id, figure] of Object.entries(figures)) {
      assert.deepEqual(figure.values.flat(), expected[id], id);
      figure.texts.flat().forEach((text, i) => text !== '' && assertShows(text, figure.values.flat()[i], `${id}[${i}]`));
    }
    const oracle = attention(request);
    for (const [id, key] of [
      ['q', 'query'],
      ['k', 'key'],
      ['v', 'value'],
      ['output', 'output'],
    ])
      assertNear(figures[id].values, oracle[key], id);
    oracle.scores.forEach((scores, head) => assertNear(figures[`scores-${head + 1}`].values, scores, 'scores'));
    if (name !== 'large and small numbers')
      oracle.weights.forEach((weights, head) => assertNear(figures[`weights-${head + 1}`].values, weights, 'weights'));
    assertQuiet(visitor, server.origin);
    await visitor.close();
  });
}

test('vectors follow the rule that the page and its documentation state', async () => {
  const visitor = await openPage(browser);
  await visit(visitor.page, server.origin, CASES['other alphabets']);
  const words = ["l'été", 'über', 'Straße', 'мир', '日本', 'don’t', '42'];
  const {x} = await readFigures(visitor.page);
  assert.deepEqual(x.rows, words);
  assert.deepEqual(
    x.values,
    words.map((word) => vectorOf([word], 8)),
  );
  await visit(visitor.page, server.origin, 'input=search');
  const {body} = await requestOf(visitor.page);
  assert.deepEqual(body.query.values, vectorOf(['How', 'do', 'I', 'bake', 'bread'], 32));
  assert.deepEqual(rowsOf(body.key)[0], vectorOf(['bread', 'dough', 'baking'], 32));
  assert.deepEqual(rowsOf(body.value)[1], vectorOf(['The', 'bakery', 'opens', 'at', 'six', 'and', 'closes', 'at', 'noon'], 32));
  await visit(visitor.page, server.origin, CASES.meaning);
  const meaning = (await readFigures(visitor.page)).x;
  assert.deepEqual(
    meaning.values,
    ['cats', 'drink', 'milk', 'dogs', 'eat', 'meat'].map((word) => meaningOf([word])),
  );
  await visit(visitor.page, server.origin, CASES['search by meaning']);
  const search = (await requestOf(visitor.page)).body;
  assert.deepEqual(search.query.values, meaningOf(['how', 'do', 'i', 'bake', 'bread']));
  assert.deepEqual(rowsOf(search.key)[0], meaningOf(['bread', 'dough', 'baking']));
  await visitor.close();
});

// The formula of the panel as JavaScript: e with a raised score is Math.exp.
const readPanel = (page) =>
  page.evaluate(() => {
    const parts = [...document.getElementById('inspector-formula').children].filter((part) => part.className !== 'role-gram');
    const result = parts.at(-1).textContent;
    const formula = parts
      .slice(0, -2)
      .map((part) => (part.tagName === 'SUP' ? `xp(${part.textContent})` : part.textContent))
      .join('');
    return {
      formula,
      result,
      heading: document.getElementById('inspector-heading').textContent,
      note: document.getElementById('inspector-note').textContent,
    };
  });

// Evaluates a formula whose numbers are rounded to three decimals, and bounds what that rounding does to it.
function evaluate(formula) {
  const code = formula.replaceAll('−', '-').replaceAll('×', '*').replaceAll(/exp\(/g, 'Math.exp(');
  const numbers = code.match(/\d+\.\d+/g)?.map(Number) ?? [];
  return {
    value: Function(`return ${code.replaceAll('- -', '+ ').replaceAll('--', '+')}`)(),
    slack: 0.0005 * (2 + numbers.reduce((sum, number) => sum + number + 0.001, 0)),
  };
}

for (const [name, link] of [
  ['words', 'causal=yes&heads=2'],
  ['numbers', 'input=numbers'],
  ['search', 'input=search'],
  ['meaning', 'vectors=meaning&layer=spelling&text=cat+dog'],
  ['search by meaning', 'input=search&vectors=meaning'],
]) {
  test(`pointing at a cell shows arithmetic that gives the server's number: ${name}`, async () => {
    const visitor = await openPage(browser);
    await visit(visitor.page, server.origin, link);
    await visitor.page.evaluate(() => document.querySelectorAll('details').forEach((part) => (part.open = true)));
    const figures = await readFigures(visitor.page);
    for (const [id, {values}] of Object.entries(figures)) {
      const cells = values
        .flatMap((row, r) => row.map((value, c) => [r, c, value]))
        .filter((_, i, all) => all.length <= 40 || i % 7 === 0);
      for (const [row, column, value] of cells) {
        await visitor.page
          .locator(`[data-figure="${id}"] td[data-row="${row}"][data-column="${column}"]`)
          .dispatchEvent('pointerover');
        const {formula, result, heading} = await readPanel(visitor.page);
        const what = `${id}[${row}][${column}] “${heading}”: ${formula} = ${result}`;
        if (id.startsWith('matrix')) continue;
        if (/^(hidden|as you typed|as the model has it|no n-gram)/.test(formula)) {
          assertShows(result.replace('−∞', '·'), value, what);
          continue;
        }
        const {value: computed, slack} = evaluate(formula);
        const rounding = /\.\d\d$/.test(result) ? 0.005 : 0;
        assert.ok(
          Math.abs(computed - value) <= slack + rounding,
          `${what}; the formula gives ${computed}, the server ${value}`,
        );
        assertShows(result, value, what);
      }
    }
    assertQuiet(visitor, server.origin);
    await visitor.close();
  });
}
