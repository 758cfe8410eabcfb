// Inputs, switches and buttons: from the page to the state and back.

import {byId} from './dom.mjs';
import {figuresOf} from './figures.mjs';
import {picture} from './picture.mjs';
import {defaultState, writeLink} from './state.mjs';

const fields = () => document.querySelectorAll('[data-field]');
const NUMBERS = new Set(['seed', 'heads', 'temperature']);

function valueOf(control) {
  if (control.type === 'checkbox') return control.checked ? 'yes' : 'no';
  return NUMBERS.has(control.dataset.field) ? Number(control.value) : control.value;
}

function show(control, value) {
  if (control.type === 'checkbox') control.checked = value === 'yes';
  else if (control.type === 'radio') control.checked = control.value === String(value);
  else if (control.value !== String(value)) control.value = value;
}

// `size` is that of the vectors, undefined while the input cannot be read.
export function showControls(state, size) {
  for (const control of fields()) show(control, state[control.dataset.field]);
  for (const part of document.querySelectorAll('[data-input]')) part.hidden = part.dataset.input !== state.input;
  for (const part of document.querySelectorAll('[data-attend]')) part.hidden = state.input === 'search';
  for (const part of document.querySelectorAll('[data-of-words]')) part.hidden = state.input === 'numbers';
  if (state.input !== 'search') byId('seed-switch').hidden = state.layer !== 'random';
  for (const radio of document.querySelectorAll('[name="heads"]'))
    radio.disabled = size !== undefined && size % Number(radio.value) !== 0;
  byId('temperature-value').textContent = state.temperature.toFixed(1);
}

function done(what) {
  byId('done').textContent = what;
}

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    done(`${what} copied.`);
  } catch {
    done('The browser does not allow copying here.');
  }
}

function download({problem, result}) {
  const {vectors, scores, weights, output} = figuresOf(problem, result);
  const title = problem.kind === 'search' ? 'attend: search by attention' : `attend: ${problem.queries.join(' ')}`;
  const address = URL.createObjectURL(
    new Blob([picture([...vectors, ...scores, ...weights, output.at(-1)], title)], {type: 'image/svg+xml'}),
  );
  const link = document.createElement('a');
  link.href = address;
  link.download = 'attention.svg';
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
  done('SVG saved.');
}

// The seed's field may hold for a while what is no seed.
const acceptable = (control) =>
  control.type !== 'number' || (control.value !== '' && control.checkValidity() && Number.isInteger(Number(control.value)));

// `update(changes, {typing})` changes the state, `current()` is {state, shown}.
export function bindControls(update, current) {
  for (const control of fields()) {
    control.addEventListener('input', () => {
      if (acceptable(control))
        update(
          {[control.dataset.field]: valueOf(control)},
          {typing: control.matches('textarea, [type="text"], [type="range"]')},
        );
    });
  }
  byId('copy-link').addEventListener('click', () => copy(new URL(`#${writeLink(current().state)}`, location.href).href, 'Link'));
  byId('download').addEventListener('click', () => current().shown && download(current().shown));
  byId('reset').addEventListener('click', () => update({...defaultState(), input: current().state.input}));
  for (const button of document.querySelectorAll('[data-copies]')) {
    button.addEventListener('click', () => copy(byId(button.dataset.copies).textContent, 'Code'));
  }
  for (const button of document.querySelectorAll('[data-step-choice]')) {
    button.addEventListener('click', () => update({step: Number(button.dataset.stepChoice)}));
  }
  byId('next').addEventListener('click', () => update({step: (current().state.step + 1) % 5}));
  byId('back').addEventListener('click', () => update({step: Math.max(current().state.step - 1, 0)}));
}
