#!/usr/bin/env bash
# Usage: install_package.sh PYTHON FOLDER
#
# Builds the Python package and unpacks its wheel into FOLDER, which then holds that package alone.
set -euo pipefail
readonly python=$1 folder=$2
wheel=$("$(dirname "$0")/../../scripts/python-package.sh")
mkdir -p "$folder"
exec {lock}>"$folder.lock"
flock "$lock"
if ! cmp --silent "$wheel" "$folder/installed.whl"; then
  rm -rf "$folder"
  mkdir "$folder"
  "$python" -m zipfile -e "$wheel" "$folder"
  cp "$wheel" "$folder/installed.whl"
fi
