// Debian's Chromium, driven by Playwright's library, which `make test-page` puts into build/page/npm.

import assert from 'node:assert/strict';
import {mkdirSync, readFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import {join} from 'node:path';

const OUT = process.env.ATTEND_PAGE_OUT;
const require = createRequire(join(OUT, 'npm', 'package.json'));
const {chromium} = require('playwright-core');
const AXE = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

// Chromium's own sandbox needs what a container has not; the pages here are ours.
export function startBrowser(...args) {
  return chromium.launch({executablePath: process.env.ATTEND_CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox', ...args]});
}

export const LAPTOP = {width: 1280, height: 800};

// A page of its own, as a new visitor has it. `complaints` are console errors and warnings, exceptions and failed requests;
// `requests` are all that it asked for.
export async function openPage(browser, options = {}) {
  const context = await browser.newContext({viewport: LAPTOP, colorScheme: 'light', reducedMotion: 'reduce', ...options});
  const page = await context.newPage();
  const complaints = [];
  const requests = [];
  page.on('console', (message) => ['error', 'warning'].includes(message.type()) && complaints.push(message.text()));
  page.on('pageerror', (error) => complaints.push(error.stack));
  page.on('request', (request) => requests.push(request));
  return {page, complaints, requests, close: () => context.close()};
}

// Waits until the page shows what its state says, and returns 'ready' or 'refused'.
export async function settled(page) {
  await page.waitForFunction(() => ['ready', 'refused'].includes(document.body.dataset.status), null, {timeout: 30000});
  return page.evaluate(() => document.body.dataset.status);
}

// Opens the page with a link's fragment.
export async function visit(page, origin, link = '') {
  await page.goto('about:blank');
  await page.goto(`${origin}/${link && `#${link}`}`);
  return settled(page);
}

// Does what changes the state, and waits for the new answer.
export async function changed(page, action) {
  await page.evaluate(() => (document.body.dataset.status = 'waiting'));
  await action();
  return settled(page);
}

// {id: {rows, columns, values, texts, names}} of all heatmaps, as the page shows them.
export function readFigures(page) {
  return page.evaluate(() =>
    Object.fromEntries(
      [...document.querySelectorAll('[data-figure]')].map((figure) => {
        const rows = [...figure.querySelectorAll('tbody tr')];
        const each = (read) => rows.map((row) => [...row.querySelectorAll('td')].map(read));
        return [
          figure.dataset.figure,
          {
            rows: rows.map((row) => row.querySelector('th').textContent),
            columns: [...figure.querySelectorAll('thead th')].slice(1).map((th) => th.textContent),
            values: each((cell) => Number(cell.dataset.value)),
            texts: each((cell) => cell.textContent),
            names: each((cell) => cell.ariaLabel),
          },
        ];
      }),
    ),
  );
}

// What axe-core finds wrong, a line each.
export async function axe(page) {
  // Evaluated by the debugger, which the page's policy does not bind.
  await page.evaluate(AXE);
  const {violations} = await page.evaluate(() => globalThis.axe.run(document, {resultTypes: ['violations']}));
  return violations.flatMap(({id, help, nodes}) =>
    nodes.map(({target, failureSummary}) => `${id}: ${help}: ${target.join(' ')}: ${failureSummary}`),
  );
}

export function screenshot(page, name, options = {}) {
  mkdirSync(OUT, {recursive: true});
  return page.screenshot({path: join(OUT, `${name}.png`), ...options});
}

export function assertQuiet({complaints, requests}, origin) {
  assert.deepEqual(complaints, []);
  const foreign = requests
    .map((request) => request.url())
    .filter((url) => !/^(about|blob|data):/.test(url) && new URL(url).origin !== origin);
  assert.deepEqual(foreign, [], "requests to others than the page's own server");
}
