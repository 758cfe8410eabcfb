#!/usr/bin/env bash
# Runs everything that takes too long for CI, one target after the other, and goes on after a failure. Ends with a
# summary of verdicts and times; fails when a target failed. Output of each target: build/nightly/TARGET.log
#
#   scripts/nightly.sh [TARGET ...]        default: all; as root. FUZZ_SECONDS (default 600) is the time of each fuzzer.
set -euo pipefail
cd "$(dirname "$0")/.."
export FUZZ_SECONDS=${FUZZ_SECONDS:-600}
[[ $# -gt 0 ]] || set -- deps test lint lint-tests test-image test-observability test-envoy test-kubernetes test-neon test-vectors test-python test-minilm test-clients test-page test-newcomer test-packages test-models mutants off-by-ones fuzz hostile soak load bench bench-peers

readonly logs=build/nightly
mkdir -p "$logs"
summary=() failed=0
for target in "$@"; do
  printf '==== make %s\n' "$target"
  start=$SECONDS verdict=passed
  if ! make "$target" >"$logs/$target.log" 2>&1; then
    verdict=FAILED
    failed=$((failed + 1))
    tail -n 20 "$logs/$target.log"
  fi
  summary+=("$(printf '%-16s %s %6d s' "$target" "$verdict" $((SECONDS - start)))")
done
printf '\n==== nightly: %d of %d targets failed\n' "$failed" $#
printf '%s\n' "${summary[@]}"
[[ $failed -eq 0 ]]
