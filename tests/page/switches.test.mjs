// Each switch does what it says, links bring back what they were made from, and what cannot be computed is a sentence.

import assert from 'node:assert/strict';
import {execFileSync} from 'node:child_process';
import {readFileSync} from 'node:fs';
import {join} from 'node:path';
import {after, before, test} from 'node:test';

import {BUILD_DIR, startServer} from './attend_server.mjs';
import {assertQuiet, changed, openPage, readFigures, settled, startBrowser, visit} from './browser.mjs';

let server, browser;
before(async () => ([server, browser] = await Promise.all([startServer(), startBrowser()])));
after(async () => {
  await browser?.close();
  await server?.stop();
});

// Runs `body` with a page, and holds it to silence on the console and to its own server.
function pageTest(name, link, body) {
  test(name, async () => {
    const visitor = await openPage(browser, {permissions: ['clipboard-read', 'clipboard-write'], acceptDownloads: true});
    await visit(visitor.page, server.origin, link);
    await body(visitor.page, visitor);
    assertQuiet(visitor, server.origin);
    await visitor.close();
  });
}

// The request that `action` makes the page send.
async function sentBy(page, action) {
  const [request] = await Promise.all([page.waitForRequest((one) => one.method() === 'POST'), changed(page, action)]);
  return request.postDataJSON();
}

pageTest('every switch is in the request, and its effect on the page', '', async (page) => {
  let body = await sentBy(page, () => page.getByLabel('no looking ahead').check());
  assert.equal(body.options.causal, 'CAUSAL_MODE_BOTTOM_RIGHT');
  let {'weights-1': weights} = await readFigures(page);
  weights.values.forEach((row, t) => row.forEach((weight, j) => assert.equal(weight === 0, j > t)));
  assert.equal(weights.names[0][1], 'The, cat: 0');

  body = await sentBy(page, () => page.getByLabel('Window').selectOption('1'));
  assert.deepEqual([body.options.sliding_window_left, body.options.sliding_window_right], [1, 1]);
  ({'weights-1': weights} = await readFigures(page));
  weights.values.forEach((row, t) => row.forEach((weight, j) => assert.equal(weight === 0, j > t || j < t - 1)));

  body = await sentBy(page, () => page.getByLabel('Temperature').fill('2'));
  assert.equal(body.options.scale, 1 / (Math.sqrt(8) * 2));
  assert.equal(await page.locator('#scale-value').textContent(), '0.177');

  body = await sentBy(page, () => page.getByRole('radio', {name: '4'}).check());
  assert.equal(body.layer.num_heads, 4);
  assert.equal(Object.keys(await readFigures(page)).filter((id) => id.startsWith('weights-')).length, 4);

  const before = body.layer.query_projection.weight.values;
  body = await sentBy(page, () => page.getByLabel('Seed').fill('43'));
  assert.notDeepEqual(body.layer.query_projection.weight.values, before);

  body = await sentBy(page, () => page.getByLabel('Vectors', {exact: true}).selectOption('meaning'));
  assert.deepEqual(body.embeddings.shape, [5, 32]);
  assert.match(await page.locator('#honest-vectors').textContent(), /trained model/);
  await changed(page, () => page.getByLabel('Vectors', {exact: true}).selectOption('spelling'));

  body = await sentBy(page, () => page.getByLabel('Layer').selectOption('spelling'));
  assert.deepEqual(
    body.layer.key_projection.weight.values,
    Array.from({length: 64}, (_, i) => (i % 9 === 0 ? 1 : 0)),
  );
  assert.equal(await page.getByLabel('Seed').isVisible(), false);

  body = await sentBy(page, () => page.getByRole('button', {name: 'Start over'}).click());
  assert.equal(body.options.causal, undefined);
  assert.equal(new URL(page.url()).hash, '');
});

