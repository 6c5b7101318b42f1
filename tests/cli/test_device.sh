# --device: whole models on the simulated GPU give the bits of the processor, family by family, and everything that cannot run says so
# in one sentence.
. tests/cli/check.sh
export ZQ_SIM_SEED=${ZQ_SIM_SEED:-$((RANDOM << 15 | RANDOM | 1))}
echo "ZQ_SIM_SEED=$ZQ_SIM_SEED repeats this run"

run "$zq" forward $model --ids 1,2 -o "$tmp/x" --device cuda:one
expect_error "unknown device" 2 "cuda:one"
run env CUDA_VISIBLE_DEVICES= "$zq" forward $model --ids 1,2 -o "$tmp/x" --device cuda
expect_error "no GPU, or no plug-in" 5 "device cuda"
if [ ! -e "$build/libzq_cuda_host.so" ]; then
    run "$zq" forward $model --ids 1,2 -o "$tmp/x" --device cuda-host
    expect_error "no plug-in" 5 "libzq_cuda_host.so"
    skip "the rest" "no C++ compiler, so no simulated device"
    finish
fi
run "$zq" forward $model --ids 1,2 -o "$tmp/x" --device cuda-host
expect_error "float model on the simulated device" 5 "not quantized"
need_shared models

# same_bits MODEL SCHEME IDS: logits and hidden states of every layer
same_bits() {
    "$zq" quantize "$shared/models/$1" -o "$tmp/q" --scheme "$2" --force --quiet > /dev/null 2>&1
    "$zq" forward "$tmp/q" --ids "$3" --hidden -o "$tmp/here" --quiet
    run "$zq" forward "$tmp/q" --ids "$3" --hidden -o "$tmp/there" --device cuda-host
    expect_code "$1 $2 runs" 0
    expect_same "$1 $2: the same bits" "$tmp/here" "$tmp/there"
}
# every family, every scheme; the sanitized program, whose simulator is slow, sees an encoder, a decoder and all kinds of weights
if ! sanitized; then
    for family in gpt2-novels gptj neox opt mistral qwen2; do same_bits $family w8a8 1,5,9,4,7,3,2,8; done
    same_bits neox w4a8 1,5,9
    same_bits gptj w4a16 1,5,9
    same_bits opt w4/8a8 1,5,9,4,1,7
fi
for family in bert llama; do same_bits $family w8a8 1,5,9,4; done
same_bits llama w8a16 1,5,9
same_bits bert w8a8/16 1,5,9,4

# the same bytes whatever the order of threads: a prompt, then tokens one by one, the last of them replayed
"$zq" quantize "$shared/models/stories260k" -o "$tmp/q" --scheme w4a8 --embeddings int8 --force --quiet > /dev/null 2>&1
"$zq" forward "$tmp/q" --ids 1,5,9,4,7 --hidden -o "$tmp/here" --quiet
"$zq" generate "$tmp/q" -p 'Once upon' -n 4 --quiet > "$tmp/here.txt" 2> /dev/null
for seed in 1 2 3 4 5; do
    run env ZQ_SIM_SEED=$seed "$zq" forward "$tmp/q" --ids 1,5,9,4,7 --hidden -o "$tmp/there" --device cuda-host
    expect_same "seed $seed: the same bits" "$tmp/here" "$tmp/there"
    run env ZQ_SIM_SEED=$seed "$zq" generate "$tmp/q" -p 'Once upon' -n 4 --quiet --device cuda-host
    expect_same "seed $seed: the same text" "$tmp/here.txt" "$stdout"
done
run env ZQ_SIM_SEED=77 "$build/zqcheck" --cuda-host --seed 0 gather
expect_line "the environment's seed is taken" out ', seed 77$'

# sixteen ids for the sanitized program
limit=512 window=128
bound=5e-3
if sanitized; then limit=32 window=16 bound=5e-2; fi # codes that round the other way weigh more in so few
nll() { sed -n 's/.*"nll": \([0-9.]*\),.*/\1/p' "$1"; }
for scheme in w8a8 w4a8; do
    "$zq" quantize "$shared/models/stories260k" -o "$tmp/q" --scheme $scheme --force --quiet > /dev/null 2>&1
    "$zq" eval "$tmp/q" --text "$shared/models/stories260k/test.txt" --limit $limit --window $window --json --quiet > "$tmp/here"
    run "$zq" eval "$tmp/q" --text "$shared/models/stories260k/test.txt" --limit $limit --window $window --json --quiet --device cuda-host
    expect_code "eval $scheme" 0
    expect "eval $scheme: nll $(nll "$stdout") is the processor's" [ -n "$(nll "$stdout")" -a "$(nll "$stdout")" = "$(nll "$tmp/here")" ]
