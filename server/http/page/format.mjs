// Numbers as text.

const MINUS = '\u2212';

// `value` with `digits` decimals. What would read as zero, and what is too long, is shown as 1.2e-5; minus infinity is a
// hidden score.
export function format(value, digits = 3) {
  if (Number.isNaN(value)) return 'NaN';
  if (!Number.isFinite(value)) return value < 0 ? `${MINUS}∞` : '∞';
  const size = Math.abs(value);
  const plain = size === 0 || (size >= 0.5 * 10 ** -digits && size < 1e5);
  return (plain ? value.toFixed(digits) : value.toExponential(1)).replaceAll('-', MINUS);
}

// For a cell of a heatmap, where space is short.
export function formatCell(value) {
  if (Math.abs(value) < 0.005) return '0.00';
  return Math.abs(value) >= 100 && Number.isFinite(value)
    ? Number(value.toPrecision(3)).toString().replace('-', MINUS)
    : format(value, 2);
}

// The number a person typed, with a point or a minus sign of any kind; NaN when it is none.
export function readNumber(text) {
  const plain = text.replace(/[\u2212\u2013]/g, '-');
  return /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(plain) ? Number(plain) : NaN;
}