pageTest('typing a text, numbers or a search draws them', '', async (page) => {
  await changed(page, () => page.getByLabel('Your text').fill('one two'));
  assert.deepEqual((await readFigures(page)).x.rows, ['one', 'two']);
  await changed(page, () => page.getByRole('radio', {name: 'Numbers'}).check());
  await changed(page, () => page.getByLabel('A vector on each line').fill('up: 1 2 3\n4 5 6'));
  const {x} = await readFigures(page);
  assert.deepEqual(
    [x.rows, x.values],
    [
      ['up', '2'],
      [
        [1, 2, 3],
        [4, 5, 6],
      ],
    ],
  );
  assert.deepEqual(await page.locator('[name="heads"]').evaluateAll((all) => all.map((radio) => radio.disabled)), [
    false,
    true,
    true,
  ]);
  await changed(page, () => page.getByRole('radio', {name: 'Search'}).check());
  await changed(page, () => page.getByRole('textbox', {name: 'What you look for'}).fill('pruned rose'));
  assert.match(await page.locator('#ranked li').first().textContent(), /Roses need pruning/);
  assert.equal(await page.getByLabel('Window').isVisible(), false);
});

pageTest("the ranked result is in the order of the server's weights", 'input=search', async (page) => {
  const {'weights-1': weights} = await readFigures(page);
  const ranked = await page.locator('#ranked b').evaluateAll((all) => all.map((one) => Number(one.dataset.value)));
  assert.deepEqual(
    ranked,
    [...weights.values[0]].sort((a, b) => b - a),
  );
  assert.match(await page.locator('#reading').textContent(), /The query attends most to “1 bread” \(0\.\d\d\)/);
});

pageTest('a sentence for each word says which it attends to most', '', async (page) => {
  const {'weights-1': weights} = await readFigures(page);
  const sentences = await page.locator('.sentences li').allTextContents();
  weights.values.forEach((row, t) => {
    const ranked = row.map((_, j) => j).sort((a, b) => row[b] - row[a]);
    const named = (j) => `${j === t ? 'itself' : `“${weights.columns[j]}”`} (${row[j].toFixed(2)})`;
    const then = ranked[0] === t ? `, then to ${named(ranked[1])}` : '';
    assert.equal(sentences[t], `“${weights.rows[t]}” attends most to ${named(ranked[0])}${then}.`);
  });
});

pageTest('following a word picks its row in every map, and needs no new answer', '', async (page, {requests}) => {
  const calls = () => requests.filter((one) => one.method() === 'POST').length;
  assert.equal(calls(), 1);
  await page.getByRole('group', {name: 'Follow a word'}).getByRole('button', {name: 'its'}).click();
  const picked = await page.locator('tr.picked th').allTextContents();
  assert.deepEqual(picked, ['its', 'its', 'its', 'its']);
  assert.match(await page.locator('.sentences .picked').textContent(), /^“its” attends most/);
  assert.match(page.url(), /word=3/);
  assert.equal(calls(), 1);
});

pageTest('stepping through shows one step more at a time, with a sentence', '', async (page) => {
  const visible = () =>
    page.locator('section[data-step]:visible').evaluateAll((all) => all.map((one) => one.dataset.step).join(''));
  assert.equal(await visible(), '1234');
  for (const [button, shown] of [
    ['Step through', '1'],
    ['Next', '12'],
    ['Next', '123'],
    ['Next', '1234'],
  ]) {
    await page.getByRole('button', {name: button, exact: true}).click();
    assert.equal(await visible(), shown);
    assert.match(await page.locator('#narration').textContent(), new RegExp(`^Step ${shown.length}\\. .*“The”`));
  }
  await page.getByRole('button', {name: 'Back'}).click();
  assert.equal(await visible(), '123');
  await page.getByRole('button', {name: '1 Vectors'}).click();
  assert.equal(await visible(), '1');
  await page.getByRole('button', {name: 'All', exact: true}).click();
  assert.equal(await visible(), '1234');
  assert.equal(await page.locator('#narration').textContent(), '');
});

