// The official Connect clients, for Node and for browsers (over Node's fetch), against the HTTP door, in JSON and in
// protobuf. Usage: node main.mjs URL DESCRIPTOR_SET. Prints what connect_test.py expects, once for each client and form.
import { readFileSync } from "node:fs";
import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport as nodeTransport } from "@connectrpc/connect-node";
import { createConnectTransport as webTransport } from "@connectrpc/connect-web";

const [baseUrl, descriptors] = process.argv.slice(2);
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(descriptors)));
const service = registry.getService("attend.v1.AttentionService");
const details = ["google.rpc.ErrorInfo", "google.rpc.BadRequest"].map((name) => registry.getMessage(name));

function one(...shape) {
  const size = shape.reduce((a, b) => a * b);
  return { shape: shape.map(BigInt), values: new Array(size).fill(1) };
}

async function failure(call) {
  try {
    await call;
  } catch (error) {
    return ConnectError.from(error);
  }
  throw new Error("the call should have failed");
}

async function check(name, transport) {
  const client = createClient(service, transport);
  const query = { ...one(1, 2), values: [0.1, 1 / 3] };
  let timing = null;
  const answer = await client.scaledDotProductAttention(
    { query, key: query, value: query },
    { onHeader: (headers) => (timing = headers.get("server-timing")), timeoutMs: 60000 },
  );
  const values = answer.output.values.map(Math.fround);
  const wrong = await failure(client.scaledDotProductAttention({ query: one(1, 2), key: one(1, 3), value: one(1, 2) }));
  const [info] = wrong.findDetails(details[0]);
  const [bad] = wrong.findDetails(details[1]);
  const long = one(1, 4096, 64);
  const late = await failure(
    client.scaledDotProductAttention({ query: long, key: long, value: long }, { timeoutMs: 1 }),
  );
  const gone = new AbortController();
  setTimeout(() => gone.abort(), 5);
  const left = await failure(
    client.scaledDotProductAttention({ query: long, key: long, value: long }, { signal: gone.signal }),
  );
  const server = await client.getServerInfo({});
  console.log(
    [
      name,
      `values ${values[0] === Math.fround(0.1) && values[1] === Math.fround(1 / 3)}`,
      `timing ${/^receive;dur=/.test(timing)}`,
      `code ${Code[wrong.code]}`,
      `reason ${info.reason} ${info.domain}`,
      `field ${bad.fieldViolations[0].field}`,
      `late ${Code[late.code]}`,
      `left ${Code[left.code]}`,
      `version ${server.version === answer.receipt.serverVersion}`,
    ].join(", "),
  );
}

for (const useBinaryFormat of [false, true]) {
  const form = useBinaryFormat ? "proto" : "json";
  await check(`node ${form}`, nodeTransport({ baseUrl, useBinaryFormat, httpVersion: "1.1" }));
  await check(`web ${form}`, webTransport({ baseUrl, useBinaryFormat }));
}
