#!/usr/bin/env bash
# Everything that is checked without running the product: formatting (clang-format), shell scripts (shellcheck), Python (ruff, and
# mypy for client/python), proto/ (buf, and the rules that buf does not know), and bugs and style of the product's C++ (clang-tidy).
#
#   scripts/lint.sh [STEP ...]        formatting shell_scripts python protos tidy; default: all. JOBS sets parallelism.
#                                     tidy_tests, the same for the tests' C++, is nightly's: it takes half an hour.
#
# clang-tidy takes minutes the first time and seconds after that: scripts/tidy.py passes over what was clean before.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONDONTWRITEBYTECODE=1

formatting() {
  git ls-files -z '*.cc' '*.h' | xargs -0 -r clang-format-14 --dry-run -Werror
}

shell_scripts() {
  git ls-files -z '*.sh' .ci/run | xargs -0 -r shellcheck
}

python() {
  local tools
  tools=$(scripts/lint-venv.sh) && "$tools/ruff" check --quiet --no-cache . &&
    (cd client/python/src && "$tools/mypy" --config-file ../pyproject.toml --python-executable /usr/bin/python3 \
      --cache-dir ../../../build/mypy --no-error-summary .)
}

protos() {
  local tools
  tools=$(scripts/lint-venv.sh) && "$tools/buf" lint && "$tools/buf" breaking --against proto/baseline/attend.binpb &&
    /usr/bin/python3 tests/proto/proto_style_test.py
}

tidy() { tidy_files 'core/*.cc' 'formats/*.cc' 'server/*.cc' 'client/*.cc'; }
tidy_tests() { tidy_files 'tests/*.cc'; }

tidy_files() {
  local preset files
  for preset in lint lint-threads; do
    cmake --preset "$preset" >/dev/null && cmake --build --preset "$preset" >/dev/null || return
  done
  mapfile -t files < <(git ls-files "$@")
  /usr/bin/python3 scripts/tidy.py build/lint build/lint-threads --jobs "${JOBS:-$(nproc)}" --files "${files[@]}"
}

[[ $# -gt 0 ]] || set -- formatting shell_scripts python protos tidy
failed=()
for step in "$@"; do
  start=$SECONDS
  if "$step"; then
    printf 'lint: %s: clean (%d s)\n' "$step" $((SECONDS - start))
  else
    failed+=("$step")
  fi
done
[[ ${#failed[@]} -eq 0 ]] || { printf 'lint: FAILED: %s\n' "${failed[*]}" >&2; exit 1; }
