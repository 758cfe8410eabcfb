#!/usr/bin/env bash
# Builds the real Dockerfile and calls the server in the built image: as the image's own user, which is not root, on a root
# file system that nobody can write, without a shell. Measures what the image adds to its base.
#
#   tests/deploy/image_test.sh        as root; needs buildah and debootstrap (scripts/install-dependencies.sh image)
#
# No container engine is needed: buildah builds without one, and the server runs in a mount namespace of its own.
set -euo pipefail
cd "$(dirname "$0")/../.."
readonly MAX_OWN_BYTES=$((40 * 1000 * 1000))
readonly IMAGE=localhost/attend:test

store=${XDG_CACHE_HOME:-$HOME/.cache}/attend/image-store
export BUILDAH_OPTIONS="--root $store --runroot $store-run --storage-driver vfs"
work=$(mktemp -d)
server=

in_buildah() {
  # shellcheck disable=SC2086  # Options, not one word.
  buildah $BUILDAH_OPTIONS "$@"
}

clean_up() {
  [[ -z $server ]] || kill -KILL "$server" 2>/dev/null || true
  in_buildah rm --all >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap clean_up EXIT

fail() {
  printf 'FAILED: %s\n' "$*" >&2
  [[ ! -s $work/server.log ]] || sed 's/^/server: /' "$work/server.log" >&2
  exit 1
}

image_setting() {
  in_buildah inspect --type image --format "{{$1}}" "$IMAGE"
}

# Runs a command in the image as the image's user: read-only root, no new privileges, and nothing mounted but the
# reference results on /mnt.
in_image() {
  # shellcheck disable=SC2016  # For the inner shell, which is the host's.
  exec unshare --mount --propagation private bash -c '
    mount --bind "$0" "$0" && mount --bind "$1" "$0/mnt" && mount -o remount,bind,ro "$0" &&
      exec setpriv --no-new-privs chroot --groups= --userspec="$2" "$0" "${@:3}"' "$root" "$PWD/tests/data/golden" "$user" "$@"
}

free_port() {
  /usr/bin/python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

check_layers() {
  local base_layers own
  in_buildah push --quiet --disable-compression "$IMAGE" "dir:$work/layers" >/dev/null
  base_layers=$(in_buildah inspect --type image --format '{{len .OCIv1.RootFS.DiffIDs}}' docker.io/library/debian:bookworm-slim)
  own=$(/usr/bin/python3 - "$work/layers" "$base_layers" <<'PYTHON'
import json, sys
directory, base_layers = sys.argv[1], int(sys.argv[2])
print(sum(layer["size"] for layer in json.load(open(f"{directory}/manifest.json"))["layers"][base_layers:]))
PYTHON
  )
  printf 'own layers: %d bytes of at most %d\n' "$own" "$MAX_OWN_BYTES"
  ((own > 0 && own <= MAX_OWN_BYTES)) || fail "the image's own layers take $own bytes"
}

check_settings() {
  user=$(image_setting .Docker.Config.User)
  [[ $user =~ ^[1-9][0-9]*:[1-9][0-9]*$ ]] || fail "the image's user is '$user', not a number other than root's"
  [[ $(image_setting .Docker.Config.Entrypoint) == '[/usr/local/bin/attend-server]' ]] || fail 'entrypoint'
  [[ $(image_setting .Docker.Config.Healthcheck.Test) == '[CMD /usr/local/bin/attend health]' ]] || fail 'health check'
  [[ $(image_setting '(index .Docker.Config.Labels "org.opencontainers.image.version")') =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] ||
    fail 'no version label'
}

# The list of packages is valid SPDX, and is what dpkg says of the image.
check_sbom() {
  scripts/check-sbom.sh "$work/image.spdx.json" || fail 'the list of packages is not valid SPDX'
  dpkg-query --admindir="$root/var/lib/dpkg" -W -f '${db:Status-Status} ${Package} ${Version}\n' |
    sed -n 's/^installed //p' | sort >"$work/installed"
  /usr/bin/python3 -c 'import json, sys
for entry in json.load(open(sys.argv[1]))["packages"]:
    if entry.get("supplier"):
        print(entry["name"], entry["versionInfo"])' "$work/image.spdx.json" | sort >"$work/listed"
  diff "$work/installed" "$work/listed" || fail 'the list of packages is not the image'"'"'s'
}

start_server() {
  local port
  port=$(free_port)
  (in_image /usr/local/bin/attend-server --listen "127.0.0.1:$port" --drain-wait 0s) >"$work/server.log" 2>&1 &
  server=$!
  export ATTEND_ENDPOINTS=127.0.0.1:$port
  for _ in $(seq 600); do
    ! (in_image /usr/local/bin/attend health) >"$work/health" 2>&1 || return 0
    kill -0 "$server" 2>/dev/null || fail 'the server ended'
    sleep 0.1
  done
  fail "the image's health check does not succeed: $(cat "$work/health")"
}

check_isolation() {
  [[ $(awk '/^Uid:/ { print $2, $3 }' "/proc/$server/status") == "${user%:*} ${user%:*}" ]] || fail 'the server runs as another user'
  [[ $(awk '/^Cap(Eff|Prm):/ { print $2 }' "/proc/$server/status" | sort -u) =~ ^0+$ ]] || fail 'the server has capabilities'
  ! touch "/proc/$server/root/tmp/written" 2>/dev/null || fail 'the root file system can be written'
}

# Compares with PyTorch's float64 result; ten times the promised bound is enough to see that the image computes.
check_answers() {
  local five=/mnt/notebook_5x64.safetensors
  (in_image /usr/local/bin/attend compute -o json --input "$five:x" --layer "$five") >"$work/result.json" ||
    fail 'the call failed'
  /usr/bin/python3 - "$work/result.json" tests/data/golden/notebook_5x64.safetensors <<'PYTHON' || fail 'the result is wrong'
import json, struct, sys
got = json.load(open(sys.argv[1]))["tensors"]["output"]["values"]
file = open(sys.argv[2], "rb").read()
(size,) = struct.unpack("<Q", file[:8])
begin, end = json.loads(file[8 : 8 + size])["output_f64"]["data_offsets"]
expected = struct.unpack(f"<{(end - begin) // 8}d", file[8 + size + begin : 8 + size + end])
error = max(abs(a - b) for a, b in zip(got, expected, strict=True))
sys.exit(error > 3e-5)
PYTHON
}

# The image can draw: with a font, all that fails is writing to its root file system.
check_picture() {
  local five=/mnt/notebook_5x64.safetensors
  ! (in_image /usr/local/bin/attend compute --input "$five:x" --plot /weights.png) >/dev/null 2>"$work/picture" ||
    fail 'the root file system can be written'
  grep -q 'cannot create /weights.png' "$work/picture" || fail "a picture cannot be drawn: $(cat "$work/picture")"
}

check_drain() {
  kill -TERM "$server"
  wait "$server" || fail "SIGTERM: exit code $?"
  server=
}

[[ $EUID -eq 0 ]] || fail 'run as root: the base image is made with debootstrap'
# Start from nothing: a base of an earlier run may name package sources that this machine no longer has.
in_buildah rm --all >/dev/null 2>&1 || true
in_buildah rmi --all --force >/dev/null 2>&1 || true
# A docker or podman on this machine is not asked: the rest of this test reads buildah's store.
ATTEND_IMAGE_TOOL=buildah scripts/build-image.sh "$IMAGE" "$work/image.tar" >"$work/build.log" 2>&1 || { tail -n 40 "$work/build.log" >&2; fail build; }
root=$(in_buildah mount "$(in_buildah from --pull-never "$IMAGE")")
check_settings
check_layers
check_sbom
start_server
check_isolation
check_answers
check_picture
check_drain
printf 'image: built, listed, healthy, unprivileged, read-only, correct, drained\n'