pageTest('a link brings back everything that it was made from', '', async (page, visitor) => {
  await changed(page, () => page.getByLabel('Your text').fill('a & b = “c” #4 +5'));
  await changed(page, () => page.getByRole('radio', {name: '2'}).check());
  await changed(page, () => page.getByLabel('no looking ahead').check());
  await changed(page, () => page.getByLabel('Window').selectOption('3'));
  await changed(page, () => page.getByLabel('Temperature').fill('0.7'));
  await changed(page, () => page.getByLabel('Seed').fill('9'));
  await page.getByRole('group', {name: 'Follow a word'}).getByRole('button', {name: 'c'}).click();
  await page.getByRole('button', {name: '2 Similarity'}).click();
  await page.getByRole('button', {name: 'Copy link'}).click();
  const link = await page.evaluate(() => navigator.clipboard.readText());
  const other = await openPage(browser);
  await other.page.goto(link);
  await settled(other.page);
  assert.deepEqual(await readFigures(other.page), await readFigures(page));
  const look = (one) =>
    one.evaluate(() =>
      [...document.querySelectorAll('[data-field]')]
        .map((control) => [control.dataset.field, control.value, control.checked])
        .concat([...document.querySelectorAll('[aria-pressed=true]')].map((button) => button.textContent)),
    );
  assert.deepEqual(await look(other.page), await look(page));
  assertQuiet(other, server.origin);
  await other.close();
  assert.equal(
    visitor.requests.some((one) => one.url().includes('heads')),
    false,
    'the state stays in the fragment, which is not sent',
  );
});

pageTest('another fragment in the address bar is followed', '', async (page) => {
  await page.evaluate(() => (document.body.dataset.status = 'waiting'));
  await page.evaluate(() => (location.hash = '#text=x+y&heads=2'));
  await settled(page);
  assert.deepEqual((await readFigures(page))['weights-2'].rows, ['x', 'y']);
});

pageTest('a wrong link says so in a sentence, and the rest of it counts', 'heads=9&text=x+y', async (page) => {
  assert.equal(
    await page.locator('#link-message').textContent(),
    'The link says heads=9; heads is 1 or 2 or 4.',
  );
  assert.deepEqual((await readFigures(page)).x.rows, ['x', 'y']);
});

pageTest('input that is no problem is refused with a sentence, without a call', '', async (page, {requests}) => {
  const count = () => requests.filter((one) => one.method() === 'POST').length;
  const calls = count();
  assert.equal(await changed(page, () => page.getByLabel('Your text').fill('?')), 'refused');
  assert.equal(await page.locator('#message').textContent(), 'Type at least one word.');
  assert.equal(count(), calls);
  assert.equal(await changed(page, () => page.getByLabel('Your text').fill('fine')), 'ready');
  assert.equal(await page.locator('#message').isVisible(), false);
});

pageTest('after a refusal the old numbers are dim and stay what they were, also for who follows a step', '', async (page) => {
  const said = () => page.locator('#honest-layer, #honest-vectors').allTextContents();
  const dim = () => page.locator('#scores').evaluate((one) => getComputedStyle(one.closest('.shown')).opacity);
  const before = await said();
  assert.equal(await dim(), '1');
  assert.equal(await changed(page, () => page.getByLabel('Your text').fill('?')), 'refused');
  assert.equal(await changed(page, () => page.getByLabel('Seed').fill('7')), 'refused');
  await page.getByRole('button', {name: '3 Softmax'}).click();
  assert.deepEqual(await said(), before);
  assert.equal(await dim(), '0.6');
});

