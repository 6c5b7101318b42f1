#!/bin/bash
# gpu-bundle.sh [BUILD [FILE]]: the built programs, their plug-ins and the shared libraries they need in one archive, for a machine that
# has a GPU and its driver but neither these libraries nor a compiler. That machine's libc must not be older than this one's.
# BUILD: default build; FILE: default BUILD/gpu-bundle.tar.gz.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build}
file=${2:-$build/gpu-bundle.tar.gz}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/lib"
for program in zq zqcheck check-device make-checkpoint; do
    [ -x "$build/$program" ] || { echo "$0: $build/$program is missing; build first" >&2; exit 3; }
    install -s "$build/$program" "$folder/"
done
for plugin in libzq_cuda.so libzq_cuda_host.so; do
    if [ -e "$build/$plugin" ]; then cp "$build/$plugin" "$folder/"; else echo "note: without $plugin, which $build does not have" >&2; fi
done
find "$build" -maxdepth 1 -name 'tuning-*.txt' -exec cp -t "$folder" {} + # of cards that were measured
# libc and the loader are the machine's own; so is the driver
ldd "$folder"/zq "$folder"/zqcheck "$folder"/check-device "$folder"/make-checkpoint "$folder"/*.so | awk '$2 == "=>" { print $3 }' | sort -u |
    grep -vE '/(libc|libm|libdl|libpthread|librt|libcuda)\.so' | xargs -r cp -Lt "$folder/lib"
tar -C "$folder" -czf "$file" .
echo "$file: $(du -h "$file" | cut -f 1)"
