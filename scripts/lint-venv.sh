#!/usr/bin/env bash
# Makes build/lint-venv, which holds the linters that Debian 12 lacks (ruff, mypy, buf), and prints its bin/. Fetches 50 MB from the
# Python package index the first time, and nothing after that until scripts/lint-requirements.txt changes. Needs python3-venv.
#
#   PATH=$PATH:$(scripts/lint-venv.sh)
set -euo pipefail
cd "$(dirname "$0")/.."
readonly requirements=scripts/lint-requirements.txt venv=build/lint-venv

if ! cmp --silent "$requirements" "$venv/installed"; then
  rm -rf "$venv"
  /usr/bin/python3 -m venv "$venv" >&2 || { printf 'error: python3-venv is missing; run: make deps\n' >&2; exit 1; }
  "$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$requirements" >&2
  cp "$requirements" "$venv/installed"
fi
printf '%s\n' "$PWD/$venv/bin"
