#!/usr/bin/env bash
# Builds the Python package (client/python) into build/python-package/dist, as a wheel and a source archive, and prints the
# wheel's path; does nothing else when nothing has changed. Fetches 2 MB from the Python package index the first time. Needs python3-venv and protoc.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly requirements=scripts/python-package-requirements.txt out=build/python-package
readonly venv=$out/venv stage=$out/source dist=$out/dist

mkdir -p "$out"
# Tests ask for the package at the same time.
exec {lock}>"$out/lock"
flock "$lock"

if ! cmp --silent "$requirements" "$venv/installed"; then
  rm -rf "$venv"
  /usr/bin/python3 -m venv "$venv" >&2 || { printf 'error: python3-venv is missing; run: make deps\n' >&2; exit 1; }
  "$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$requirements" >&2
  cp "$requirements" "$venv/installed"
fi

inputs=$({ git ls-files -z -- client/python proto LICENSE CMakeLists.txt "$0" "$requirements" | xargs -0 sha256sum; git log -1 --format=%ct; } | sha256sum)
if [[ $(cat "$out/inputs" 2>/dev/null) == "$inputs" ]]; then
  printf '%s\n' "$PWD/$dist"/*.whl
  exit
fi

rm -rf "$stage" "$dist" "$out/inputs"
cp -r client/python "$stage"
find "$stage" -name __pycache__ -prune -exec rm -r {} +
cp LICENSE "$stage/"
sed -n 's/^project(attend VERSION \([0-9.]*\).*/\1/p' CMakeLists.txt >"$stage/VERSION"
# Messages as data, not as generated code: that would go with some versions of protobuf alone.
protoc -I proto --include_imports --descriptor_set_out="$stage/src/attend/_protocol.binpb" \
  proto/attend/v1/*.proto proto/google/rpc/*.proto
# The files' times are those of the last commit: the same files give the same bytes.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
"$venv/bin/python" -m build --no-isolation --outdir "$dist" "$stage" >"$out/log" 2>&1 || { cat "$out/log" >&2; exit 1; }
printf '%s' "$inputs" >"$out/inputs"
printf '%s\n' "$PWD/$dist"/*.whl
