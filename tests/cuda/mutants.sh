#!/bin/bash
# mutants.sh ZQCHECK FOLDER: every plug-in with a planted fault (src/cuda, MUTANT(n)) must fail the checks with each of five seeds, and by
# a wrong result, a complaint of the simulator or a read beside a buffer (139: a segmentation fault), not by a failure to start.
set -u
zqcheck=$1 n=0 missed=0
for plugin in "$2"/libzq_cuda_mutant*.so; do
    n=$((n + 1))
    for seed in 1 2 3 4 5; do
        said=$("$zqcheck" --cuda-host --plugin "$plugin" --seed "$seed" 2>&1)
        status=$?
        if [ $status != 139 ] && { [ $status != 1 ] || ! grep -q '^FAIL' <<< "$said"; }; then
            echo "$plugin, seed $seed: not caught: $said"
            missed=$((missed + 1))
        fi
    done
done
echo "$n planted faults, $missed runs missed one"
[ $missed = 0 ] && [ $n = 11 ]
