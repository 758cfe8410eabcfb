#!/usr/bin/env bash
# Makes a release of HEAD on this machine: the tag vVERSION, and in build/release-artefacts the source, the binaries, the
# Debian packages of this architecture and of arm64, the Python package, the container image and their checksums. Needs root for
# arm64. Publishes nothing: that is `git push origin vVERSION` and an upload, by hand.
#
#   scripts/release.sh [--dry-run]        --dry-run only checks, and says what would be made
#
# VERSION is CMakeLists.txt's. The tree must be clean, CHANGELOG.md must begin with `## [VERSION] - YYYY-MM-DD`, the tag must
# be new, and proto/baseline/ must hold the protocol that is released (`make baseline`).
set -euo pipefail
cd "$(dirname "$0")/.."
readonly out=build/release-artefacts

fail() {
  printf 'release: %s\n' "$*" >&2
  exit 1
}

check() {
  local newest
  [[ -z $(git status --porcelain) ]] || fail "the tree is not clean: commit or remove what git status shows"
  newest=$(grep -m 1 '^## ' CHANGELOG.md || true)
  [[ $newest =~ ^"## [$version] - "[0-9]{4}-[0-9]{2}-[0-9]{2}$ ]] ||
    fail "CHANGELOG.md begins with '$newest', but CMakeLists.txt has version $version: '## [$version] - YYYY-MM-DD' is expected"
  ! git rev-parse --quiet --verify "refs/tags/$tag" >/dev/null || fail "the tag $tag exists already"
  PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 tests/proto/baseline.py || fail 'proto/baseline/ is not what is released'
}

make_source() {
  git archive --format=tar.gz --prefix="attend-$version/" -o "$out/attend-$version.tar.gz" HEAD
}

make_binaries() {
  local name stage
  name=attend-$version-linux-$(uname -m)
  stage=$(mktemp -d)
  cmake --preset release >/dev/null
  cmake --build --preset release --parallel "${JOBS:-$(nproc)}" --target attend-server attend attend-server-shell-files attend-shell-files
  local component
  for component in server client attend-server-shell attend-shell; do
    cmake --install build/release --component "$component" --strip --prefix "$stage/$name" >/dev/null
  done
  cp -r LICENSE README.md ARCHITECTURE.md CHANGELOG.md docs "$stage/$name/"
  # The same bytes for the same files.
  tar --create --gzip --directory "$stage" --sort=name --owner=0 --group=0 --numeric-owner \
    --mtime="@$(git log -1 --format=%ct)" --file "$out/$name.tar.gz" "$name"
  rm -r "$stage"
}

make_packages() {
  scripts/packages.sh >/dev/null
  [[ $(dpkg --print-architecture) == arm64 ]] || scripts/packages-arm64.sh >/dev/null
  cp build/packages/*_"$version"_*.deb "$out/"
}

make_image() {
  scripts/build-image.sh "attend:$version" "$out/attend-$version-image.tar"
  gzip --no-name --force "$out/attend-$version-image.tar"
}

make_python_package() {
  scripts/python-package.sh >/dev/null
  cp build/python-package/dist/* "$out/"
}

version=$(sed -n 's/^project(attend VERSION \([0-9.]*\).*/\1/p' CMakeLists.txt)
tag=v$version
readonly version tag

check
if [[ ${1:-} == --dry-run ]]; then
  printf 'release: %s of %s may be made: source, binaries, Debian packages (also for arm64), Python package and image, checksums, and the tag %s\n' \
    "$version" "$(git rev-parse --short HEAD)" "$tag"
  exit
fi
rm -rf "$out"
mkdir -p "$out"
make_source
make_binaries
make_packages
make_python_package
make_image
(cd "$out" && sha256sum -- *.deb *.gz *.whl *.json >SHA256SUMS)
git tag --annotate --message "attend $version" "$tag"
printf 'release: the tag %s is made here, and these files are in %s:\n' "$tag" "$out"
cat "$out/SHA256SUMS"
