// The heatmaps of a computation, step by step. A figure is
// {id, role, title, caption, rows, columns, values, scale, group, explain(row, column)}: labels and numbers, without a place to draw
// them; `scale` is 'signed' or 'weight'; every `group` columns belong to a head (0: no heads);
// `wide` ones have words across, `several` are one of some heads.

import {explainEmbedding, explainOutput, explainProjection, explainScore, explainVector, explainWeight} from './arithmetic.mjs';

const numbered = (length) => Array.from({length}, (_, i) => String(i + 1));

function vectorFigure(problem, fields) {
  const group = problem.heads > 1 ? problem.headSize : 0;
  return {columns: numbered(problem.size), scale: 'signed', group, ...fields};
}

function projection(problem, result, name, role, caption) {
  return vectorFigure(problem, {
    id: role,
    role,
    title: role.toUpperCase(),
    caption,
    rows: problem.queries,
    values: result[name],
    explain: (row, column) => explainProjection(problem, result, name, row, column),
  });
}

function captionOf({places, parts}) {
  if (places) return 'a vector for each word, from its spelling';
  return parts ? 'a vector for each word, from a trained model' : 'the vectors that you typed';
}

function attendVectors(problem, result) {
  return [
    vectorFigure(problem, {
      id: 'x',
      role: 'x',
      title: 'X',
      caption: captionOf(problem.rows[0]),
      rows: problem.queries,
      values: problem.rows.map(({values}) => values),
      group: 0,
      explain: (row, column) => explainEmbedding(problem, row, column),
    }),
    projection(problem, result, 'query', 'q', 'queries: what each word looks for'),
    projection(problem, result, 'key', 'k', 'keys: what each word offers to be found by'),
    projection(problem, result, 'value', 'v', 'values: what each word hands over'),
  ];
}

// The layer's matrices: X times each, transposed, is Q, K or V.
function matrices(problem) {
  return Object.entries({query: 'q', key: 'k', value: 'v'}).map(([name, role]) => ({
    id: `matrix-${role}`,
    role,
    title: `W${role.toUpperCase()}`,
    caption: `the ${name} matrix`,
    rows: numbered(problem.size),
    columns: numbered(problem.size),
    values: problem.layer[name],
    scale: 'signed',
    group: 0,
    explain: (row, column) => ({
      heading: `Row ${row + 1}, column ${column + 1} of the ${name} matrix`,
      parts: [{text: String(problem.layer[name][row][column]), role}],
      note: 'Part of the layer. A trained model has learned such numbers; these were not learned.',
      uses: [],
    }),
  }));
}

function searchVectors(problem) {
  const figure = (id, title, caption, labels, vectors) =>
    vectorFigure(problem, {
      id,
      role: id,
      title,
      caption,
      rows: labels,
      values: vectors.map(({values}) => values),
      explain: (row, column) => explainVector(labels[row], vectors[row], column),
    });
  return [
    figure('q', 'Q', 'the query: what you look for', problem.queries, [problem.query]),
    figure(
      'k',
      'K',
      'keys: the descriptions',
      problem.keys,
      problem.documents.map(({key}) => key),
    ),
    figure(
      'v',
      'V',
      'values: the documents',
      problem.keys,
      problem.documents.map(({value}) => value),
    ),
  ];
}

function perHead(problem, values, fields) {
  return values.map((map, head) => {
    const {id, title, explain, ...rest} = fields;
    return {
      id: `${id}-${head + 1}`,
      title: problem.heads > 1 ? `${title}, head ${head + 1}` : title,
      rows: problem.queries,
      columns: problem.keys,
      values: map,
      group: 0,
      wide: true,
      several: problem.heads > 1,
      explain: (row, column) => explain(head, row, column),
      ...rest,
    };
  });
}

// {vectors, matrices, scores, weights, output}: lists of figures.
export function figuresOf(problem, result) {
  const search = problem.kind === 'search';
  const vectors = search ? searchVectors(problem) : attendVectors(problem, result);
  return {
    vectors,
    matrices: search ? [] : matrices(problem),
    scores: perHead(problem, result.scores, {
      id: 'scores',
      role: 's',
      title: 'Scores',
      caption: 'each query against each key',
      scale: 'signed',
      explain: (head, row, column) => explainScore(problem, result, head, row, column),
    }),
    weights: perHead(problem, result.weights, {
      id: 'weights',
      role: 'w',
      title: 'Weights',
      caption: 'each row adds up to 1',
      scale: 'weight',
      explain: (head, row, column) => explainWeight(problem, result, head, row, column),
    }),
    // The values once more, beside what becomes of them.
    output: [
      {...vectors.at(-1), id: 'values'},
      vectorFigure(problem, {
        id: 'output',
        role: 'o',
        title: 'Output',
        caption: search ? 'the mixed document' : 'the new vector of each word',
        rows: problem.queries,
        values: result.output,
        explain: (row, column) => explainOutput(problem, result, row, column),
      }),
    ],
  };
}
