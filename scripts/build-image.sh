#!/usr/bin/env bash
# Builds the container image from the Dockerfile with docker, podman or buildah, whichever is there and works, or with
# the one that ATTEND_IMAGE_TOOL names.
#
#   scripts/build-image.sh [TAG [ARCHIVE]]      TAG: default attend:VERSION, VERSION as in CMakeLists.txt
#                                               ARCHIVE: a .tar to write the image to, for `docker load`; what the image
#                                               holds (SPDX) is written beside it, to .spdx.json in place of .tar
#
# Without docker and podman, and so usually without a registry, the base image is this machine's own Debian 12, made by
# scripts/debian-root.sh (needs root). BUILDAH_OPTIONS are given to every buildah command, for example a --root.
set -euo pipefail
cd "$(dirname "$0")/.."

version=$(sed -n 's/^project(attend VERSION \([0-9.]*\).*/\1/p' CMakeLists.txt)
readonly version
readonly tag=${1:-attend:$version} archive=${2:-}
revision=$(git rev-parse HEAD 2>/dev/null || printf unknown)
readonly arguments=(--build-arg "VERSION=$version" --build-arg "REVISION=$revision" --tag "$tag" .)

readonly base=docker.io/library/debian:bookworm-slim
read -r -a buildah_options <<<"${BUILDAH_OPTIONS:---storage-driver vfs}"

in_buildah() {
  buildah "${buildah_options[@]}" "$@"
}

# Puts Debian 12 as this machine installs it into buildah's store, under the names that a Dockerfile may use for it.
import_base() {
  local root container
  root=$(mktemp -d)
  scripts/debian-root.sh "$root"
  container=$(in_buildah from scratch)
  in_buildah copy --quiet "$container" "$root" / >/dev/null
  in_buildah commit --quiet "$container" "$base" >/dev/null
  in_buildah tag "$base" localhost/debian:bookworm-slim
  in_buildah rm "$container" >/dev/null
  rm -rf --one-file-system "$root"
}

with_buildah() {
  local ccache=${CCACHE_DIR:-$HOME/.cache/ccache}
  mkdir -p "$ccache"
  in_buildah inspect --type image "$base" >/dev/null 2>&1 || import_base
  # HEALTHCHECK exists in Docker's image format alone. The compiler cache is the one that `make` uses.
  in_buildah bud --isolation chroot --pull-never --format docker --volume "$ccache:/root/.cache/ccache" "${arguments[@]}"
  [[ -z $archive ]] || in_buildah push "$tag" "docker-archive:$archive:$tag"
}

# The dpkg database of the image.
packages_of_image() {
  local container
  if [[ $tool != buildah ]]; then
    "$tool" run --rm --network none --read-only --entrypoint cat "$tag" /var/lib/dpkg/status
    return
  fi
  container=$(in_buildah from --pull-never "$tag")
  cat "$(in_buildah mount "$container")/var/lib/dpkg/status"
  in_buildah rm "$container" >/dev/null
}

write_sbom() {
  packages_of_image | /usr/bin/python3 scripts/sbom.py --version "$version" --revision "$revision" \
    --created "$(git log -1 --format=%ct 2>/dev/null || date +%s)" >"${archive%.tar}.spdx.json"
}

tool=${ATTEND_IMAGE_TOOL:-}
if [[ -z $tool ]]; then
  for tool in docker podman buildah none; do
    ! "$tool" info >/dev/null 2>&1 || break
  done
fi
case $tool in
  docker)
    docker build "${arguments[@]}"
    [[ -z $archive ]] || docker save --output "$archive" "$tag"
    ;;
  podman)
    podman build --format docker "${arguments[@]}"
    [[ -z $archive ]] || podman save --format docker-archive --output "$archive" "$tag"
    ;;
  buildah) with_buildah ;;
  *)
    printf 'error: none of docker, podman and buildah works here; scripts/install-dependencies.sh image brings buildah\n' >&2
    exit 1
    ;;
esac
[[ -z $archive ]] || write_sbom
