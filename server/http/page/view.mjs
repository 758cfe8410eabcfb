// Draws a result into the page.

import {byId, element} from './dom.mjs';
import {figuresOf} from './figures.mjs';
import {format} from './format.mjs';
import {heatmap} from './heatmap.mjs';
import {inspect} from './inspector.mjs';
import {lines} from './lines.mjs';
import {rankingOf, sentenceOf, stepSentence} from './reading.mjs';
import {curlCode, pythonCode} from './snippets.mjs';
import {theme} from './theme.mjs';

const onCell = (figure, row, column, byKeyboard) => inspect(figure.explain(row, column), byKeyboard);
// A wider map of weights leaves no room for its reading beside it.
const SIDE_BY_SIDE = 6;
const heatmaps = (figures) => figures.map((figure) => heatmap(figure, theme(), onCell));

function drawWords(problem, picked, follow) {
  const buttons = problem.queries.map((label, index) => {
    const button = element('button', {type: 'button', 'aria-pressed': String(index === picked)}, label);
    button.addEventListener('click', () => follow(index));
    return button;
  });
  const focused = [...byId('words').children].indexOf(document.activeElement);
  byId('words').hidden = problem.kind === 'search';
  byId('words').replaceChildren(...buttons);
  if (focused >= 0) buttons[focused]?.focus();
}

function readingOf(problem, weights, head, picked) {
  const title = problem.heads > 1 ? `Head ${head + 1}` : 'Weights';
  const sentences = problem.queries.map((_, row) =>
    element('li', {class: row === picked ? 'picked' : undefined}, `${sentenceOf(problem, row, weights)}.`),
  );
  return element(
    'div',
    {class: 'head card'},
    ...(problem.heads > 1 ? [element('h4', {}, title)] : []),
    lines(problem, weights, picked, `${title}: lines from each query to the keys it attends to`),
    element('ul', {class: 'sentences'}, ...sentences),
  );
}

function drawRanking(problem, weights) {
  byId('ranking').hidden = problem.kind !== 'search';
  if (problem.kind !== 'search') return;
  byId('ranked').replaceChildren(
    ...rankingOf(weights[0][0]).map(({index, weight}) => {
      const bar = element('span', {class: 'bar-of-weight', 'aria-hidden': 'true'});
      bar.style.width = `${(weight * 100).toFixed(1)}%`;
      const {text, description} = problem.documents[index];
      return element(
        'li',
        {},
        element('p', {}, element('b', {'data-value': String(weight)}, format(weight, 2)), ` ${text}`),
        element('p', {class: 'caption'}, description),
        bar,
      );
    }),
  );
}

function drawHonesty(problem, state, result, timing) {
  const search = problem.kind === 'search';
  const kind = state.input === 'numbers' ? 'numbers' : state.vectors;
  const shown = kind === 'meaning' ? kind : 'spelling';
  for (const part of document.querySelectorAll('[data-vectors]')) part.hidden = part.dataset.vectors !== shown;
  byId('honest-attend').hidden = search;
  byId('honest-search').hidden = !search;
  byId('honest-vectors').textContent = {
    spelling: 'the words’ vectors know spelling alone',
    meaning: 'the words’ vectors are a trained model’s, each for its word alone',
    numbers: 'the vectors are those that you typed',
  }[kind];
  byId('honest-layer').textContent =
    state.layer === 'random' ? `the matrices are drawn at random (seed ${state.seed})` : 'the matrices change nothing';
  byId('honest-so').textContent =
    kind === 'meaning' && state.layer !== 'random'
      ? 'So words attend to words that mean something like them, whatever the sentence says.'
      : 'So a word that attends to another says nothing about language.';
  byId('computed-what').textContent = search ? 'Scores, weights and output' : 'Q, K, V, scores, weights and output';
  byId('receipt').textContent =
    `It is attend ${result.receipt.serverVersion} with ${result.receipt.kernel} kernels` +
    (timing === null ? '.' : `, and it computed for ${timing} ms.`);
}

// Shows the steps that the state wants, and moves to the newest one when asked.
export function drawSteps(state, move = false) {
  for (const section of document.querySelectorAll('section[data-step]')) {
    const step = Number(section.dataset.step);
    section.hidden = state.step > 0 && step > state.step;
    section.classList.toggle('current', step === state.step);
    if (move && step === state.step)
      section.scrollIntoView({
        block: 'start',
        behavior: matchMedia('(prefers-reduced-motion: reduce)').matches ? 'auto' : 'smooth',
      });
  }
  for (const button of document.querySelectorAll('[data-step-choice]')) {
    button.setAttribute('aria-pressed', String(Number(button.dataset.stepChoice) === state.step));
  }
  document.querySelector('.stepper').classList.toggle('stepping', state.step > 0);
  byId('back').disabled = state.step === 0;
  byId('next').textContent = ['Step through', 'Next', 'Next', 'Next', 'Show all'][state.step];
}

// `shown` is {problem, request, result, timing}; `follow(word)` picks a query's row.
export function draw({problem, request, result, timing}, state, {follow}) {
  const figures = figuresOf(problem, result);
  const picked = Math.min(state.word, problem.queries.length - 1);
  for (const [place, list] of Object.entries(figures)) byId(place).replaceChildren(...heatmaps(list));
  for (const place of ['[data-figure="q"]', '#scores', '#weights', '[data-figure="output"]']) {
    for (const row of document.querySelectorAll(`${place} tr[data-row="${picked}"]`)) row.classList.add('picked');
  }
  for (const part of document.querySelectorAll('[data-explains]')) part.hidden = part.dataset.explains !== problem.kind;
  byId('matrices-shown').hidden = problem.kind === 'search';
  byId('rule').hidden = state.input === 'numbers';
  byId('scale-value').textContent = format(problem.scale);
  byId('read').dataset.heads = problem.heads;
  byId('read').toggleAttribute('data-many', problem.keys.length > SIDE_BY_SIDE);
  byId('reading').replaceChildren(
    element('h3', {}, 'Who attends to whom'),
    ...result.weights.map((weights, head) => readingOf(problem, weights, head, picked)),
  );
  byId('narration').textContent = stepSentence(problem, result, state.step, picked);
  byId('curl').textContent = curlCode(request, location.origin);
  byId('python').textContent = pythonCode(problem);
  drawWords(problem, picked, follow);
  drawRanking(problem, result.weights);
  drawHonesty(problem, state, result, timing);
  drawSteps(state);
}
