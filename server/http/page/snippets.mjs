// The code that computes what the page shows: for curl, and for Python with the package attend-client.

import {SERVICE} from './request.mjs';

const STEP = '    ';

// JSON with a line for each field, and lists of numbers on one.
function jsonOf(value, indent = '') {
  if (Array.isArray(value)) return `[${value.map((entry) => JSON.stringify(entry)).join(', ')}]`;
  if (typeof value !== 'object') return JSON.stringify(value);
  const inner = `${indent}  `;
  const fields = Object.entries(value).map(([name, field]) => `${inner}${JSON.stringify(name)}: ${jsonOf(field, inner)}`);
  return `{\n${fields.join(',\n')}\n${indent}}`;
}

// The request holds numbers and names of ours only, so nothing in it needs quoting for a shell.
export function curlCode({method, body}, origin) {
  return `curl -sS ${origin}${SERVICE}/${method} \\\n  -H 'content-type: application/json' \\\n  -d '${jsonOf(body)}'\n`;
}

function arrayOf(rows, indent = '') {
  const lines = rows.map((row) => `${indent}${STEP}[${row.join(', ')}],`);
  return `np.array([\n${lines.join('\n')}\n${indent}], np.float32)`;
}

// A Python string, which JSON's is too.
const list = (labels) => `[${labels.map((label) => JSON.stringify(label)).join(', ')}]`;

function keywords({causal, window, scale, heads, kind}) {
  return [
    ...(kind === 'attend' ? [`num_heads=${heads}`, 'per_head=True'] : []),
    `scale=${scale}`,
    ...(causal ? ['causal=True'] : []),
    ...(window !== null ? [`sliding_window_left=${window}`, `sliding_window_right=${window}`] : []),
  ].join(', ');
}

function attendCode(problem) {
  const weights = Object.entries(problem.layer).map(([name, rows]) => `${STEP}"${name}.weight": ${arrayOf(rows, STEP)},`);
  return `words = ${list(problem.queries)}
x = ${arrayOf(problem.rows.map(({values}) => values))}
layer = {
${weights.join('\n')}
}
client = attend.Client()  # ATTEND_ENDPOINTS, or localhost:50051
result = client.attend(
    x, layer=layer, ${keywords(problem)},
    outputs=["query", "key", "value", "scores", "attention_weights", "output"],
)
for head, weights in enumerate(result.attention_weights, 1):
    for word, row in zip(words, weights):
        print(f"head {head}: {word} attends most to {words[row.argmax()]} ({row.max():.2f})")
`;
}

function searchCode(problem) {
  return `documents = ${list(problem.documents.map(({text}) => text))}
query = ${arrayOf([problem.query.values])}
keys = ${arrayOf(problem.documents.map(({key}) => key.values))}
values = ${arrayOf(problem.documents.map(({value}) => value.values))}
client = attend.Client()  # ATTEND_ENDPOINTS, or localhost:50051
result = client.sdpa(query, keys, values, ${keywords(problem)}, outputs=["scores", "attention_weights", "output"])
weights = result.attention_weights[0]
for i in (-weights).argsort(kind="stable"):
    print(f"{weights[i]:.2f}  {documents[i]}")
`;
}

export function pythonCode(problem) {
  return `import attend\nimport numpy as np\n\n${problem.kind === 'search' ? searchCode(problem) : attendCode(problem)}`;
}
