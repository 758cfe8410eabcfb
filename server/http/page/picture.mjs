// All heatmaps of a computation as one SVG, on white, for slides and papers.

import {colorsOf, hex, inkOn} from './colors.mjs';
import {formatCell} from './format.mjs';

const CELL = 36;
const LABEL = 110;
const GAP = 36;
const WIDTH = 1240;

const escape = (text) =>
  text
    .replace(/[&<>"]/g, (character) => ({'&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;'})[character])
    .replace(/[\u0000-\u0008\u000b-\u001f\ufffe\uffff]/g, '');
const clipped = (label, length) => ([...label].length > length ? `${[...label].slice(0, length - 1).join('')}…` : label);
const text = (x, y, size, content, more = '') =>
  `<text x="${x}" y="${y}" font-size="${size}" ${more}>${escape(content)}</text>`;

// The room above the cells, for title and column labels.
const topOf = (figure) => (figure.wide ? 96 : 48);
const widthOf = (figure) => LABEL + figure.columns.length * CELL;
const heightOf = (figure) => topOf(figure) + figure.rows.length * CELL;

function drawCell(x, y, value, color) {
  const fill = color ? hex(color) : '#e4e4ea';
  const ink = hex(color ? inkOn(color) : [0, 0, 0]);
  return (
    `<rect x="${x}" y="${y}" width="${CELL - 2}" height="${CELL - 2}" rx="3" fill="${fill}"/>` +
    text(x + CELL / 2 - 1, y + CELL / 2 + 3, 10, color ? formatCell(value) : '·', `text-anchor="middle" fill="${ink}"`)
  );
}

function drawFigure(figure, left, top) {
  const colorOf = colorsOf(figure, 'light');
  const parts = [
    text(left, top + 14, 15, figure.title, 'font-weight="bold"'),
    text(left + 14 + figure.title.length * 9.5, top + 14, 12, figure.caption, 'fill="#555"'),
  ];
  const cellsTop = top + topOf(figure);
  figure.columns.forEach((label, column) => {
    const x = left + LABEL + column * CELL + CELL / 2;
    const turned = figure.wide ? `transform="rotate(-45 ${x} ${cellsTop - 8})"` : 'text-anchor="middle"';
    parts.push(text(x, cellsTop - 8, 11, clipped(label, 12), turned));
  });
  figure.values.forEach((cells, row) => {
    const y = cellsTop + row * CELL;
    parts.push(text(left + LABEL - 8, y + CELL / 2 + 4, 12, clipped(figure.rows[row], 15), 'text-anchor="end"'));
    cells.forEach((value, column) => parts.push(drawCell(left + LABEL + column * CELL, y, value, colorOf(value))));
  });
  return parts.join('');
}

// The SVG's text. `figures` stand in lines as wide as a page, in their order.
export function picture(figures, title) {
  let [left, top, lineHeight, right] = [GAP, GAP + 30, 0, 0];
  const drawn = figures.map((figure) => {
    if (left > GAP && left + widthOf(figure) > WIDTH) [left, top, lineHeight] = [GAP, top + lineHeight + GAP, 0];
    const result = drawFigure(figure, left, top);
    right = Math.max(right, left + widthOf(figure));
    left += widthOf(figure) + GAP;
    lineHeight = Math.max(lineHeight, heightOf(figure));
    return result;
  });
  const [width, height] = [Math.max(right + GAP, 500), top + lineHeight + GAP];
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" font-family="system-ui, sans-serif" fill="#1b1926">` +
    `<title>${escape(title)}</title><rect width="100%" height="100%" fill="#ffffff"/>${text(GAP, GAP + 6, 18, clipped(title, 100), 'font-weight="bold"')}${drawn.join('')}</svg>\n`
  );
}
