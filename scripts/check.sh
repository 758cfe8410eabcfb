#!/usr/bin/env bash
# Builds some tests of the optimised build, with what they run and nothing else, and runs them.
#
#   scripts/check.sh [TEST]        the name of a test, or a regular expression; default: all tests that start no server
#                                  (those without the label `slow`). JOBS sets parallelism.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly wanted=${1:-} jobs=${JOBS:-$(nproc)}

names() {
  ctest --preset release -N "$@" | sed -n 's/^ *Test *#[0-9]*: //p'
}

[[ -f build/release/build.ninja ]] || cmake --preset release >/dev/null
cmake --build --preset release --target build.ninja >/dev/null  # Configures anew when a CMake file has changed.

selection=(--label-exclude '^slow$')
if [[ -n $wanted ]]; then
  selection=(--tests-regex "^($wanted)\$")
  [[ -n $(names "${selection[@]}") ]] || selection=(--tests-regex "$wanted")
fi
mapfile -t tests < <(names "${selection[@]}")
[[ ${#tests[@]} -gt 0 ]] || { printf 'error: no test matches "%s"; ctest --preset release -N lists them\n' "$wanted" >&2; exit 2; }

# A test's target has the test's name (cmake/AttendTargets.cmake).
cmake --build --preset release --parallel "$jobs" --target "${tests[@]}"
ctest --preset release --parallel "$jobs" "${selection[@]}"
