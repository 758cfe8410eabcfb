// The page in both themes, from a phone to a projector: accessible, within its width, small and quick. Leaves pictures of it in
// build/page, for people to look at.

import assert from 'node:assert/strict';
import {after, before, test} from 'node:test';

import {startServer} from './attend_server.mjs';
import {assertQuiet, axe, LAPTOP, openPage, screenshot, startBrowser, visit} from './browser.mjs';

let server, browser;
before(async () => ([server, browser] = await Promise.all([startServer(), startBrowser()])));
after(async () => {
  await browser?.close();
  await server?.stop();
});

const VIEWPORTS = {phone: {width: 360, height: 740}, laptop: LAPTOP, projector: {width: 1920, height: 1080}};
const LINKS = {
  words: '',
  heads: 'heads=2&causal=yes&window=3&word=3&text=The+quick+brown+fox+jumps+over+the+lazy+dog',
  numbers: 'input=numbers&layer=spelling&step=3',
  search: 'input=search',
  meaning: 'vectors=meaning&layer=spelling&temperature=2&text=Cats+and+dogs+eat+meat%2C+bread+and+cheese',
  long: `text=${'one+two+three+four+five+six+'.repeat(4)}`,
  word: `step=3&text=${'incomprehensibility'.repeat(8)}`,
  address: `input=search&documents=${'a'.repeat(200)}+%7C+${'b'.repeat(200)}`,
  refused: 'text=%3F&heads=9',
};

const open = (page) => page.evaluate(() => document.querySelectorAll('details').forEach((part) => (part.open = true)));

for (const theme of ['light', 'dark']) {
  for (const [size, viewport] of Object.entries(VIEWPORTS)) {
    test(`axe finds no violation, and nothing is wider than the screen: ${theme}, ${size}`, async () => {
      for (const [name, link] of Object.entries(LINKS)) {
        const visitor = await openPage(browser, {viewport, colorScheme: theme});
        const {page} = visitor;
        await visit(page, server.origin, link);
        await page
          .locator('[data-figure="weights-1"] td')
          .nth(0)
          .focus({timeout: 1000})
          .catch(() => {});
        await screenshot(page, `${name}-${size}-${theme}`);
        // The panel would hide a part of a picture of the whole page.
        const showPanel = (shown) =>
          page.evaluate((display) => (document.getElementById('inspector').style.display = display), shown ? '' : 'none');
        await showPanel(false);
        await screenshot(page, `${name}-${size}-${theme}-full`, {fullPage: true});
        await showPanel(true);
        await open(page);
        assert.equal(
          await page.evaluate(() => document.documentElement.scrollWidth),
          viewport.width,
          `${name}: wider than the screen`,
        );
        assert.deepEqual(await axe(page), [], name);
        assertQuiet(visitor, server.origin);
        await visitor.close();
      }
    });
  }
}

test('the switch for colours wins over the system, is remembered, and draws the heatmaps anew', async () => {
  const {page, close} = await openPage(browser);
  await visit(page, server.origin);
  const colors = () =>
    page.evaluate(() => [
      getComputedStyle(document.body).backgroundColor,
      getComputedStyle(document.querySelector('[data-figure="weights-1"] td')).backgroundColor,
    ]);
  const light = await colors();
  await page.getByRole('button', {name: 'Dark'}).click();
  const dark = await colors();
  light.forEach((color, i) => assert.notEqual(color, dark[i]));
  await visit(page, server.origin);
  assert.deepEqual(await colors(), dark);
  await page.getByRole('button', {name: 'Auto'}).click();
  assert.deepEqual(await colors(), light);
  await page.emulateMedia({colorScheme: 'dark'});
  await page.waitForFunction(() => document.documentElement.dataset.theme === 'dark');
  assert.deepEqual(await colors(), dark);
  await close();
});

test('nothing moves for those who asked for that', async () => {
  const moving = (page) =>
    page.evaluate(
      () =>
        [...document.querySelectorAll('*')].filter(
          (one) => parseFloat(getComputedStyle(one).transitionDuration) > 0 || getComputedStyle(one).animationName !== 'none',
        ).length,
    );
  for (const [reducedMotion, moves] of [
    ['reduce', false],
    ['no-preference', true],
  ]) {
    const {page, close} = await openPage(browser, {reducedMotion});
    await visit(page, server.origin);
    assert.equal((await moving(page)) > 0, moves, reducedMotion);
    await close();
  }
});

test('all that is loaded is below 300 kB, and the first paint comes within a second', async () => {
  const paints = [];
  for (let round = 0; round < 5; ++round) {
    const visitor = await openPage(browser);
    let bytes = 0;
    visitor.page.on('response', async (response) => (bytes += Number(response.headers()['content-length'] ?? NaN)));
    await visit(visitor.page, server.origin);
    assert.ok(bytes > 10_000 && bytes < 300_000, `${bytes} bytes`);
    paints.push(await visitor.page.evaluate(() => performance.getEntriesByName('first-contentful-paint')[0].startTime));
    await visitor.close();
  }
  // The best of five: the machine may be busy with other tests.
  console.log(`first paint after ${paints.map((paint) => Math.round(paint)).join(', ')} ms`);
  assert.ok(Math.min(...paints) < 1000, String(paints));
});
