#!/usr/bin/env bash
# Runs every fuzz target of build/fuzz for a while, from its corpus in tests/fuzz/corpus. New inputs that reach new code go
# to build/fuzz/corpus; an input that crashes is kept in build/fuzz/crashes and fails the run.
#
#   scripts/fuzz.sh [SECONDS_PER_TARGET]        default 60
set -euo pipefail
cd "$(dirname "$0")/.."
readonly seconds=${1:-60}

# Keeping the stack of every allocation takes a third of the time; to see them, run a crashing input without this.
export ASAN_OPTIONS="malloc_context_size=0:${ASAN_OPTIONS:-}"

mkdir -p build/fuzz/crashes
found=0
for target in build/fuzz/bin/*_fuzz; do
  [[ -x $target ]] || continue
  found=$((found + 1))
  name=$(basename "$target" _fuzz)
  mkdir -p "build/fuzz/corpus/$name"
  # Model types, keys and names of tensors, which the fuzzer would not guess.
  : >"build/fuzz/$name.dict"
  if [[ $name == checkpoint ]]; then
    grep -hoE '"[^"]+"' formats/hugging_face/*.cc formats/layers/*.cc | tr -d '"' | tr ' ' '\n' |
      grep -xE '[A-Za-z0-9_.-]{3,60}' | sort -u | sed 's/.*/"&"/' >"build/fuzz/$name.dict"
  fi
  printf '==== %s: %s s\n' "$name" "$seconds"
  "$target" -dict="build/fuzz/$name.dict" -max_total_time="$seconds" -timeout=20 -print_final_stats=1 -verbosity=0 \
    -artifact_prefix="build/fuzz/crashes/$name-" "build/fuzz/corpus/$name" "tests/fuzz/corpus/$name"
done
[[ $found -gt 0 ]] || { printf 'error: no fuzz target in build/fuzz/bin; build them with: make build-fuzz\n' >&2; exit 1; }
