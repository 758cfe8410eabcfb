// A figure as a table that mouse and keyboard can walk over: one cell is in the tab order, arrow keys move from it.

import {colorsOf, css, inkOn} from './colors.mjs';
import {element} from './dom.mjs';
import {formatCell} from './format.mjs';

const MOVES = {
  ArrowLeft: ([row, column]) => [row, column - 1],
  ArrowRight: ([row, column]) => [row, column + 1],
  ArrowUp: ([row, column]) => [row - 1, column],
  ArrowDown: ([row, column]) => [row + 1, column],
  Home: ([row], columns, rows, all) => [all ? 0 : row, 0],
  End: ([row], columns, rows, all) => [all ? rows - 1 : row, columns - 1],
};

function cellOf(figure, row, column, colorOf) {
  const value = figure.values[row][column];
  const color = colorOf(value);
  const starts = figure.group > 0 && column > 0 && column % figure.group === 0;
  const cell = element(
    'td',
    {
      role: 'gridcell',
      tabindex: -1,
      'data-row': row,
      'data-column': column,
      'data-value': String(value),
      class: `${color ? '' : 'hidden-cell'} ${starts ? 'head-start' : ''}`,
      'aria-label': `${figure.rows[row]}, ${figure.columns[column]}: ${color ? formatCell(value) : Number.isFinite(value) ? '0' : 'hidden'}`,
    },
    element('span', {'aria-hidden': 'true'}, color ? formatCell(value) : '·'),
  );
  if (color) {
    cell.style.backgroundColor = css(color);
    cell.style.color = css(inkOn(color));
  }
  return cell;
}

function tableOf(figure, colorOf) {
  const corner = element(
    'th',
    {role: 'columnheader', scope: 'col'},
    element('span', {class: 'unseen'}, figure.wide ? 'query, key' : 'name'),
  );
  const head = element(
    'tr',
    {role: 'row'},
    corner,
    ...figure.columns.map((label, column) =>
      element(
        'th',
        {
          role: 'columnheader',
          scope: 'col',
          class: figure.group > 0 && column > 0 && column % figure.group === 0 ? 'head-start' : undefined,
        },
        element('span', {}, label),
      ),
    ),
  );
  const rows = figure.rows.map((label, row) =>
    element(
      'tr',
      {role: 'row', 'data-row': row},
      element('th', {role: 'rowheader', scope: 'row'}, element('span', {title: label}, label)),
      ...figure.columns.map((_, column) => cellOf(figure, row, column, colorOf)),
    ),
  );
  return element(
    'table',
    {role: 'grid', 'aria-label': `${figure.title}: ${figure.caption}`, 'aria-readonly': 'true'},
    element('thead', {role: 'rowgroup'}, head),
    element('tbody', {role: 'rowgroup'}, ...rows),
  );
}

function walk(table, figure, event) {
  const move = MOVES[event.key];
  const cell = event.target.closest('td[data-row]');
  if (!move || !cell || event.altKey || event.metaKey) return;
  event.preventDefault();
  const [row, column] = move(
    [Number(cell.dataset.row), Number(cell.dataset.column)],
    figure.columns.length,
    figure.rows.length,
    event.ctrlKey,
  );
  cellAt(table, row, column)?.focus();
}

const cellAt = (node, row, column) => node.querySelector(`td[data-row="${row}"][data-column="${column}"]`);

// The more columns, the smaller the cells; many are without numbers, which the arithmetic shows all the same.
function densityOf({columns: {length}, several}) {
  if (length > 24) return 'tiny';
  if (length > (several ? 10 : 12)) return 'dense';
  return length <= 8 ? 'few' : several ? 'small' : '';
}

// Calls `onCell(figure, row, column, byKeyboard)` for the cell that is pointed at or focused.
export function heatmap(figure, theme, onCell) {
  const table = tableOf(figure, colorsOf(figure, theme));
  const first = cellAt(table, 0, 0);
  first.tabIndex = 0;
  const tell = (event, byKeyboard) => {
    const cell = event.target.closest('td[data-row]');
    if (cell) onCell(figure, Number(cell.dataset.row), Number(cell.dataset.column), byKeyboard);
  };
  table.addEventListener('keydown', (event) => walk(table, figure, event));
  table.addEventListener('pointerover', (event) => tell(event, false));
  table.addEventListener('focusin', (event) => {
    table.querySelectorAll('td[tabindex="0"]').forEach((cell) => (cell.tabIndex = -1));
    event.target.tabIndex = 0;
    tell(event, true);
  });
  const title = element(
    'figcaption',
    {},
    element('span', {class: `badge role-${figure.role}`}, figure.title),
    element('span', {class: 'caption'}, figure.caption),
  );
  return element(
    'figure',
    {class: `heatmap ${figure.wide ? 'labelled' : ''} ${densityOf(figure)}`, 'data-figure': figure.id},
    title,
    element('div', {class: 'scroll'}, table),
  );
}

// Outlines the cells that an explanation names.
export function showUses(root, uses) {
  root.querySelectorAll('.used').forEach((cell) => cell.classList.remove('used'));
  for (const {figure, row, columns} of uses) {
    const found = root.querySelector(`[data-figure="${figure}"]`);
    const cells = columns
      ? columns.map((column) => cellAt(found, row, column))
      : (found?.querySelectorAll(`td[data-row="${row}"]`) ?? []);
    for (const cell of cells) cell?.classList.add('used');
  }
}
