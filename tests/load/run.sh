#!/usr/bin/env bash
# Loads a server on the loopback interface with ghz, which finds the method by reflection: one run per definition in
# deploy/load, closed loop, one after another, each bounded in calls and time; then open loop, up to ten times what a
# server can do (ghz_overload.py). Reports go to build/load as JSON and HTML.
#
#   tests/load/run.sh [BIN_DIR]        BIN_DIR holds attend-server; default build/release/bin
#
# ghz comes from the Go module proxy, in the version that tests/load/go.mod names.
set -euo pipefail
cd "$(dirname "$0")/../.."
readonly bin=$PWD/${1:-build/release/bin}
readonly out=$PWD/build/load
server=

stop() {
  [[ -z $server ]] || { kill -TERM "$server" && wait "$server"; } || true
}
trap stop EXIT

go=$(scripts/find-go.sh)
mkdir -p "$out" build/tools
PATH=$go:$PATH GOBIN=$PWD/build/tools go -C tests/load install github.com/bojand/ghz/cmd/ghz ./ghz_html
/usr/bin/python3 tests/load/payloads.py "$out"

rm -f "$out/ports"
"$bin/attend-server" --listen 127.0.0.1:0 --port-file "$out/ports" --drain-wait 0s >"$out/server.log" 2>&1 &
server=$!
for _ in $(seq 100); do
  [[ ! -s $out/ports ]] || break
  kill -0 "$server" 2>/dev/null || { cat "$out/server.log" >&2; exit 1; }
  sleep 0.1
done
address=127.0.0.1:$(head -n 1 "$out/ports")

reports=()
for definition in deploy/load/*.json; do
  name=$(basename "$definition" .json)
  reports+=("$out/$name.report.json")
  (cd "$out" && timeout 120 ../tools/ghz --config "$OLDPWD/$definition" --format json --output "$name.report.json" "$address")
  build/tools/ghz_html <"$out/$name.report.json" >"$out/$name.html"
done
/usr/bin/python3 tests/load/summary.py "${reports[@]}"
stop
server=
/usr/bin/python3 tests/load/ghz_overload.py --ghz build/tools/ghz --bin "$bin" --reports "$out"
for report in "$out"/overload-*.report.json; do
  build/tools/ghz_html <"$report" >"${report%.report.json}.html"
done
printf 'reports: %s\n' "${out#"$PWD"/}/*.html"
