#!/usr/bin/env bash
# Prints the directory of grpcurl, which README shows and its test calls. Where there is none, the Go module proxy's is
# built into build/tools (a minute, once). Fails with a sentence when that is impossible.
#
#   PATH=$(scripts/find-grpcurl.sh):$PATH
set -euo pipefail
cd "$(dirname "$0")/.."
readonly VERSION=v1.9.3

PATH=$PATH:$PWD/build/tools
if ! command -v grpcurl >/dev/null; then
  go=$(scripts/find-go.sh)
  mkdir -p build/tools
  PATH=$go:$PATH GOBIN=$PWD/build/tools timeout 600 go install "github.com/fullstorydev/grpcurl/cmd/grpcurl@$VERSION" >&2 ||
    { printf 'error: no grpcurl here, and none could be built\n' >&2; exit 1; }
fi
dirname "$(command -v grpcurl)"
