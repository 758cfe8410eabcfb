#!/usr/bin/env bash
# Fetches Debian 12's arm64 builds of what the core links with into build/arm64-sysroot, for the preset `neon`. Nothing
# happens, and no network is asked, when they are there.
#
#   scripts/arm64-sysroot.sh
#
# Needs no root and leaves the machine's own packages and architectures alone: apt works on package lists of its own
# below build/, with this machine's sources, keys and proxies.
set -euo pipefail
cd "$(dirname "$0")/.."

# Shared libraries beside their development files; GoogleTest is static.
readonly PACKAGES=(libabsl-dev libabsl20220623 libeigen3-dev libhwy-dev libhwy1 libgtest-dev libgmock-dev nlohmann-json3-dev)
readonly TARGET=$PWD/build/arm64-sysroot
readonly WORK=$TARGET.partial
readonly STAMP=$TARGET/packages

apt_arm64() {
  apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Architectures::=arm64 \
    -o Dir::State="$WORK/apt" -o Dir::State::status="$WORK/apt/status" -o Dir::Cache="$WORK/apt" \
    -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
    -o APT::Sandbox::User="$(id -un)" "$@"
}

[[ "$(cat "$STAMP" 2>/dev/null)" != "${PACKAGES[*]}" ]] || exit 0
printf 'fetching arm64 packages into build/arm64-sysroot: %s\n' "${PACKAGES[*]}"
rm -rf "$WORK" "$TARGET"
mkdir -p "$WORK/apt/lists/partial" "$WORK/apt/archives/partial" "$WORK/debs" "$WORK/root"
touch "$WORK/apt/status"

# Some third-party source of the machine may be unreachable or know no arm64; only Debian's matters here.
apt_arm64 update || printf 'warning: apt-get update reported errors; trying to fetch all the same\n' >&2
(cd "$WORK/debs" && apt_arm64 download "${PACKAGES[@]}") ||
  { printf "error: this machine's apt sources do not offer these packages for arm64\n" >&2; exit 1; }
for deb in "$WORK"/debs/*.deb; do dpkg-deb -x "$deb" "$WORK/root"; done
printf '%s\n' "${PACKAGES[*]}" >"$WORK/root/packages"
mv "$WORK/root" "$TARGET"
rm -rf "$WORK"
