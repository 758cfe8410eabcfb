// Who attends to whom, as lines: queries on the left, keys on the right, a line as thick as the weight.

import {svgElement} from './dom.mjs';
import {formatCell} from './format.mjs';
import {strongest} from './reading.mjs';

const ROW = 30;
const LEFT = 100;
const RIGHT = 196;
const WIDTH = 316;

const y = (index) => 20 + index * ROW;
const clipped = (label) => ([...label].length > 12 ? `${[...label].slice(0, 11).join('')}…` : label);

function curve(from, to, weight, picked) {
  const middle = (LEFT + RIGHT) / 2;
  return svgElement('path', {
    d: `M ${LEFT} ${y(from)} C ${middle} ${y(from)} ${middle} ${y(to)} ${RIGHT} ${y(to)}`,
    class: picked ? 'line picked' : 'line',
    'stroke-width': (0.5 + weight * 11).toFixed(2),
    'stroke-opacity': (picked ? 0.25 + 0.75 * weight : 0.06 + 0.3 * weight).toFixed(3),
  });
}

// The picture of one head's `weights` [T][S], with the row `picked` picked out.
export function lines(problem, weights, picked, title) {
  const height = y(Math.max(problem.queries.length, problem.keys.length) - 1) + 20;
  const pairs = weights.flatMap((row, from) => row.map((weight, to) => ({from, to, weight}))).filter(({weight}) => weight > 0);
  const drawn = [...pairs.filter(({from}) => from !== picked), ...pairs.filter(({from}) => from === picked)];
  const best = strongest(weights[picked]);
  const label = (text, x, index, anchor, kind) =>
    svgElement('text', {x, y: y(index) + 5, 'text-anchor': anchor, class: kind}, text);
  return svgElement(
    'svg',
    {viewBox: `0 0 ${WIDTH} ${height}`, role: 'img', 'aria-label': title, class: 'lines'},
    ...drawn.map(({from, to, weight}) => curve(from, to, weight, from === picked)),
    ...problem.queries.map((text, index) =>
      label(clipped(text), LEFT - 10, index, 'end', index === picked ? 'query picked' : 'query'),
    ),
    ...problem.keys.map((text, index) =>
      label(
        `${clipped(text)}${weights[picked][index] > 0 ? `  ${formatCell(weights[picked][index])}` : ''}`,
        RIGHT + 10,
        index,
        'start',
        best.includes(index) ? 'key picked' : 'key',
      ),
    ),
  );
}
