// Nobody but the page can make the server compute through a visitor's browser: neither a page of another origin, nor one whose name was
// made to point to this machine (DNS rebinding).

import assert from 'node:assert/strict';
import {createServer} from 'node:http';
import {after, before, test} from 'node:test';

import {startServer} from './attend_server.mjs';
import {openPage, startBrowser, visit} from './browser.mjs';

const METHOD = '/attend.v1.AttentionService/Attend';
const BODY = JSON.stringify({embeddings: {shape: [1, 1], values: [1]}});

let server, browser, other;
before(async () => {
  other = createServer((_, response) => response.writeHead(200, {'content-type': 'text/html'}).end('<title>other</title>'));
  await new Promise((resolve) => other.listen(0, '127.0.0.1', resolve));
  [server, browser] = await Promise.all([
    startServer('--log-level', 'debug'),
    startBrowser('--host-resolver-rules=MAP rebound.example 127.0.0.1'),
  ]);
});
after(async () => {
  await browser?.close();
  await server?.stop();
  other?.close();
});

// How many calls the server has computed, by its log, in which each call is a line.
const computed = () =>
  server
    .log()
    .split('\n')
    .filter((line) => /\bAttend\b/.test(line) && /\bOK\b|code=0|status=0/.test(line)).length;

// What becomes of a fetch in the page: the status and the body, or that it failed.
const fetchIn = (page, url, init) =>
  page.evaluate(
    async ([address, options]) => {
      try {
        const response = await fetch(address, options);
        return {status: response.status, type: response.type, text: await response.text()};
      } catch (error) {
        return {failed: error.name};
      }
    },
    [url, init],
  );

test('the page itself can: the test would notice a call', async () => {
  const {page, close} = await openPage(browser);
  const before = computed();
  await visit(page, server.origin);
  await page.waitForTimeout(200);
  assert.equal(computed(), before + 1, server.log());
  await close();
});

test('a page of another origin cannot, by any kind of request that a browser sends', async () => {
  const {page, close} = await openPage(browser);
  await page.goto(`http://127.0.0.1:${other.address().port}/`);
  const before = computed();
  const target = `${server.origin}${METHOD}`;
  const json = {'content-type': 'application/json'};
  assert.deepEqual(await fetchIn(page, target, {method: 'POST', headers: json, body: BODY}), {failed: 'TypeError'});
  assert.deepEqual(await fetchIn(page, target, {method: 'POST', body: BODY}), {failed: 'TypeError'});
  // Without CORS the browser sends it and hides the answer; its type is then text/plain.
  for (const mode of [{mode: 'no-cors'}, {mode: 'no-cors', headers: json}]) {
    const opaque = await fetchIn(page, target, {method: 'POST', body: BODY, ...mode});
    assert.equal(opaque.type ?? 'opaque', 'opaque');
  }
  await fetchIn(page, `${target}?message=${encodeURIComponent(BODY)}&encoding=json`, {mode: 'no-cors'});
  await page.evaluate(([address, body]) => navigator.sendBeacon(address, body), [target, BODY]);
  await page.evaluate(
    ([address, body]) => {
      const form = document.createElement('form');
      Object.assign(form, {method: 'POST', action: address, enctype: 'text/plain'});
      const input = document.createElement('input');
      // {"embeddings":...,"x":"="}
      Object.assign(input, {name: `${body.slice(0, -1)},"x":"`, value: '"}'});
      form.append(input);
      document.body.append(form);
      form.submit();
    },
    [target, BODY],
  );
  await page.waitForTimeout(500);
  assert.equal(computed(), before, server.log());
  await close();
});

test('a page by a name that is not configured is refused, and so is its call', async () => {
  const {page, close} = await openPage(browser);
  const before = computed();
  const rebound = `http://rebound.example:${server.port}`;
  assert.equal((await page.goto(`${rebound}/`)).status(), 403);
  const answer = await fetchIn(page, `${rebound}${METHOD}`, {
    method: 'POST',
    headers: {'content-type': 'application/json'},
    body: BODY,
  });
  assert.equal(answer.status, 403, JSON.stringify(answer));
  await page.waitForTimeout(200);
  assert.equal(computed(), before, server.log());
  await close();
});

test("the page cannot be framed, and runs no script but its server's", async () => {
  const {page, close} = await openPage(browser);
  await page.goto(server.origin);
  assert.equal(
    await page.evaluate(() => {
      const script = document.createElement('script');
      script.textContent = 'globalThis.injected = true';
      document.body.append(script);
      return globalThis.injected;
    }),
    undefined,
  );
  await page.goto(`http://127.0.0.1:${other.address().port}/`);
  await page.evaluate((address) => {
    const frame = document.createElement('iframe');
    frame.src = address;
    document.body.append(frame);
  }, server.origin);
  await page.waitForTimeout(500);
  const frame = page.frames().find((one) => one !== page.mainFrame());
  // Chromium shows a page of its own there.
  assert.equal(frame.url(), 'chrome-error://chromewebdata/');
  await close();
});
