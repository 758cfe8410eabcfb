// Everything can be done with the keyboard alone, and what has the focus is seen and said.

import assert from 'node:assert/strict';
import {after, before, test} from 'node:test';

import {startServer} from './attend_server.mjs';
import {assertQuiet, changed, openPage, readFigures, settled, startBrowser, visit} from './browser.mjs';

let server, browser;
before(async () => ([server, browser] = await Promise.all([startServer(), startBrowser()])));
after(async () => {
  await browser?.close();
  await server?.stop();
});

// The focused element: its name, and whether a person sees that it has the focus.
const focused = (page) =>
  page.evaluate(() => {
    const here = document.activeElement;
    // A radio button is drawn by the text beside it.
    const drawn = here.type === 'radio' ? here.nextElementSibling : here;
    const style = getComputedStyle(drawn);
    const box = drawn.getBoundingClientRect();
    const panel = document.getElementById('inspector').getBoundingClientRect();
    const middle = box.top + Math.min(box.height, innerHeight / 4) / 2;
    return {
      tag: here.tagName,
      id: here.id,
      field: here.dataset?.field,
      figure: here.closest('[data-figure]')?.dataset.figure,
      name: here.ariaLabel || here.textContent.trim().slice(0, 40) || here.id,
      outline: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2,
      inView: here.id === 'inspector' || (middle > 0 && middle < panel.top),
    };
  });

// Presses Tab until `wanted` has the focus; fails where the focus is not seen.
async function tabTo(page, wanted, key = 'Tab') {
  for (let presses = 0; presses < 80; ++presses) {
    await page.keyboard.press(key);
    const here = await focused(page);
    if (here.tag === 'BODY') continue;
    assert.ok(here.outline, `no outline on ${JSON.stringify(here)}`);
    assert.ok(here.inView, `out of view: ${JSON.stringify(here)}`);
    if (wanted(here)) return here;
  }
  return assert.fail('Tab does not lead there');
}

test('a person without a mouse types a text, sets every switch, steps, and reads the arithmetic of every cell', async () => {
  const visitor = await openPage(browser);
  const {page} = visitor;
  await visit(page, server.origin);

  await tabTo(page, ({tag}) => tag === 'A');
  await page.keyboard.press('Enter');
  await tabTo(page, ({field}) => field === 'input');
  await tabTo(page, ({field}) => field === 'text');
  await page.keyboard.press('Control+a');
  await changed(page, () => page.keyboard.type('red fish blue fish'));
  await settled(page);
  await tabTo(page, ({field}) => field === 'layer');
  await tabTo(page, ({field}) => field === 'seed');
  await changed(page, () => page.keyboard.press('ArrowUp'));
  await tabTo(page, ({field}) => field === 'heads');
  await changed(page, () => page.keyboard.press('ArrowRight'));
  await tabTo(page, ({field}) => field === 'causal');
  await changed(page, () => page.keyboard.press('Space'));
  await tabTo(page, ({field}) => field === 'window');
  await changed(page, () => page.keyboard.press('ArrowDown'));
  await tabTo(page, ({field}) => field === 'temperature');
  await changed(page, () => page.keyboard.press('ArrowRight'));
  assert.match(page.url(), /text=red\+fish\+blue\+fish&seed=43&heads=2&causal=yes&window=0&temperature=1.1/);

  await tabTo(page, ({name}) => name === '3 Softmax');
  await page.keyboard.press('Enter');
  assert.equal(await page.locator('section[data-step="4"]').isVisible(), false);
  await tabTo(page, ({name}) => name === 'blue');
  await page.keyboard.press('Enter');
  assert.equal((await focused(page)).name, 'blue', 'the focus stays where it was');

  await tabTo(page, ({figure}) => figure === 'weights-2');
  const {'weights-2': weights} = await readFigures(page);
  assert.equal((await focused(page)).name, weights.names[0][0]);
  const moves = [
    ['ArrowRight', 0, 1],
    ['ArrowDown', 1, 1],
    ['End', 1, 3],
    ['ArrowRight', 1, 3],
    ['Home', 1, 0],
    ['Control+End', 3, 3],
    ['ArrowDown', 3, 3],
    ['ArrowUp', 2, 3],
    ['ArrowLeft', 2, 2],
    ['Control+Home', 0, 0],
  ];
  for (const [key, row, column] of moves) {
    await page.keyboard.press(key);
    assert.equal((await focused(page)).name, weights.names[row][column], key);
    assert.equal(
      await page.locator('#inspector-heading').textContent(),
      `How much “${weights.rows[row]}” attends to “${weights.columns[column]}”`,
    );
    assert.equal(await page.locator('#inspector').getAttribute('aria-live'), 'polite');
  }
  await tabTo(page, ({figure}) => figure === undefined);
  await tabTo(page, ({figure}) => figure === 'weights-2', 'Shift+Tab');
  await tabTo(page, ({id}) => id === 'inspector');
  assertQuiet(visitor, server.origin);
  await visitor.close();
});

test('the link to the input leads there, and leaves the state as it is', async () => {
  const visitor = await openPage(browser);
  const {page} = visitor;
  await visit(page, server.origin, 'text=red+fish&heads=2');
  await tabTo(page, ({tag}) => tag === 'A');
  await page.keyboard.press('Enter');
  assert.equal((await focused(page)).id, 'controls');
  assert.equal(new URL(page.url()).hash, '#text=red+fish&heads=2');
  assert.equal(await page.getByLabel('Your text').inputValue(), 'red fish');
  assert.equal(await page.locator('#link-message').textContent(), '');
  assert.deepEqual((await readFigures(page))['weights-2'].rows, ['red', 'fish']);
  assertQuiet(visitor, server.origin);
  await visitor.close();
});

test('every control and every cell has a name for screen readers', async () => {
  const {page, close} = await openPage(browser);
  await visit(page, server.origin, 'heads=2');
  for (const role of [
    'button',
    'radio',
    'checkbox',
    'textbox',
    'combobox',
    'slider',
    'spinbutton',
    'grid',
    'gridcell',
    'rowheader',
    'columnheader',
    'img',
  ]) {
    const all = await page.getByRole(role).count();
    const named = await page.getByRole(role, {name: /\S/}).count();
    assert.ok(all > 0 && named === all, `${role}: ${named} of ${all} have a name`);
  }
  await page
    .getByRole('grid', {name: 'Weights, head 2: each row adds up to 1'})
    .getByRole('gridcell', {name: /^cat, milk: 0\.\d\d$/})
    .waitFor();
  await close();
});
