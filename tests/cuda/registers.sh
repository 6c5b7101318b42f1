#!/bin/bash
# What ptxas said of every kernel for every architecture: registers, and bytes spilled. Fails where a kernel spills, where products of wgmma
# are made one after the other, or where the numbers differ from the committed table of the same release of nvcc. Exit code 77, skipped: there is
# no nvcc, or all is right but there is no such table to compare with.
#     registers.sh BUILD NVCC [--write]
set -u
build=$1 nvcc=$2 here=$(dirname "$0")
if [ -z "$nvcc" ] || [ ! -e "$build/libzq_cuda.so" ]; then
    echo "skipped: no nvcc"
    exit 77
fi
release=$("$nvcc" --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')
table=$here/registers-$release.txt

list() {
    for file in "$build"/src/cuda/*.o.txt; do
        [[ $file = */cutlass_gemm.o.txt ]] && continue # not ours, optional, and of another version elsewhere
        awk '
            /Compiling entry function/ { split($0, part, "\047"); name = part[2]; arch = part[4] }
            /bytes stack frame/        { spill = $0; sub(/.*frame, /, "", spill); sub(/ bytes spill stores.*/, "", spill) }
            / Used [0-9]+ registers/   { used = $0; sub(/.* Used /, "", used); sub(/ registers.*/, "", used); print name, arch, used, spill }' "$file"
    done | c++filt -p | sed 's/(anonymous namespace):://' | LC_ALL=C sort
}

[ "${3-}" = --write ] && { list > "$table"; exit; }
found=$(list)
echo "kernel, architecture, registers, bytes spilled"
echo "$found"
status=0
[ "$(wc -l <<< "$found")" -ge 80 ] || { echo "too few kernels were compiled"; status=1; }
if awk '$NF != 0' <<< "$found" | grep .; then
    echo "the kernels above spill"
    status=1
fi
if grep 'wgmma.*serialized' "$build"/src/cuda/gemm_sm90.o.txt; then
    echo "ptxas lets no two products of wgmma overlap in the kernels above"
    status=1
fi
if [ ! -e "$table" ]; then
    echo "skipped: there is no table for nvcc $release; to write it: $0 $build $nvcc --write"
    [ $status = 0 ] && status=77
elif ! diff "$table" <(echo "$found"); then
    echo "the numbers differ from $table; if that is meant: $0 $build $nvcc --write"
    status=1
fi
exit $status
