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

let state = defaultState();
let shown = null; // {problem, request, result, timing}: what the page draws.
let running = null; // Aborts the call that is under way.
let pause = 0;
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

async function compute() {
  running?.abort();
  const mine = (running = new AbortController());
  try {
    if (needsTable(state)) table ??= readWords(await load('words.txt'));
    if (mine.signal.aborted) return;
    const problem = problemOf(state, table);
    const request = requestOf(problem);
    const {answer, timing} = await call(request.method, request.body, mine.signal);
    shown = {problem, request, timing, result: resultOf(problem, answer)};
    say('');
    redraw();
    mark('ready');
  } catch (error) {
    if (error.name === 'AbortError') return;
    if (!(error instanceof Refusal || error instanceof CallError)) throw error;
    if (mine.signal.aborted) return;
    say(error.message);
    mark('refused');
  }
}

function redraw() {
  if (!shown) return;
  draw(shown, state, {follow: (word) => update({word})});
  clearInspector();
}

const VIEW_ONLY = new Set(['step', 'word']);

function update(changes, {typing = false} = {}) {
  state = repaired({...state, ...changes});
  history.replaceState(null, '', `#${writeLink(state)}`);
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
  const {state: linked, complaints} = readLink(location.hash);
  state = repaired(linked);
  showControls(state, sizeOf(state));
  byId('link-message').textContent = complaints.join(' ');
  byId('link-message').hidden = complaints.length === 0;
  mark('busy');
  compute();
}

bindControls(update, () => ({state, shown}));
followTheme(redraw);
window.addEventListener('hashchange', openLink);
clearInspector();
openLink();
