#!/usr/bin/env bash
# Makes a bare Debian 12 root file system: minbase, with this machine's own Debian package sources, and nothing else.
#
#   scripts/debian-root.sh DIRECTORY        DIRECTORY must be empty or absent; needs root
#
# The mirror is read from this machine's apt, so that the root works wherever the machine itself works. The bare tree is
# kept as a tar file under ${XDG_CACHE_HOME:-~/.cache}/attend for a week; the apt settings are written afresh each time.
set -euo pipefail

readonly SUITE=bookworm
readonly KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
readonly CACHE_DAYS=7

# Prints "URI SUITE" for each Debian source of this machine that belongs to Debian 12, the main archive first.
debian_sources() {
  # apt itself expands $(REPO_URI) and the like.
  # shellcheck disable=SC2016
  apt-get indextargets --format '$(CREATED_BY) $(ORIGIN) $(COMPONENT) $(REPO_URI) $(RELEASE)' 2>/dev/null |
    awk -v suite="$SUITE" '$1 == "Packages" && $2 == "Debian" && $3 == "main" &&
      ($5 == suite || $5 == suite "-updates" || $5 == suite "-security") { print length($5), $4, $5 }' |
    sort -n -u | cut -d ' ' -f 2-
}

bootstrap() {
  local tarball=$1 mirror=$2 work
  work=$(mktemp -d)
  # shellcheck disable=SC2064  # The path as it is now.
  trap "rm -rf --one-file-system '$work'" EXIT
  # ca-certificates: a machine's mirror may speak https.
  debootstrap --variant=minbase --include=ca-certificates --keyring="$KEYRING" "$SUITE" "$work/root" "$mirror" >"$work/log" 2>&1 ||
    { tail -n 20 "$work/log" >&2; return 1; }
  rm -rf "$work"/root/var/lib/apt/lists/* "$work"/root/var/cache/apt/* "$work"/root/var/log/*
  mkdir -p "${tarball%/*}"
  tar -C "$work/root" --one-file-system -cf "$tarball.$$" .
  mv "$tarball.$$" "$tarball"
  rm -rf --one-file-system "$work"
  trap - EXIT
}

# Lets the root's apt reach what this machine's apt reaches: sources, keys, proxies, certificates.
copy_apt_settings() {
  local root=$1 uri suite directory
  rm -rf "$root"/etc/apt/sources.list "$root"/etc/apt/sources.list.d/*
  while read -r uri suite; do
    printf 'deb %s %s main\n' "$uri" "$suite"
  done <<<"$sources" >"$root/etc/apt/sources.list"
  for directory in /etc/apt/trusted.gpg.d /etc/apt/keyrings /etc/apt/auth.conf.d /usr/local/share/ca-certificates; do
    [[ -d $directory ]] || continue
    mkdir -p "$root$directory"
    cp -R "$directory/." "$root$directory/"
  done
  apt-config dump --no-empty --format '%f "%v";%n' Acquire::http Acquire::https >"$root/etc/apt/apt.conf.d/90machine"
  cp -L /etc/resolv.conf "$root/etc/resolv.conf" 2>/dev/null || true
  chroot "$root" update-ca-certificates >/dev/null 2>&1
}

[[ $# -eq 1 ]] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[[ $EUID -eq 0 ]] || { printf 'error: making a root file system needs root; try: sudo %s %s\n' "$0" "$1" >&2; exit 1; }
readonly target=$1

sources=$(debian_sources)
if [[ -z $sources ]]; then
  apt-get update -qq || true
  sources=$(debian_sources)
fi
[[ -n $sources ]] || { printf "error: apt on this machine has no source of Debian 12's main archive\n" >&2; exit 1; }

tarball=${XDG_CACHE_HOME:-$HOME/.cache}/attend/$SUITE-minbase-$(dpkg --print-architecture).tar
if [[ -z $(find "$tarball" -mtime "-$CACHE_DAYS" 2>/dev/null) ]]; then
  mirror=${sources%%$'\n'*}
  bootstrap "$tarball" "${mirror%% *}"
fi
mkdir -p "$target"
tar -C "$target" -xf "$tarball"
copy_apt_settings "$target"
