#!/usr/bin/env bash
# Usage: tests/vectors/models/record.sh [--only REGEX]
#
# Writes tests/data/config_subsets.json anew, see record.py. Needs the virtual environments of run.sh, which it makes.
set -euo pipefail
cd "$(dirname "$0")/../../.."

readonly here=tests/vectors/models file=tests/data/config_subsets.json
export PYTHONPATH=$PWD/$here PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1

for line in transformers-4 transformers-5; do
  mkdir -p build/models
  scripts/vectors-venv.sh "$here/$line.txt" "build/models/venv-$line"
  nice "build/models/venv-$line/bin/python" -W ignore "$here/record.py" "$file" "$@"
done
