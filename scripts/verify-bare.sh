#!/usr/bin/env bash
# Proves the README's two commands on a bare Debian 12: makes a minimal root file system with debootstrap, puts a clean
# checkout of HEAD into it, and runs `make demo` and `make test` there as root, with nothing installed but git and make.
#
#   scripts/verify-bare.sh [TARGET ...]        as root; default: demo test. The root is removed afterwards.
#
# Only /proc, a private /dev/shm and the network are shared with this machine.
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
  umount "$root/proc" "$root/dev/shm" 2>/dev/null || true
  rm -rf --one-file-system "$root"
}
trap clean_up EXIT

scripts/debian-root.sh "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/dev/shm"
mkdir "$root/root/attend"
git archive HEAD | tar -C "$root/root/attend" -xf -

inside() {
  chroot "$root" env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    bash -c "cd /root/attend && $*"
}

# What a person needs to have this checkout and to type `make`.
inside 'apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends git make' >/dev/null
# Tests may ask git about their files.
inside 'git init -q && git add -A && git -c user.name=x -c user.email=x@localhost commit -q -m checkout'
for target in "$@"; do
  printf '\n==== bare Debian 12: make %s\n' "$target"
  start=$SECONDS
  inside "make $target" </dev/null
  printf '==== bare Debian 12: make %s: %d s\n' "$target" $((SECONDS - start))
done
