#!/usr/bin/env bash
# Formatting (clang-format), shell scripts (shellcheck), style of proto/ (its test, which ctest runs too), bugs and style of
# the C++ (clang-tidy on formats, core, server and client).
#
#   scripts/lint.sh        needs the compile commands and objects of `make build-thread-safety`; JOBS sets parallelism
#
# clang-tidy takes seconds per file, so a file is passed over when its object has not been rebuilt since it was last
# found clean: the build tool knows better than we which headers a file depends on.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly BUILD=build/thread-safety
readonly STAMPS=$BUILD/lint

formatting() {
  git ls-files -z '*.cc' '*.h' | xargs -0 -r clang-format-14 --dry-run -Werror
}

shell_scripts() {
  git ls-files -z '*.sh' .ci/run | xargs -0 -r shellcheck
}

protos() {
  PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 tests/proto/proto_style_test.py
}

# Prints "SOURCE OBJECT" for every translation unit of ours.
translation_units() {
  /usr/bin/python3 - "$PWD" "$BUILD" <<'PYTHON'
import json, os, sys
root, build = sys.argv[1:]
for entry in json.load(open(f"{build}/compile_commands.json")):
    source = os.path.relpath(os.path.join(entry["directory"], entry["file"]), root)
    if source.split("/")[0] in ("formats", "core", "server", "client"):
        words = entry["command"].split()
        target = words[words.index("-o") + 1]
        print(source, os.path.relpath(os.path.join(entry["directory"], target), root))
PYTHON
}

tidy_one() {
  local source=$1 object=$2 stamp=$STAMPS/${1//\//__}
  [[ ! ($stamp -nt $object && $stamp -nt .clang-tidy) ]] || return 0
  clang-tidy-14 --quiet -p "$BUILD" "$source" 2> >(grep -v 'warnings\? generated' >&2) || return 1
  touch "$stamp"
}

tidy() {
  mkdir -p "$STAMPS"
  export -f tidy_one
  export BUILD STAMPS
  translation_units | xargs -P "${JOBS:-$(nproc)}" -L 1 bash -c 'tidy_one "$@"' tidy_one
}

failed=()
for step in formatting shell_scripts protos tidy; do
  start=$SECONDS
  if "$step"; then
    printf 'lint: %s: clean (%d s)\n' "$step" $((SECONDS - start))
  else
    failed+=("$step")
  fi
done
[[ ${#failed[@]} -eq 0 ]] || { printf 'lint: FAILED: %s\n' "${failed[*]}" >&2; exit 1; }
