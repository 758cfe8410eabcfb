#!/usr/bin/env bash
# Runs make targets one after another, each under a headline with its duration, and stops at the first that fails.
#
#   scripts/steps.sh TARGET ...
set -euo pipefail
cd "$(dirname "$0")/.."

for target in "$@"; do
  printf '\n==== make %s\n' "$target"
  start=$SECONDS
  make "$target" || { printf '==== make %s FAILED after %d s\n' "$target" $((SECONDS - start)) >&2; exit 1; }
  printf '==== make %s: %d s\n' "$target" $((SECONDS - start))
done
