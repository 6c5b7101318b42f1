# zq quantize --lkd .. --device: a model trained on the simulated GPU is never worse than it began, as good as one trained on the processor, and
# the same every time; what cannot be trained there says so in one sentence.
. tests/cli/check.sh

"$build/make-checkpoint" gpt2 "$tmp/model" --width 32 --layers 1 --heads 2 --vocab 100 --length 64 > /dev/null
settings=(--scheme w2a8 --group k:16 --data random --samples 16 --length 12 --batch 4 --iters 2 --quiet)
quantize() { run "$zq" quantize "$tmp/model" -o "$tmp/$1" "${settings[@]}" "${@:2}"; }

quantize refused --method gptq --device cuda
expect_error "a method alone" 2 "paper, fast and full"
quantize refused --device cuda
expect_error "no distillation" 2 "paper, fast and full"
quantize refused --lkd fast --device cuda-host --math fast
expect_error "fast products on a device, and nothing to train" 2 "paper and full"
quantize refused --lkd fast --math fast
expect_error "fast products, and nothing to train" 2 "paper and full"
quantize refused --lkd full --device cuda:x
expect_error "unknown device" 2 "cuda:x"
run env CUDA_VISIBLE_DEVICES= "$zq" quantize "$tmp/model" -o "$tmp/refused" "${settings[@]}" --lkd full --device cuda
expect_error "no GPU, or no plug-in" 5 "device cuda"
expect "nothing is left of it" [ ! -e "$tmp/refused" -a ! -e "$tmp/refused.partial" ]
if [ ! -e "$build/libzq_cuda_host.so" ]; then
    skip "the rest" "no C++ compiler, so no simulated device"
    finish
fi

# value NAME KEY: of the one block
value() { sed -n "s/^ *\"$2\": \([^,]*\),*$/\1/p" "$tmp/$1/zq-report.json" | head -n 1; }
# alike NAME METHOD OPTION...: on both, to within a part in 200: codes on an edge may fall to either side
alike() {
    quantize "here-$1" --lkd "${@:2}"
    quantize "there-$1" --lkd "${@:2}" --device cuda-host
    expect_code "$1 on the device" 0
    expect "$1: it has learned, and as on the processor" \
        awk -v before="$(value "there-$1" before)" -v after="$(value "there-$1" after)" -v fell="$(value "there-$1" fell_back)" \
            -v before_here="$(value "here-$1" before)" -v after_here="$(value "here-$1" after)" \
            -v drift="$(value "there-$1" drift_held)" -v drift_here="$(value "here-$1" drift_held)" \
        'function near(a, b) { return a < 1.005 * b && b < 1.005 * a }
         BEGIN { exit !(after > 0 && after < before && fell == "false" && near(before, before_here) && near(after, after_here) && near(drift, drift_here)) }'
}
alike full full --lr 0.02
alike paper paper --lr 1e-4
alike fast fast
expect "full: better than what it began with" \
    awk -v start="$(value there-fast after)" -v after="$(value there-full after)" 'BEGIN { exit !(after < 0.999 * start) }'
if ! sanitized; then # which is slow, and these compare bytes
    quantize wild --lkd full --lr 0.5 --device cuda-host
    expect "a rate that is far too high leaves no mark" cmp "$tmp/wild/model-00002-of-00002.safetensors" "$tmp/there-fast/model-00002-of-00002.safetensors"
    expect "and is told of" [ "$(value wild fell_back)" = true ]
    quantize again --lkd full --lr 0.02 --device cuda-host
    expect "the same bytes again, in another order of threads" diff -r -x zq-report.html "$tmp/there-full" "$tmp/again"
    quantize solved --lkd fast --device cuda-host
    expect "and without training" diff -r -x zq-report.html "$tmp/there-fast" "$tmp/solved"

    # gates and shared key heads, norms that come last, a norm that two halves share; what falls to either side of an edge is a few parts in a hundred
    for family in "llama --kv-heads 1" bert gpt_neox; do
        kind=${family%% *}
        # shellcheck disable=SC2086 # a name and options
        "$build/make-checkpoint" $family "$tmp/$kind" --width 32 --layers 1 --heads 2 --ffn 48 --vocab 100 --length 64 > /dev/null
        for place in cpu cuda-host; do
            run "$zq" quantize "$tmp/$kind" -o "$tmp/$kind-$place" "${settings[@]}" --scheme w4a8 --group channel --samples 8 --lkd fast --device $place
        done
        expect "fast: $kind on the device" \
            awk -v before="$(value "$kind-cuda-host" before)" -v after="$(value "$kind-cuda-host" after)" -v here="$(value "$kind-cpu" after)" \
            'BEGIN { exit !(after > 0 && after < before && after < 1.05 * here && here < 1.05 * after) }'
    done

    # killed when a block is done: the device goes on, the processor does not
    "$build/make-checkpoint" gpt2 "$tmp/deep" --width 32 --layers 2 --heads 2 --vocab 100 --length 64 > /dev/null
    deep=("$zq" quantize "$tmp/deep" "${settings[@]}" --lkd fast --samples 8)
    run "${deep[@]}" -o "$tmp/whole" --device cuda-host
    "${deep[@]}" -o "$tmp/killed" --device cuda-host --resume 2> /dev/null &
    until [ "$(sed -n 's/.*"shards": \([0-9]*\).*/\1/p' "$tmp/killed.partial/journal.json" 2> /dev/null || echo 0)" -ge 2 ] 2> /dev/null || ! kill -0 $! 2> /dev/null; do
        sleep 0.05
    done
    kill -KILL $! 2> /dev/null
    wait $! 2> /dev/null
    expect "there is something to resume" [ -e "$tmp/killed.partial/journal.json" ]
    run "${deep[@]}" -o "$tmp/killed" --resume
    expect_error "not on the processor" 2 "device is a simulated GPU"
    run "${deep[@]}" -o "$tmp/killed" --device cuda-host --resume
    expect "an interruption changes nothing" diff -r -x zq-report.html "$tmp/whole" "$tmp/killed"
fi

quantize here-full --lkd full --lr 0.02 --device cuda-host --resume
expect_error "a run of the processor is not resumed on a device" 2 "device is missing there, a simulated GPU"
quantize there-full --lkd full --lr 0.02 --resume
expect_error "nor the other way round" 2 "device is a simulated GPU on this processor there, missing here"
finish
