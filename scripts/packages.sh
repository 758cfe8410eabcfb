#!/usr/bin/env bash
# Builds the Debian packages of this checkout into build/packages; docs/packages.md says what is in them.
#
#   scripts/packages.sh            for this machine's architecture
#   scripts/packages.sh arm64      cross-compiled, in a Debian that has arm64 as a foreign architecture (packages-arm64.sh)
set -euo pipefail
cd "$(dirname "$0")/.."

preset=package${1:+-$1}
architecture=${1:-$(dpkg --print-architecture)}
export DEB_HOST_ARCH=$architecture  # For dpkg-shlibdeps.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
cmake --preset "$preset" >/dev/null
cmake --build --preset "$preset" --parallel "${JOBS:-$(nproc)}"
rm -rf "build/$preset/debs"
(cd "build/$preset" && cpack -G DEB -B debs >cpack.log) || { cat "build/$preset/cpack.log" >&2; exit 1; }
mkdir -p build/packages
rm -f "build/packages/"*_"$architecture".deb
mv "build/$preset/debs/"*.deb build/packages/
ls "build/packages/"*_"$architecture".deb
