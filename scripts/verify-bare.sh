#!/usr/bin/env bash
# Runs make targets in a fresh, bare Debian 12 (scripts/bare-root.sh): clones HEAD into it, runs README's own line that
# installs git and make, then each target. A package that only this machine has is absent there, so a target that needs one
# fails.
#
#   scripts/verify-bare.sh [TARGET ...]        as root; default: demo test
set -euo pipefail
[[ $# -gt 0 ]] || set -- demo test
# shellcheck source=scripts/bare-root.sh
source "$(dirname "$0")/bare-root.sh"

make_bare_root
install=$(grep -m 1 '^apt-get .*install' README.md)
inside "${install%%#*}" >/dev/null
for target in "$@"; do
  printf '\n==== bare Debian 12: make %s\n' "$target"
  start=$SECONDS
  inside "make $target"
  printf '==== bare Debian 12: make %s: %d s\n' "$target" $((SECONDS - start))
done
