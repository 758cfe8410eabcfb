#!/usr/bin/env bash
# Cross-compiles the Debian packages of HEAD for arm64 into build/packages, in a bare Debian 12 of its own that has arm64 as a
# foreign architecture: this machine's own packages stay as they are.
#
#   scripts/packages-arm64.sh        as root
set -euo pipefail
# shellcheck source=scripts/bare-root.sh
source "$(dirname "$0")/bare-root.sh"

make_bare_root
inside dpkg --add-architecture arm64
inside 'apt-get update -qq && scripts/install-dependencies.sh cross' >/dev/null
inside 'export CCACHE_BASEDIR=/root/attend CCACHE_NOHASHDIR=1 CCACHE_COMPILERCHECK=content && scripts/packages.sh arm64'
mkdir -p build/packages
rm -f build/packages/*_arm64.deb
cp "$root"/root/attend/build/packages/*_arm64.deb build/packages/
