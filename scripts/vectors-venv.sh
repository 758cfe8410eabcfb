#!/usr/bin/env bash
# Usage: scripts/vectors-venv.sh [REQUIREMENTS VENV]
#
# Makes VENV (build/venv), a Python environment with the implementations that attend is compared to, in the versions of
# REQUIREMENTS (tests/vectors/requirements.txt: PyTorch, ONNX, ONNX Runtime and NumPy). Fetches about 600 MB from the
# Python package index the first time and does nothing after that, until the versions change. Needs python3-venv, gcc
# and binutils.
#
# PyTorch's package for Linux is linked to CUDA libraries of several gigabytes, which nothing calls on a machine without
# an accelerator. Empty libraries of the same names stand in for them; only CUDA's small runtime is the real one, since
# it is called while loading.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly requirements=${1:-tests/vectors/requirements.txt}
readonly venv=${2:-build/venv}
readonly stamp=$venv/installed
readonly stand_ins=(libcublas.so.13 libcublasLt.so.13 libcudnn.so.9 libcufft.so.12 libcufile.so.0 libcupti.so.13
  libcusparse.so.12 libcusparseLt.so.0 libnccl.so.2 libnvrtc.so.13)

# The only variables, which even lazy binding looks up at once, are NVSHMEM's.
make_nvshmem() {
  local lib=$1 scratch
  scratch=$(mktemp -d)
  nm -D -u "$lib/libtorch_nvshmem.so" | sed -n 's/.* \(\w*\)@NVSHMEM$/char \1[256];/p' >"$scratch/nvshmem.c"
  echo 'NVSHMEM { global: *; };' >"$scratch/nvshmem.map"
  gcc -shared -nostdlib "$scratch/nvshmem.c" -Wl,--version-script="$scratch/nvshmem.map" \
    -Wl,-soname,libnvshmem_host.so.3 -o "$lib/libnvshmem_host.so.3"
  rm -r "$scratch"
}

install_torch() {
  local site name pins
  pins=$(sed -n 's/^# no-deps: //p' "$requirements")
  # shellcheck disable=SC2086  # One word for each package.
  "$venv/bin/pip" install --quiet --no-deps $pins
  site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  for name in "${stand_ins[@]}"; do
    gcc -shared -nostdlib -x c /dev/null -Wl,-soname,"$name" -o "$site/torch/lib/$name"
  done
  make_nvshmem "$site/torch/lib"
  # Functions are then looked up when they are called, which they never are.
  echo 'import sys, os; sys.setdlopenflags(os.RTLD_LAZY)' >"$site/torch_lazy_binding.pth"
}

if cmp --silent "$requirements" "$stamp" && cmp --silent "$0" "$stamp.script"; then exit 0; fi
rm -rf "$venv"
/usr/bin/python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check -r "$requirements"
install_torch
"$venv/bin/python" -c 'import grpc, torch; torch.ones(2, 2) @ torch.ones(2, 2)'
cp "$0" "$stamp.script"
cp "$requirements" "$stamp"
