#!/usr/bin/env bash
# Runs the tests in tests/deploy/manifests: what deploy/ tells Kubernetes and Compose.
#
#   tests/deploy/manifests_test.sh ATTEND_SERVER_BINARY
#
# They are written in Go, whose modules come from the Go module proxy. A machine that can get neither is told so and the
# test counts as skipped (exit code 77), except in CI.
set -euo pipefail
ATTEND_SERVER_BINARY=$(realpath "$1")
export ATTEND_SERVER_BINARY
cd "$(dirname "$0")/manifests"

skip() {
  printf 'manifests are NOT tested: %s\n' "$1" >&2
  [[ -z ${CI:-} ]] || exit 1
  exit 77
}

go=$(../../../scripts/find-go.sh) || skip 'no Go'
export PATH=$go:$PATH
go mod download || { sleep 10; go mod download; } || skip 'the Go modules cannot be fetched'
go vet ./...
go test -count=1 ./...
