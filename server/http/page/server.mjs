// Calls of the server that the page came from, by the Connect protocol.

import {SERVICE} from './request.mjs';

// Says in a sentence why there is no answer.
export class CallError extends Error {}

function sentenceOf(status, error) {
  const field = error.details
    ?.flatMap((detail) => detail.debug?.fieldViolations ?? [])
    .map((violation) => violation.field)
    .find(Boolean);
  const code = String(error.code ?? `HTTP ${status}`).replaceAll('_', ' ');
  return `The server refused this (${code}${field ? `, ${field}` : ''}): ${error.message || 'it does not say why'}.`.replace(
    /\.\.$/,
    '.',
  );
}

const SILENT = 'The server does not answer. Is attend-server still running?';

// The text of a file of the page. Throws CallError.
export async function load(name) {
  const response = await fetch(name).catch(() => null);
  if (!response?.ok) throw new CallError(response ? `The server has no ${name}.` : SILENT);
  return response.text().catch(() => {
    throw new CallError(`The server stopped sending ${name}.`);
  });
}

// {answer, timing}: the response as JSON, and the milliseconds that the server says it computed, or null. Throws CallError, and
// AbortError when `signal` says so.
export async function call(method, body, signal) {
  let response;
  try {
    response = await fetch(`${SERVICE}/${method}`, {
      method: 'POST',
      headers: {'content-type': 'application/json', 'connect-protocol-version': '1'},
      body: JSON.stringify(body),
      signal,
    });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new CallError(SILENT);
  }
  const answer = await response.json().catch(() => null);
  if (response.ok && answer !== null) {
    const compute = /compute;dur=([\d.]+)/.exec(response.headers.get('server-timing') ?? '');
    return {answer, timing: compute ? Number(compute[1]) : null};
  }
  throw new CallError(sentenceOf(response.status, answer ?? {}));
}
