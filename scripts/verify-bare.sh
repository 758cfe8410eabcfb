#!/usr/bin/env bash
# Runs make targets in a fresh, bare Debian 12: makes a minimal root file system with debootstrap, clones HEAD into it,
# runs README's own line that installs git and make, then each target. A package that only this machine has is absent
# there, so a target that needs one fails.
#
#   scripts/verify-bare.sh [TARGET ...]        as root; default: demo test. The root is removed afterwards.
#
# The root shares /proc, the network and two caches with this machine: the compiler's (CCACHE_DIR, default ~/.cache/ccache)
# and clang-tidy's (ATTEND_TIDY_CACHE, default ~/.cache/attend-tidy). It has its own /dev/shm and pseudo-terminals. CI, JOBS and CTEST_OUTPUT_ON_FAILURE are passed on.
set -euo pipefail
cd "$(dirname "$0")/.."
[[ $EUID -eq 0 ]] || { printf 'error: making a root file system needs root\n' >&2; exit 1; }
[[ $# -gt 0 ]] || set -- demo test

# A private mount namespace: no mount outlives this script.
if [[ ${ATTEND_VERIFY_NAMESPACE:-} != private ]]; then
  ATTEND_VERIFY_NAMESPACE=private exec unshare --mount --propagation private "$0" "$@"
fi

root=$(mktemp -d)
readonly -A caches=(  # Folder in the root -> folder of this machine.
  [var/cache/ccache]=${CCACHE_DIR:-$HOME/.cache/ccache}
  [var/cache/attend-tidy]=${ATTEND_TIDY_CACHE:-$HOME/.cache/attend-tidy}
)

# The caches are bind mounts, so --one-file-system would not protect them: nothing is removed while one is mounted.
clean_up() {
  local mounted
  for mounted in dev/pts dev/shm proc; do
    umount --lazy "$root/$mounted" 2>/dev/null || true
  done
  for mounted in "${!caches[@]}"; do
    mounted=$root/$mounted
    if mountpoint -q "$mounted" && ! umount "$mounted" && ! umount --lazy "$mounted"; then
      printf 'error: %s cannot be unmounted, so %s stays\n' "$mounted" "$root" >&2
      return
    fi
  done
  rm -rf --one-file-system "$root"
}
trap clean_up EXIT

make_root() {
  scripts/debian-root.sh "$root"
  mount -t proc proc "$root/proc"
  mount -t tmpfs tmpfs "$root/dev/shm"
  # What any installed Debian has and debootstrap leaves to the installer: pseudo-terminals and a name for loopback.
  mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
  ln -sf pts/ptmx "$root/dev/ptmx"
  printf '127.0.0.1 localhost\n::1 localhost ip6-localhost\n' >"$root/etc/hosts"
  local cache
  for cache in "${!caches[@]}"; do
    mkdir -p "${caches[$cache]}" "$root/$cache"
    mount --bind "${caches[$cache]}" "$root/$cache"
  done
  git clone --quiet --depth 1 "file://$PWD" "$root/root/attend"
}

inside() {
  chroot "$root" env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    CCACHE_DIR=/var/cache/ccache ATTEND_TIDY_CACHE=/var/cache/attend-tidy "${passed_on[@]}" bash -c "cd /root/attend && $*" </dev/null
}

passed_on=()
for variable in CI JOBS CTEST_OUTPUT_ON_FAILURE GTEST_COLOR NINJA_STATUS; do
  [[ -z ${!variable:-} ]] || passed_on+=("$variable=${!variable}")
done

make_root
install=$(grep -m 1 '^apt-get .*install' README.md)
inside "${install%%#*}" >/dev/null
for target in "$@"; do
  printf '\n==== bare Debian 12: make %s\n' "$target"
  start=$SECONDS
  inside "make $target"
  printf '==== bare Debian 12: make %s: %d s\n' "$target" $((SECONDS - start))
done