pageTest('a browser that lets no page change its address so often draws all the same', '', async (page) => {
  await page.evaluate(() => {
    history.replaceState = () => {
      throw new DOMException('too often', 'SecurityError');
    };
  });
  assert.equal(await changed(page, () => page.getByLabel('Your text').fill('one two')), 'ready');
  assert.deepEqual((await readFigures(page)).x.rows, ['one', 'two']);
  await page.getByRole('button', {name: 'Copy link'}).click();
  assert.match(await page.evaluate(() => navigator.clipboard.readText()), /#text=one\+two$/);
  await page.evaluate(() => delete history.replaceState);
  await page.waitForFunction(() => location.hash === '#text=one+two');
});

test('an answer that is none of attend is a sentence, and the page goes on', async () => {
  const {page, close} = await openPage(browser);
  await visit(page, server.origin);
  await page.route('**/Attend', (route) => route.fulfill({json: {}}));
  assert.equal(await changed(page, () => page.getByLabel('Your text').fill('one two')), 'refused');
  assert.match(await page.locator('#message').textContent(), /^The page could not compute this \(.+\)\.$/);
  await page.unroute('**/Attend');
  assert.equal(await changed(page, () => page.getByLabel('Your text').fill('one')), 'ready');
  await close();
});

test("what the server refuses is a sentence with the server's reason", async () => {
  const small = await startServer('--max-request-flops', '10');
  const {page, close} = await openPage(browser);
  assert.equal(await visit(page, small.origin), 'refused');
  assert.match(
    await page.locator('#message').textContent(),
    /^The server refused this \(resource exhausted\): .*--max-request-flops.*\.$/,
  );
  await close();
  await small.stop();
});

test('a server that is gone is a sentence', async () => {
  const mortal = await startServer();
  const {page, close} = await openPage(browser);
  await visit(page, mortal.origin);
  await mortal.stop();
  assert.equal(await changed(page, () => page.getByLabel('Your text').fill('anybody there')), 'refused');
  assert.equal(await page.locator('#message').textContent(), 'The server does not answer. Is attend-server still running?');
  await close();
});

for (const [name, link] of [
  ['attention over words', 'heads=2&causal=yes&window=2&temperature=0.7'],
  ['search', 'input=search&temperature=0.5'],
]) {
  pageTest(`the code for curl gives what the page shows: ${name}`, link, async (page) => {
    await page.locator('#curl-shown summary').click();
    await page.getByRole('button', {name: 'Copy curl'}).click();
    const code = await page.evaluate(() => navigator.clipboard.readText());
    const answer = JSON.parse(execFileSync('bash', ['-c', code], {encoding: 'utf8'}));
    const figures = await readFigures(page);
    assert.deepEqual(answer.output.values, figures.output.values.flat());
    const weights = Object.entries(figures)
      .filter(([id]) => id.startsWith('weights-'))
      .flatMap(([, figure]) => figure.values.flat());
    assert.deepEqual(answer.attentionWeights.values, weights);
  });

  pageTest(`the code for Python gives what the page says: ${name}`, link, async (page) => {
    await page.locator('#python-shown summary').click();
    await page.getByRole('button', {name: 'Copy Python'}).click();
    const code = await page.evaluate(() => navigator.clipboard.readText());
    const environment = {...process.env, PYTHONPATH: join(BUILD_DIR, 'python-site'), ATTEND_ENDPOINTS: server.grpc};
    const printed = execFileSync('/usr/bin/python3', ['-'], {input: code, encoding: 'utf8', env: environment})
      .trim()
      .split('\n');
    if (name === 'search') {
      const ranked = await page.locator('#ranked li p:first-child').allTextContents();
      assert.deepEqual(
        printed.map((line) => line.replace(/ +/, ' ')),
        ranked,
      );
    } else {
      const said = await page
        .locator('.head')
        .evaluateAll((heads) =>
          heads.flatMap((head, i) => [...head.querySelectorAll('li')].map((line) => `head ${i + 1}: ${line.textContent}`)),
        );
      const own = said.map((line) =>
        line
          .replaceAll(/[“”]/g, '')
          .replace(/^(head \d: (\S+) attends most to) itself/, '$1 $2')
          .replace(/(, then to .*)?\.$/, ''),
      );
      assert.deepEqual(printed, own);
    }
  });
}

pageTest('the SVG holds every number that the page shows, and is a picture by itself', 'heads=2', async (page) => {
  const [download] = await Promise.all([
    page.waitForEvent('download'),
    page.getByRole('button', {name: 'Download SVG'}).click(),
  ]);
  assert.equal(download.suggestedFilename(), 'attention.svg');
  const text = readFileSync(await download.path(), 'utf8');
  const shown = Object.entries(await readFigures(page))
    .filter(([id]) => !id.startsWith('matrix') && id !== 'values')
    .flatMap(([, {texts}]) => texts.flat());
  const drawn = await page.evaluate((svg) => {
    const parsed = new DOMParser().parseFromString(svg, 'image/svg+xml');
    if (parsed.querySelector('parsererror')) throw new Error(parsed.documentElement.textContent);
    return [...parsed.querySelectorAll('text[font-size="10"]')].map((one) => one.textContent);
  }, text);
  assert.deepEqual(drawn.sort(), shown.sort());
});
