#!/bin/bash
# The kernels of AArch64, cross-compiled, against plain C on an emulated processor: all levels, then those of a processor without i8mm.
# $1: directory to build in.
set -eu
cd "$(dirname "$0")"
for tool in aarch64-linux-gnu-gcc qemu-aarch64 cmake ninja; do
    command -v $tool > /dev/null || { echo "skipped: no $tool"; exit 77; }
done
cmake -S . -B "$1" -G Ninja -DCMAKE_BUILD_TYPE=Release > /dev/null
cmake --build "$1"
levels=$(qemu-aarch64 -cpu max "$1/zqcheck" --list | awk '{ print $NF }' | sort -u | tr '\n' ' ')
[ "$levels" = "c dotprod i8mm " ] || { echo "levels of the emulated processor: $levels"; exit 1; }
qemu-aarch64 -cpu max "$1/zqcheck" --seed 1
