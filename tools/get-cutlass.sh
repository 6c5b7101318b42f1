#!/bin/bash
# get-cutlass.sh [FOLDER]: CUTLASS's headers from PyPI's package nvidia-cutlass, for the optional kernels of src/cuda/cutlass_gemm.cu.
# FOLDER: default build/cutlass, where CMake looks (so does it in CUTLASS_DIR/include, and where the system has headers). Needs python3 with pip.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-build/cutlass}
version=4.2.0.0
sum=f9599ada45c7bcb6bf53f7d3f0a7d154183e53451c01bfa59eecd37dd4a693f6
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$work" "nvidia-cutlass==$version"
wheel=$(echo "$work"/*.whl)
echo "$sum  $wheel" | sha256sum --check --quiet
python3 -m zipfile -e "$wheel" "$work/wheel"
mkdir -p "$folder"
rm -rf "$folder/include"
mv "$work/wheel/cutlass_library/source/include" "$folder/include"
echo "$folder/include: CUTLASS $version; configure again (cmake --preset release) to build with it"
