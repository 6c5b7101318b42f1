#!/bin/bash
# mutants.sh ZQCHECK PLUGIN KERNELS: PLUGIN has the faults inside that sources below KERNELS plant as MUTANT(n). With each of them awake the check of its
# operator must fail, with each of five seeds, and by a wrong result, a complaint of the simulator or a read beside a buffer (139: a segmentation
# fault), not by a failure to start.
set -u
zqcheck=$1 n=0 missed=0
operators=([1]=attention [2]=gemm [3]=attention [4]=activate [5]=gemm [6]=gemm [7]=gemm [8]=gemm [9]=activate [10]=gemm [11]=gemm
           [12]=sample [13]=sample [14]=attention [15]=prompt [16]=prompt [17]=prompt [18]=prompt
           [19]=attention [20]=decode [21]=decode [22]=decode
           [23]=wgmma [24]=wgmma [25]=wgmma [26]=wgmma [27]=wgmma [28]=wgmma
           [29]=train_rows [30]=train_rows [31]=train_codes [32]=train_softmax [33]=train_softmax
           [34]=float_gemv [35]=float_gemv [36]=float_gemv [37]=train_rows)
for number in "${!operators[@]}"; do
    n=$((n + 1))
    for seed in 1 2 3 4 5; do
        said=$(ZQ_MUTANT=$number "$zqcheck" --cuda-host --plugin "$2" --seed "$seed" "${operators[$number]}" 2>&1)
        status=$?
        if [ $status != 139 ] && { [ $status != 1 ] || ! grep -q '^FAIL' <<< "$said"; }; then
            echo "fault $number, seed $seed: not caught: $said"
            missed=$((missed + 1))
        fi
    done
done
echo "$n planted faults, $missed runs missed one"
[ $missed = 0 ] && [ $n = "$(grep -rhoE 'MUTANT\([0-9]+\)' "$3" | sort -u | wc -l)" ]
