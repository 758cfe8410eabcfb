#!/usr/bin/env bash
# Runs the Connect conformance suite's cases about unary calls (conformance.yaml) against the HTTP door.
#
#   tests/connect/conformance_test.sh CONFORMANCE_SERVER
#
# The suite's runner is a Go module, built into build/tools (a minute, once).
set -euo pipefail
server=$(realpath "$1")
cd "$(dirname "$0")/../.."
readonly VERSION=v1.0.5
readonly folder=$PWD/build/tools/connectconformance-$VERSION

if [[ ! -x $folder/connectconformance ]]; then
  go=$(scripts/find-go.sh)
  PATH=$go:$PATH GOBIN=$folder go install "connectrpc.com/conformance/cmd/connectconformance@$VERSION"
fi
"$folder/connectconformance" --mode server --conf tests/connect/conformance.yaml --trace -v -- "$server"
