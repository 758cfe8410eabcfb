#!/usr/bin/env bash
# Installs what attend needs from Debian 12's own packages. Nothing happens, and no network is asked, when all is there.
#
#   scripts/install-dependencies.sh [--check] [GROUP ...]     default: build test tools lint
#
# Run as root, or as a user with sudo. With --check, only lists what is missing and fails when something is.
set -euo pipefail

declare -rA PACKAGES=(
  # What CMake needs for the server and the client.
  [build]="g++ cmake ninja-build ccache pkg-config make
           libgrpc++-dev libprotobuf-dev protobuf-compiler protobuf-compiler-grpc grpc-proto
           libabsl-dev libeigen3-dev libhwy-dev libspdlog-dev libcli11-dev nlohmann-json3-dev libcairo2-dev libssl-dev
           libboost-dev prometheus-cpp-dev zlib1g-dev fonts-dejavu-core"
  # What the tests, the benchmarks and the demo need on top. Python is the oracle and the foreign client.
  [test]="libgtest-dev libgmock-dev libbenchmark-dev python3 python3-grpcio python3-protobuf python3-numpy
          python3-prometheus-client openssl curl git procps groff-base python3-venv ca-certificates"
  # scripts/python-package.sh
  [python]="protobuf-compiler python3-venv git ca-certificates"
  # clang's thread-safety analysis, the fuzzers' runtime and everything `make lint` runs; scripts/lint-venv.sh fetches the rest.
  [lint]="clang-14 clang-tidy-14 clang-format-14 libclang-rt-14-dev shellcheck git python3-venv ca-certificates"
  # Building the container image without a Docker engine, and its test.
  [image]="debootstrap buildah ca-certificates git python3"
  # What `make bench-core` compares with; attend itself is built without it.
  [bench]="libdnnl-dev"
  # Building for 64-bit Arm and running it; scripts/arm64-sysroot.sh fetches the libraries.
  [neon]="g++-aarch64-linux-gnu qemu-user"
  # scripts/vectors-venv.sh
  [peers]="python3-venv gcc binutils"
  # scripts/find-go.sh
  [tools]="python3-venv ca-certificates"
  # `make test-clients`. The Rust that Debian 12 keeps current for its browsers; Go comes from scripts/find-go.sh.
  [languages]="maven default-jdk-headless protobuf-compiler protobuf-compiler-grpc-java-plugin nodejs npm python3-venv
               ca-certificates"
  [rust]="rustc-web cargo-web"
  # tests/kubernetes/cluster.sh
  [kubernetes]="containerd runc containernetworking-plugins iptables ipset conntrack iproute2 openssl procps util-linux
                debootstrap buildah ca-certificates git python3"
  # `make test-page`
  [page]="chromium nodejs npm ca-certificates"
  # scripts/bare-root.sh
  [bare]="debootstrap git ca-certificates"
  # scripts/packages.sh
  [packages]="dpkg-dev file git"
  # scripts/packages.sh arm64, in a Debian with that architecture: tools of this machine, libraries of arm64.
  [cross]="cmake ninja-build ccache pkg-config dpkg-dev file git
           protobuf-compiler protobuf-compiler-grpc grpc-proto g++-aarch64-linux-gnu qemu-user
           libgrpc++-dev:arm64 libprotobuf-dev:arm64 libabsl-dev:arm64 libeigen3-dev libhwy-dev:arm64 libspdlog-dev:arm64
           libcli11-dev nlohmann-json3-dev libcairo2-dev:arm64 libssl-dev:arm64 libboost-dev:arm64 prometheus-cpp-dev:arm64
           zlib1g-dev:arm64 fonts-dejavu-core"
)

# Prints those of the given packages that are neither installed nor provided by one that is.
missing() {
  local package provided
  provided=$(dpkg-query -W -f '${db:Status-Status} ${Provides}\n' | sed -n 's/^installed //p' | tr ',' '\n' | awk 'NF {print $1}')
  for package in "$@"; do
    dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed ||
      grep -qxF "$package" <<<"$provided" || printf '%s\n' "$package"
  done
}

as_root() {
  if [[ $EUID -eq 0 ]]; then
    env DEBIAN_FRONTEND=noninteractive "$@"
  elif command -v sudo >/dev/null; then
    sudo env DEBIAN_FRONTEND=noninteractive "$@"
  else
    printf 'error: not root and no sudo; as root, run: apt-get install --no-install-recommends %s\n' "${absent[*]}" >&2
    exit 1
  fi
}

main() {
  local check=false group
  local -a wanted=()
  if [[ ${1:-} == --check ]]; then
    check=true
    shift
  fi
  [[ $# -gt 0 ]] || set -- build test tools lint
  for group in "$@"; do
    if [[ -z ${PACKAGES[$group]:-} ]]; then
      printf 'error: no group "%s"; there are: %s\n' "$group" "${!PACKAGES[*]}" >&2
      exit 2
    fi
    read -r -d '' -a packages <<<"${PACKAGES[$group]}" || true
    wanted+=("${packages[@]}")
  done

  read -r -d '' -a absent <<<"$(missing "${wanted[@]}" | sort -u)" || true
  [[ ${#absent[@]} -gt 0 ]] || return 0
  printf 'missing Debian packages (%s): %s\n' "$*" "${absent[*]}"
  [[ $check == false ]] || exit 1

  # A machine's third-party package sources may be unreachable; that is a warning here. Debian's own must answer,
  # and the installation says so if they did not.
  as_root apt-get update -qq || printf 'warning: apt-get update reported errors; trying to install all the same\n' >&2
  as_root apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 "${absent[@]}" </dev/null
}

absent=()
main "$@"
