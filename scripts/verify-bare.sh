#!/usr/bin/env bash
# Proves the README's commands on a bare Debian 12: makes a minimal root file system with debootstrap, puts a clean clone
# of HEAD into it, and runs there, as root, the README's own line that installs git and make, `make demo` and `make test`.
#
#   scripts/verify-bare.sh [TARGET ...]        as root; default: demo test. The root is removed afterwards.
#
# Only /proc and the network are shared with this machine; /dev/shm and the pseudo-terminals are the root's own.
set -euo pipefail
cd "$(dirname "$0")/.."
[[ $EUID -eq 0 ]] || { printf 'error: making a root file system needs root\n' >&2; exit 1; }
[[ $# -gt 0 ]] || set -- demo test

# In a mount namespace of its own, so that nothing stays mounted, however this ends.
if [[ ${ATTEND_VERIFY_NAMESPACE:-} != private ]]; then
  ATTEND_VERIFY_NAMESPACE=private exec unshare --mount --propagation private "$0" "$@"
fi

root=$(mktemp -d)
clean_up() {
  local mounted
  for mounted in dev/pts dev/shm proc; do
    umount --lazy "$root/$mounted" 2>/dev/null || true
  done
  rm -rf --one-file-system "$root"
}
trap clean_up EXIT

scripts/debian-root.sh "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/dev/shm"
# What any installed Debian has, and debootstrap leaves to the installer: pseudo-terminals and a name for the loopback.
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -sf pts/ptmx "$root/dev/ptmx"
printf '127.0.0.1 localhost\n::1 localhost ip6-localhost\n' >"$root/etc/hosts"
git clone --quiet --depth 1 "file://$PWD" "$root/root/attend"

inside() {
  chroot "$root" env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    bash -c "cd /root/attend && $*"
}

install=$(grep -m 1 '^apt-get .*install' README.md)
inside "${install%%#*}" </dev/null >/dev/null
for target in "$@"; do
  printf '\n==== bare Debian 12: make %s\n' "$target"
  start=$SECONDS
  inside "make $target" </dev/null
  printf '==== bare Debian 12: make %s: %d s\n' "$target" $((SECONDS - start))
done
