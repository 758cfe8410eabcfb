// What the page should show, computed in float64 by the formulas as the papers and docs/page.md have them, and not by the page's code.

import {readFileSync} from 'node:fs';

const WORDS = readFileSync(new URL('../../server/http/page/words.txt', import.meta.url), 'utf8');

// docs/page.md, "By meaning", word for word.
export function meaningOf(words) {
  const rows = words.map((word) => {
    const [, digits] = new RegExp(`^${word.toLowerCase()} (.{32})$`, 'm').exec(WORDS);
    return [...digits].map((digit) => {
      const code = digit.charCodeAt(0);
      if (digit === '-') return 30 / 10;
      if (digit === '_') return 31 / 10;
      if (code >= 97) return (code - 97 + 26 - 32) / 10;
      return code >= 65 ? (code - 65 - 32) / 10 : (code - 48 + 52 - 32) / 10;
    });
  });
  if (rows.length === 1) return rows[0];
  const sums = rows[0].map((_, i) => rows.reduce((sum, row) => sum + row[i], 0));
  return sums.map((sum) => Math.round((sum / Math.hypot(...sums)) * Math.sqrt(32) * 100) / 100);
}

// docs/page.md, "By spelling", word for word.
export function vectorOf(words, size) {
  const sums = new Array(size).fill(0);
  for (const word of words) {
    const marked = Array.from(`<${word.toLowerCase()}>`);
    for (const length of [2, 3]) {
      for (let start = 0; start <= marked.length - length; start++) {
        let hash = 2166136261n;
        for (const byte of Buffer.from(marked.slice(start, start + length).join(''), 'utf8'))
          hash = ((hash ^ BigInt(byte)) * 16777619n) % 4294967296n;
        sums[Number(hash % BigInt(size))] += hash < 2147483648n ? 1 : -1;
      }
    }
  }
  const length = Math.hypot(...sums);
  return sums.map((sum) => (length === 0 ? 0 : Math.round((sum / length) * Math.sqrt(size) * 100) / 100));
}

export function rowsOf({shape, values}) {
  const columns = shape[1];
  return Array.from({length: shape[0]}, (_, row) => values.slice(row * columns, (row + 1) * columns));
}

const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
const timesTransposed = (left, right) => left.map((row) => right.map((other) => dot(row, other)));

function softmax(scores) {
  const most = Math.max(...scores);
  if (most === -Infinity) return scores.map(() => 0);
  const powers = scores.map((score) => Math.exp(score - most));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

// {query, key, value, scores: [head], weights: [head], output} of a request as the page sends it.
export function attention({method, body}) {
  const project = (name) => timesTransposed(rowsOf(body.embeddings), rowsOf(body.layer[`${name}_projection`].weight));
  const [query, key, value] =
    method === 'Attend' ? ['query', 'key', 'value'].map(project) : ['query', 'key', 'value'].map((name) => rowsOf(body[name]));
  const heads = body.layer?.num_heads ?? 1;
  const size = query[0].length / heads;
  const {scale, causal, sliding_window_left: left = Infinity, sliding_window_right: right = Infinity} = body.options;
  const scores = [],
    weights = [],
    output = query.map(() => []);
  for (let head = 0; head < heads; head++) {
    const part = (rows) => rows.map((row) => row.slice(head * size, (head + 1) * size));
    const hidden = (t, j) => (causal === 'CAUSAL_MODE_BOTTOM_RIGHT' && j > t) || j < t - left || j > t + right;
    scores.push(
      timesTransposed(part(query), part(key)).map((row, t) =>
        row.map((score, j) => (hidden(t, j) ? -Infinity : scale * score)),
      ),
    );
    weights.push(scores[head].map(softmax));
    weights[head].forEach((row, t) =>
      output[t].push(
        ...part(value)[0].map((_, e) =>
          dot(
            row,
            part(value).map((other) => other[e]),
          ),
        ),
      ),
    );
  }
  return {query, key, value, scores, weights, output};
}
