#!/usr/bin/env bash
# Usage: tests/vectors/models/run.sh [LINE ...]     LINE: transformers-4, transformers-5, packages (default: all)
#
# Makes a small random model of every class that the packages ship, compares attend's layers with it and writes
# build/models/MODELS.md. Fails when a layer is wrong, or a case cannot tell. What is there from a sweep that was stopped
# is kept: remove build/models/LINE to begin again. ONLY=REGEX takes the classes whose `type.class` it finds, JOBS
# (2) runs so many at a time, ATTEND_BIN has another attend-server, KEYS=0 leaves the keys of config.json as they are.
set -euo pipefail
cd "$(dirname "$0")/../../.."

readonly here=tests/vectors/models
lines=("$@")
[[ ${#lines[@]} -gt 0 ]] || lines=(transformers-4 transformers-5 packages)

export ATTEND_BUILD_DIR=$PWD/build/release ATTEND_SOURCE_DIR=$PWD ATTEND_MODELS_DIR=$PWD/build/models
export ATTEND_MODELS_SERVER=${ATTEND_BIN:-$ATTEND_BUILD_DIR/bin}/attend-server ATTEND_MODELS_KEYS=${KEYS:-1}
export PYTHONPATH=$PWD/tests/support:$ATTEND_BUILD_DIR/generated/python:$PWD/$here
export PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1

for line in "${lines[@]}"; do
  # The other packages need the newest transformers, too.
  requirements=$here/${line/packages/transformers-5}.txt
  venv=build/models/venv-${line/packages/transformers-5}
  mkdir -p build/models
  scripts/vectors-venv.sh "$requirements" "$venv"
  nice "$venv/bin/python" -W ignore "$here/sweep.py" "$line" --jobs "${JOBS:-2}" --only "${ONLY:-}"
done
/usr/bin/python3 "$here/report.py" --head "$here/head.md" --attend "$(git rev-parse --short HEAD)" --check "${lines[@]}" \
  >build/models/MODELS.md
