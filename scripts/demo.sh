#!/usr/bin/env bash
# Starts a server, computes two cases that PyTorch computed before, and compares. Exits 0 only if every error is within
# the promised bound, 2e-6 * max|V| + 1e-6, and the server ends with 0.
#
#   scripts/demo.sh [BIN_DIR]     BIN_DIR holds attend-server, attend and attend-verify; default build/release/bin
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${1:-build/release/bin}
golden=tests/data/golden
work=$(mktemp -d)
server=

# What steers a server or a client of the user's must not steer these.
for variable in "${!ATTEND_@}"; do unset "$variable"; done

stop() {
  [[ -z $server ]] || kill -TERM "$server" 2>/dev/null || true
  rm -rf "$work"
}
trap stop EXIT

headline() { printf '\n==== %s\n' "$*"; }

headline "attend-server on a free port"
"$bin/attend-server" --listen 127.0.0.1:0 --port-file "$work/ports" --drain-wait 0s \
  >"$work/server.log" 2>&1 &
server=$!
for _ in $(seq 600); do
  [[ -s $work/ports ]] && break
  kill -0 "$server" 2>/dev/null || break
  sleep 0.1
done
if [[ ! -s $work/ports ]]; then
  echo "attend-server did not start:" >&2
  cat "$work/server.log" >&2
  exit 1
fi
ATTEND_ENDPOINTS=127.0.0.1:$(head -n 1 "$work/ports")
export ATTEND_ENDPOINTS
"$bin/attend" info

headline "five tokens: output and attention weights against PyTorch (float64)"
five=$golden/notebook_5x64.safetensors
"$bin/attend" compute -o table --input "$five:x" --layer "$five" --weights --show --timing
"$bin/attend-verify" compute --input "$five:x" --layer "$five" --weights
"$bin/attend-verify" compute --input "$five:x" --layer "$five" \
  --expect "$five:output_f64" --expect "attention_weights=$five:attention_weights_f64"

headline "512 tokens"
many=$golden/notebook_512x64.safetensors
"$bin/attend" compute -o table --input "$many:x" --layer "$many" --show --timing
"$bin/attend-verify" compute --input "$many:x" --layer "$many" \
  --expect "$many:output_f64" --expect "attention_weights=$many:attention_weights_f64"

headline "every error is within 2e-6 * max|V| + 1e-6"
printf 'To see query, key, value and weights in a browser: %s/attend-server --playground\n' "$bin"
kill -TERM "$server"
wait "$server" || { printf 'but attend-server ended with %d:\n' $? >&2; cat "$work/server.log" >&2; exit 1; }
server=
