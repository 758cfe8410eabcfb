# To be sourced by a script that needs root: a fresh, bare Debian 12 of its own, in a private mount namespace, removed when the
# script ends. Goes to the top of this checkout; the script's arguments are kept.
#
#   source "$(dirname "$0")/bare-root.sh"
#   make_bare_root                        # in $root, with a clone of HEAD in /root/attend
#   inside 'make demo'                    # a command line for bash, there
#
# The root shares /proc, the network and two caches with this machine: the compiler's (CCACHE_DIR, default ~/.cache/ccache)
# and clang-tidy's (ATTEND_TIDY_CACHE, default ~/.cache/attend-tidy). It has its own /dev/shm and pseudo-terminals. CI, JOBS
# and CTEST_OUTPUT_ON_FAILURE are passed on.
# shellcheck shell=bash

[[ $EUID -eq 0 ]] || { printf 'error: making a root file system needs root\n' >&2; exit 1; }
# No mount outlives the script.
if [[ ${ATTEND_BARE_NAMESPACE:-} != private ]]; then
  ATTEND_BARE_NAMESPACE=private exec unshare --mount --propagation private "$(realpath "$0")" "$@"
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

root=$(mktemp -d)
readonly -A caches=(  # Folder in the root -> folder of this machine.
  [var/cache/ccache]=${CCACHE_DIR:-$HOME/.cache/ccache}
  [var/cache/attend-tidy]=${ATTEND_TIDY_CACHE:-$HOME/.cache/attend-tidy}
)
passed_on=()
for variable in CI JOBS CTEST_OUTPUT_ON_FAILURE GTEST_COLOR NINJA_STATUS; do
  [[ -z ${!variable:-} ]] || passed_on+=("$variable=${!variable}")
done

# The caches are bind mounts, so --one-file-system would not protect them: nothing is removed while one is mounted.
remove_bare_root() {
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
trap remove_bare_root EXIT

make_bare_root() {
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

# Runs the command line in place of this shell.
enter() {
  exec chroot "$root" env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    CCACHE_DIR=/var/cache/ccache ATTEND_TIDY_CACHE=/var/cache/attend-tidy "${passed_on[@]}" bash -c "cd /root/attend && $*" </dev/null
}

inside() {
  (enter "$@")
}
