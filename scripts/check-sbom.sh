#!/usr/bin/env bash
# Has SPDX's own tools judge a list of packages that scripts/build-image.sh wrote. Fetches them from the Python package index once.
#
#   scripts/check-sbom.sh FILE.spdx.json
set -euo pipefail
file=$(realpath "$1")
cd "$(dirname "$0")/.."
readonly requirements=scripts/spdx-requirements.txt venv=build/tools/spdx
if ! cmp --silent "$requirements" "$venv/installed"; then
  rm -rf "$venv"
  mkdir -p build/tools
  /usr/bin/python3 -m venv "$venv" >&2
  "$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$requirements" >&2
  cp "$requirements" "$venv/installed"
fi
"$venv/bin/pyspdxtools" --infile "$file"
