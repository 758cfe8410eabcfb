// What the weights say, in sentences.

// The keys with the largest weight of a row: [] when the row sees nothing.
export function strongest(row) {
  const most = Math.max(...row);
  return most > 0 ? row.flatMap((weight, key) => (weight === most ? [key] : [])) : [];
}

const quoted = (label) => `“${label}”`;

// “one”, “two” and “three”
function listOf(problem, keys) {
  const names = keys.map((key) => quoted(problem.keys[key]));
  return names.length > 1 ? `${names.slice(0, -1).join(', ')} and ${names.at(-1)}` : names[0];
}

// What a word that attends most to itself attends to next; nothing when several share that place, or nothing is left.
function nextOf(problem, row, weights) {
  const next = strongest(weights.map((weight, key) => (key === row ? 0 : weight)));
  return next.length === 1 ? `, then to “${problem.keys[next[0]]}” (${weights[next[0]].toFixed(2)})` : '';
}

// “its” attends most to “cat” (0.42); “cat” attends most to itself (0.63), then to “dog” (0.30)
export function sentenceOf(problem, row, weights) {
  const best = strongest(weights[row]);
  const who = problem.kind === 'search' ? 'The query' : quoted(problem.queries[row]);
  if (best.length === 0) return `${who} attends to nothing`;
  const share = weights[row][best[0]].toFixed(2);
  const self = best.length === 1 && problem.kind === 'attend' && best[0] === row;
  if (self) return `${who} attends most to itself (${share})${nextOf(problem, row, weights[row])}`;
  return `${who} attends most to ${listOf(problem, best)} (${share}${best.length > 1 ? ' each' : ''})`;
}

// The documents of a search by falling weight, equal ones in their order: [{index, weight}].
export function rankingOf(weights) {
  return weights.map((weight, index) => ({index, weight})).sort((a, b) => b.weight - a.weight || a.index - b.index);
}

// What each step does with one word, for the step-through.
export function stepSentence(problem, result, step, row) {
  const label = quoted(problem.queries[row]);
  const search = problem.kind === 'search';
  const several = problem.heads > 1 ? ' in head 1' : '';
  const best = strongest(result.weights[0][row]);
  const name = best.length ? listOf(problem, best) : 'nothing';
  const many = best.length > 1;
  return [
    '',
    search
      ? 'Step 1. The query becomes Q; each description becomes a key, each document a value.'
      : `Step 1. ${label} becomes a vector, and three matrices make its query, its key and its value of that vector.`,
    `Step 2. The query of ${label} is compared with every key; it fits the ${many ? 'keys' : 'key'} of ${name} best${several}.`,
    `Step 3. The softmax turns the scores of ${label} into shares that add up to 1; ${name} ${many ? 'get' : 'gets'} the largest${several}.`,
    `Step 4. The values are mixed by these shares: the output of ${label}.`,
  ][step];
}
