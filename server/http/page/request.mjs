// The calls that the page makes, as protobuf JSON, and the tensors of an answer as nested arrays.

export const SERVICE = '/attend.v1.AttentionService';

const tensor = (rows) => ({shape: [rows.length, rows[0].length], values: rows.flat()});

function options({causal, window, scale}) {
  return {
    scale,
    ...(causal && {causal: 'CAUSAL_MODE_BOTTOM_RIGHT'}),
    ...(window !== null && {sliding_window_left: window, sliding_window_right: window}),
    attention_weights_form: 'ATTENTION_WEIGHTS_FORM_PER_HEAD',
  };
}

// {method, body}.
export function requestOf(problem) {
  if (problem.kind === 'search') {
    return {
      method: 'ScaledDotProductAttention',
      body: {
        query: tensor([problem.query.values]),
        key: tensor(problem.documents.map(({key}) => key.values)),
        value: tensor(problem.documents.map(({value}) => value.values)),
        options: options(problem),
        outputs: ['OUTPUT_KIND_SCORES', 'OUTPUT_KIND_ATTENTION_WEIGHTS', 'OUTPUT_KIND_OUTPUT'],
      },
    };
  }
  const {query, key, value} = problem.layer;
  return {
    method: 'Attend',
    body: {
      embeddings: tensor(problem.rows.map(({values}) => values)),
      layer: {
        query_projection: {weight: tensor(query)},
        key_projection: {weight: tensor(key)},
        value_projection: {weight: tensor(value)},
        num_heads: problem.heads,
      },
      options: options(problem),
      outputs: ['QUERY', 'KEY', 'VALUE', 'SCORES', 'ATTENTION_WEIGHTS', 'OUTPUT'].map((kind) => `OUTPUT_KIND_${kind}`),
    },
  };
}

// A tensor of protobuf JSON as arrays in arrays; `-Infinity` is a string there.
function nested({shape, values}) {
  let level = values.map(Number);
  for (const length of shape.map(Number).slice(1).reverse()) {
    level = Array.from({length: level.length / length}, (_, i) => level.slice(i * length, (i + 1) * length));
  }
  return level;
}

// [heads][tokens][E] side by side: [tokens][heads * E].
const joinHeads = (heads) => heads[0].map((_, token) => heads.flatMap((head) => head[token]));

// What the server computed: query, key, value [tokens][H * E], scores and weights [H][T][S], output [T][H * V]. For a search,
// query, key and value are those that were sent.
export function resultOf(problem, answer) {
  const search = problem.kind === 'search';
  const [scores, weights] = [answer.scores, answer.attentionWeights].map(nested);
  const projected = search
    ? {
        query: [problem.query.values],
        key: problem.documents.map(({key}) => key.values),
        value: problem.documents.map(({value}) => value.values),
      }
    : {query: joinHeads(nested(answer.query)), key: joinHeads(nested(answer.key)), value: joinHeads(nested(answer.value))};
  return {
    ...projected,
    scores: search ? [scores] : scores,
    weights: search ? [weights] : weights,
    output: nested(answer.output),
    receipt: answer.receipt,
  };
}