done
"$zq" eval "$tmp/q" --text "$shared/models/stories260k/test.txt" --limit $limit --window $window --json --quiet --math fast > "$tmp/here"
run "$zq" eval "$tmp/q" --text "$shared/models/stories260k/test.txt" --limit $limit --window $window --json --quiet --math fast --device cuda-host
close=$(awk -v a="$(nll "$tmp/here")" -v b="$(nll "$stdout")" -v bound=$bound 'BEGIN { d = a - b; print b != "" && d * d <= bound * bound ? "yes" : "no" }')
expect "prompts on tensor cores: nll $(nll "$stdout") is the processor's within $bound" [ "$close" = yes ]
"$zq" generate "$tmp/q" -p 'Once upon a time' -n 8 --quiet > "$tmp/here" 2> /dev/null
run "$zq" generate "$tmp/q" -p 'Once upon a time' -n 8 --quiet --device cuda-host
expect_same "decoding token by token" "$tmp/here" "$stdout"
"$zq" generate "$tmp/q" -p 'Once upon a time' -n 8 --temperature 0.9 --top-k 40 --top-p 0.9 --seed 5 --quiet > "$tmp/here" 2> /dev/null
run "$zq" generate "$tmp/q" -p 'Once upon a time' -n 8 --temperature 0.9 --top-k 40 --top-p 0.9 --seed 5 --quiet --device cuda-host
expect_same "sampling on the device" "$tmp/here" "$stdout"
for kv in f16 int8; do
    "$zq" generate "$tmp/q" -p 'Once upon a time' -n 4 --kv $kv --quiet > "$tmp/here" 2> /dev/null
    run "$zq" generate "$tmp/q" -p 'Once upon a time' -n 4 --kv $kv --quiet --device cuda-host
    expect_same "keys and values as $kv" "$tmp/here" "$stdout"
done
sanitized || "$zq" quantize models/novels -o "$tmp/halves" --scheme w8a8 --force --quiet > /dev/null # its head stays F16
for device in cpu cuda-host; do
    sanitized || "$zq" eval "$tmp/halves" --text models/novels/heldout.txt --limit 64 --window 32 --json --quiet --math fast --device $device > "$tmp/$device"
done
sanitized || expect "rows as F16 for a float head" [ "$(awk -v a="$(nll "$tmp/cpu")" -v b="$(nll "$tmp/cuda-host")" \
    'BEGIN { d = a - b; print b != "" && d * d <= 1e-4 }')" = 1 ]
"$zq" generate "$tmp/q" -p 'Once upon a time' -n 8 --quiet > "$tmp/here" 2> /dev/null
for kv in f16 int8; do
    run "$zq" generate "$tmp/q" -p 'Once upon a time' -n 8 --math fast --kv $kv --quiet --device cuda-host
    expect_same "decoding on tensor cores, keys and values as $kv" "$tmp/here" "$stdout"
done
run "$zq" bench "$tmp/q" --unfused --device cuda-host --prompt 4 --decode 3 --seconds 0.01
expect_code "with and without fusion" 0
expect "rows of both" [ "$(grep -c '^unfused' "$stdout")" = 3 ]
run "$zq" bench "$tmp/q" --tune --device cuda-host --prompt 4 --seconds 0.01
expect_error "a simulated device has no time" 5 "nothing to tune"
run "$build/check-device" "$tmp/q" --device cuda-host --text "$shared/models/stories260k/test.txt" --limit 16 --count 2
expect_code "sequences of a batch against each alone" 0
run "$build/check-device" "$tmp/q" --device cuda-host --math fast --kv int8 --text "$shared/models/stories260k/test.txt" --limit 16 --count 2
expect_code "the same on tensor cores, from INT8 caches" 0
expect "and the row says so" grep -q '| fast, kv int8 | right |' "$stdout"
# answers line by line: lines of a step have different lengths, one is empty, one is a pair
input=$tmp/lines
printf 'dull\n' > "$input"
sanitized || printf 'a thoroughly delightful film\n\ndull\tand slow\n' > "$input"
for command in "classify minilm-sst2" "embed minilm-sst2" "embed bert"; do
    read -r verb encoder <<< "$command"
    if sanitized && [ "$command" = "embed minilm-sst2" ]; then continue; fi
    "$zq" quantize "$shared/models/$encoder" -o "$tmp/q" --scheme w8a8 --force --quiet > /dev/null 2>&1
    "$zq" "$verb" "$tmp/q" < "$input" > "$tmp/here"
    run "$zq" "$verb" "$tmp/q" --device cuda-host
    expect_same "$command: the processor's numbers" "$tmp/here" "$stdout"
    expect "a line each" [ "$(wc -l < "$stdout")" = "$(wc -l < "$input")" ]
done
input=/dev/null
if ! sanitized; then
    "$zq" quantize "$shared/models/bert" -o "$tmp/q" --scheme w8a8 --force --quiet > /dev/null 2>&1
    run "$build/check-device" "$tmp/q" --device cuda-host --math fast
    expect "an encoder on tensor cores" grep -q '| fast | right | outputs of 8 lines' "$stdout"
fi
finish
