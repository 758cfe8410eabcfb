// A real `attend-server --playground` on free ports of the loopback interface, ended by its process id.

import {spawn} from 'node:child_process';
import {existsSync, mkdtempSync, readFileSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {setTimeout as pause} from 'node:timers/promises';

export const BUILD_DIR = process.env.ATTEND_BUILD_DIR;
const PATIENCE_MS = 60000;

function portsIn(file) {
  const text = existsSync(file) ? readFileSync(file, 'utf8') : '';
  return text.endsWith('\n') ? text.trim().split(/\s+/).map(Number) : undefined;
}

// {origin, grpc, log(), stop()}.
export async function startServer(...flags) {
  const folder = mkdtempSync(join(tmpdir(), 'attend-page-'));
  const portFile = join(folder, 'ports');
  const process = spawn(
    join(BUILD_DIR, 'bin', 'attend-server'),
    ['--playground', '--listen', '127.0.0.1:0', '--port-file', portFile, '--drain-wait', '0s', ...flags],
    {stdio: ['ignore', 'pipe', 'pipe']},
  );
  let log = '';
  for (const stream of [process.stdout, process.stderr]) stream.on('data', (bytes) => (log += bytes));
  const ended = new Promise((resolve) => process.once('exit', resolve));
  const end = Date.now() + PATIENCE_MS;
  let ports;
  while (!(ports = portsIn(portFile))) {
    if (process.exitCode !== null || Date.now() > end) throw new Error(`the server did not start:\n${log}`);
    await pause(20);
  }
  return {
    origin: `http://127.0.0.1:${ports[1]}`,
    port: ports[1],
    grpc: `127.0.0.1:${ports[0]}`,
    log: () => log,
    stop: async () => {
      process.kill('SIGTERM');
      const code = await ended;
      rmSync(folder, {recursive: true});
      if (code !== 0) throw new Error(`the server ended with ${code}:\n${log}`);
    },
  };
}
