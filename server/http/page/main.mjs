// Ties state, server and page together: an input changes the state, the state makes a problem, the server computes it, the page
// draws the result.

import {bindControls, showControls} from './controls.mjs';
import {byId} from './dom.mjs';
import {readWords} from './meaning.mjs';
import {needsTable, problemOf, Refusal, sizeOf} from './problem.mjs';
import {requestOf, resultOf} from './request.mjs';
import {call, CallError, load} from './server.mjs';
import {defaultState, readLink, writeLink} from './state.mjs';
import {followTheme} from './theme.mjs';
import {clearInspector} from './inspector.mjs';
import {draw, drawSteps} from './view.mjs';

const TYPING_PAUSE_MS = 150;
const ADDRESS_PAUSE_MS = 1000;

let state = defaultState();
let shown = null; // {state, problem, request, result, timing}: what the page draws, and the state that it is for.
let running = null; // Aborts the call that is under way.
let pause = 0;
let addressPause = 0;
let table = null; // Words by meaning; loaded when they are first asked for.

function say(message) {
  byId('message').textContent = message;
  byId('message').hidden = message === '';
}

// What is drawn is the state's ('ready'), the call for it is under way ('busy'), or it cannot be computed ('refused').
function mark(status) {
  document.body.dataset.status = status;
  byId('steps').setAttribute('aria-busy', String(status === 'busy'));
  for (const part of document.querySelectorAll('[data-needs-result]')) part.hidden = shown === null;
}

// Switches that do not fit the input fall back to what does.
function repaired(wanted) {
  const size = sizeOf(wanted);
  return {...wanted, heads: size && size % wanted.heads !== 0 ? 1 : wanted.heads};
}

function refuse(error) {
  const isKnown = error instanceof Refusal || error instanceof CallError;
  say(isKnown ? error.message : `The page could not compute this (${error.message}).`);
  mark('refused');
  if (!isKnown) throw error;
}

async function compute() {
  running?.abort();
  const mine = (running = new AbortController());
  const wanted = state;
  try {
    if (needsTable(wanted)) table ??= readWords(await load('words.txt'));
    if (mine.signal.aborted) return;
    const problem = problemOf(wanted, table);
    const request = requestOf(problem);
    const {answer, timing} = await call(request.method, request.body, mine.signal);
    shown = {state: wanted, problem, request, timing, result: resultOf(problem, answer)};
    say('');
    redraw();
    mark('ready');
  } catch (error) {
    if (!mine.signal.aborted) refuse(error);
  }
}

// A result keeps the switches that it was computed with, whatever the state says by now.
function redraw() {
  if (!shown) return;
  draw(shown, {...shown.state, step: state.step, word: state.word}, {follow: (word) => update({word})});
  clearInspector();
}

// Browsers bound how often a page may do this, and WebKit throws; the address then follows later.
function writeAddress() {
  clearTimeout(addressPause);
  try {
    history.replaceState(null, '', `#${writeLink(state)}`);
  } catch {
    addressPause = setTimeout(writeAddress, ADDRESS_PAUSE_MS);
  }
}

const VIEW_ONLY = new Set(['step', 'word']);

function update(changes, {typing = false} = {}) {
  state = repaired({...state, ...changes});
  writeAddress();
  showControls(state, sizeOf(state));
  if (shown && Object.keys(changes).every((name) => VIEW_ONLY.has(name))) {
    redraw();
    if ('step' in changes) drawSteps(state, true);
    return;
  }
  mark('busy');
  clearTimeout(pause);
  pause = setTimeout(compute, typing ? TYPING_PAUSE_MS : 0);
}

function openLink() {
  clearTimeout(addressPause);
  const {state: linked, complaints} = readLink(location.hash);
  state = repaired(linked);
  showControls(state, sizeOf(state));
  byId('link-message').textContent = complaints.join(' ');
  byId('link-message').hidden = complaints.length === 0;
  mark('busy');
  compute();
}

// The address is the state's, so this link must not change it.
byId('skip').addEventListener('click', (event) => {
  event.preventDefault();
  byId('controls').focus();
});
bindControls(update, () => ({state, shown}));
followTheme(redraw);
window.addEventListener('hashchange', openLink);
clearInspector();
openLink();
