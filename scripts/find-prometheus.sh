#!/usr/bin/env bash
# Prints the directory of `prometheus` and `promtool`, which judge deploy/observability. Where there are none, those of
# Debian's package are unpacked into build/tools/prometheus: installing it would start a daemon. Fails with a sentence when
# that is impossible.
#
#   PATH=$(scripts/find-prometheus.sh):$PATH
set -euo pipefail
cd "$(dirname "$0")/.."
readonly unpacked=$PWD/build/tools/prometheus

if command -v promtool >/dev/null && command -v prometheus >/dev/null; then
  dirname "$(command -v promtool)"
  exit
fi

# Tests may ask at the same time.
mkdir -p build/tools
exec {lock}>build/tools/find-prometheus.lock
flock "$lock"
if [[ ! -x $unpacked/usr/bin/promtool ]]; then
  work=$(mktemp -d build/tools/prometheus.XXXXXX)
  (cd "$work" && apt-get download -qq -o Acquire::Retries=5 prometheus >&2 && dpkg-deb -x prometheus_*.deb unpacked) ||
    { rm -rf "$work"; printf 'error: no prometheus here, and its Debian package cannot be fetched\n' >&2; exit 1; }
  rm -rf "$unpacked"
  mv "$work/unpacked" "$unpacked"
  rm -rf "$work"
fi
printf '%s\n' "$unpacked/usr/bin"
