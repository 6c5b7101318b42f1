# zq bench: which rows there are, and that their values can be true; never how fast anything is.
. tests/cli/check.sh

# row NAME: the row of that name in stdout; value NAME KEY: one of its numbers or strings
row() { grep -F "\"name\": \"$1\"" "$stdout"; }
value() { row "$1" | sed -n "s/.*\"$2\": \"\{0,1\}\([^,}\"]*\).*/\1/p"; }
names() { sed -n 's/.*"name": "\([^"]*\)".*/\1/p' "$stdout" | tr '\n' ' '; }
at_least() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a != "" && a + 0 >= b + 0) }'; }
fast="--layers 1 --seconds 0.01 --threads 2" # each run measures the machine first

# shellcheck disable=SC2086 # options
run "$zq" bench --shape minilm $fast --batch 1,3 --prompt 7,16 --json
expect "a row for each batch and length" [ "$(names)" = "encode.1x7 memory encode.1x16 memory encode.3x7 memory encode.3x16 memory " ]
for key in name unit median best limit share bound threads level math model scheme group batch length bytes; do
    expect "key $key in every row" [ "$(grep -c "\"$key\": " "$stdout")" = 8 ]
done
expect "the best is not below the median" at_least "$(value encode.3x16 best)" "$(value encode.3x16 median)"
expect "rates are positive" at_least "$(value encode.3x16 median)" 0.001
expect "what was asked for" [ "$(value encode.3x7 unit) $(value encode.3x7 threads) $(value encode.3x7 batch) $(value encode.3x7 length)" = "sequences/s 2 3 7" ]

run "$zq" bench $model --batch 2 --prompt 8 --decode 3 --seconds 0.01 --json
expect "rows of a decoder" [ "$(names)" = "prompt.2x8 decode.2x8 first3.2x8 memory " ]
expect "the prompt is part of firstN" at_least "$(value decode.2x8 best)" "$(value first3.2x8 best)"
expect "share is median over limit" near "$(value decode.2x8 share)" \
    "$(awk -v m="$(value decode.2x8 median)" -v l="$(value decode.2x8 limit)" 'BEGIN { print m / l }')" 0.001
run "$zq" bench $model --prompt 8 --decode 1 --seconds 0.01 --math fast --kv int8 --json
expect "which math" [ "$(value decode.1x8 math)" = fast ]
if sanitized; then
    skip "peak memory" "sanitizers keep what is freed"
else
    run "$zq" bench --shape minilm --prompt 8 --seconds 0.01 --json
    expect "memory is the model's: 11 MB of codes, 12 million embeddings in 16 bits" at_least 110 "$(value memory best)"
    run "$zq" bench --shape gpt-350m --scheme w8a8 --embeddings int8 --prompt 128 --decode 8 --seconds 0.01 --json
    expect "353 MB of weights, 29 MB of keys and values" near "$(value memory limit)" 382 4
    expect "and no more than 64 MB beside" at_least "$(awk -v l="$(value memory limit)" 'BEGIN { print l + 64 }')" "$(value memory median)"
fi
if ! sanitized; then
    ZQ_ISA=c run "$zq" bench $model --prompt 8 --decode 1 --seconds 0.01 --json
    expect "plain C has no peak to compare with" [ "$(value prompt.1x8 level) $(value prompt.1x8 limit)" = "c null" ]
    run "$zq" bench $model --prompt 8 --decode 0 --seconds 0.01 --json
    expect "no decoding" [ "$(names)" = "prompt.1x8 memory " ]
fi

run "$zq" bench $model --batch 2 --prompt 8 --decode 1 --seconds 0.01 --ops --json
expect "operators of a step" [ "$(names)" = "$(for step in prompt decode; do
    for op in embed norm attention activate head other qkv o up down step; do printf 'ops.%s.%s.2x8 ' $step $op; done; done)" ]
expect "the parts are the whole" near "$(sed -n '/ops.decode.step/d; s/.*ops.decode.*"best": \([^,]*\).*/\1/p' "$stdout" |
    awk '{ sum += $1 } END { print sum }')" "$(value ops.decode.step.2x8 median)" "$(value ops.decode.step.2x8 median)"
expect "bytes of a map" [ "$(value ops.decode.up.2x8 bytes)" -gt 1000 ]

run "$zq" bench --shape minilm $fast --scheme w4a8 --unfused --prompt 4 --json
expect "float, unfused, fused" [ "$(names)" = "float.encode.1x4 unfused.encode.1x4 encode.1x4 " ]
expect "schemes of the three" [ "$(value float.encode.1x4 scheme) $(value encode.1x4 scheme)" = "bf16 w4a8" ]
run "$zq" bench $model --unfused --prompt 4 --seconds 0.01
expect_error "a float model has no fused steps" 5 "only quantized models"

if sanitized; then
    skip "granularity" "six models of random weights take a while; nothing is in them that others have not"
else
    # shellcheck disable=SC2086 # options
    run "$zq" bench --shape minilm $fast --scheme w4a8 --granularity --weights $model --prompt 4 --json
    expect "time beside error" [ "$(names)" = "$(for g in tensor rows:48 channel k:128 k:64 k:32; do printf '%s.error %s.encode.1x4 ' $g $g; done)" ]
    expect "finer groups round less" [ "$(for g in tensor rows:48 channel k:128 k:64 k:32; do value $g.error median; done | sort -gr)" = \
        "$(for g in tensor rows:48 channel k:128 k:64 k:32; do value $g.error median; done)" ]
fi
run "$zq" quantize $model -o "$tmp/k64" --scheme w4a8 --group k:64 --quiet
run "$zq" bench --shape minilm --layers 1 --seconds 0.01 --granularity --weights "$tmp/k64"
expect_error "errors of a quantized model" 5 "is quantized"
run "$zq" bench --shape minilm --granularity --group k:64
expect_error "granularity chooses groups" 2 "--granularity"

run "$zq" bench --product 5x64x48,1x96x32 --scheme w4a8 --group k:32 --seconds 0.01 --json
expect "products with and without making tokens" [ "$(names)" = "product.5x64x48 quantized.5x64x48 product.1x96x32 quantized.1x96x32 " ]
expect "a product takes time" at_least "$(value product.5x64x48 median)" 0.0001
expect "making tokens takes more" at_least "$(value product.5x64x48 best)" "$(value quantized.5x64x48 best)"
run "$zq" bench --product 5x64
expect_error "a size is missing" 2 "TOKENSxINPUTSxOUTPUTS"
run "$zq" bench --product 5x64x48 --shape minilm
expect_error "products by themselves" 2 "--product"
run "$zq" bench --product 5x64x48 --scheme w8a16
expect_error "products of INT8 tokens" 5 "w8a16"

run "$zq" bench --machine --seconds 0.01 --json
[ "$(nproc)" -lt 2 ] || expect "a line went to another core and back" at_least "$(value machine.exchange median)" 1
expect "memory was read" at_least "$(value machine.memory best)" 0.01
if grep -q avx2 /proc/cpuinfo; then
    expect "peaks of a level" [ "$(names | grep -o 'machine.[a-z0-9]*.avx2 ' | tr -d '\n')" = "machine.int8.avx2 machine.int4.avx2 machine.f32.avx2 " ]
else
    skip "peaks of a level" "no AVX2"
fi

# shapes, schemes and forms of embedding
if ! sanitized; then
    # shellcheck disable=SC2086
    run "$zq" bench --shape tinyllama-1.1b $fast --scheme w4a8 --embeddings int8 --prompt 4 --decode 1
    expect_line "gated, with INT8 embeddings" out '^decode.1x4  *[0-9.e+]* '
fi
for scheme in "w4/8a16 --group k:32" w8a8/16 bf16; do
    # shellcheck disable=SC2086
    run "$zq" bench --shape minilm $fast --scheme $scheme --prompt 4
    expect_line "scheme $scheme" out '^encode.1x4  *[0-9.e+]* '
    if sanitized; then break; fi # the kernels of all schemes are seen elsewhere
done

run "$zq" bench --shape bert-huge --seconds 0.01
expect_error "no such shape" 2 "shapes are bert-base, "
run "$zq" bench --shape minilm --scheme w1a8 --seconds 0.01
expect_error "no such scheme" 2 "w1a8"
run "$zq" bench --shape minilm --scheme w3/8a16 --seconds 0.01
expect_error "a study is not timed" 5 "kernels of w4"
run "$zq" bench --shape minilm --group k:0 --seconds 0.01
expect_error "no such group" 2 "k:0"
run "$zq" bench --shape minilm --layers 1 --prompt 1000 --seconds 0.01
expect_error "above the limit of the shape" 9 "512"
run "$zq" bench $model --scheme w4a8
expect_error "a directory is what it is" 2 "go with --shape"
run "$zq" bench $model --shape minilm
expect_error "a directory or a shape" 2 "--shape minilm needs no model"
for list in '' 0 1, ,1 1.5 x 1,x; do
    run "$zq" bench $model --batch "$list"
    expect_error "list '$list'" 2 "--batch needs whole numbers"
done
run env CUDA_VISIBLE_DEVICES= "$zq" bench "$tmp/k64" --seconds 0.01 --prompt 2 --decode 3 --device cuda --json
expect_error "no GPU" 5 "device cuda"
if [ -e "$build/libzq_cuda_host.so" ] && ! sanitized; then
    "$zq" quantize $model -o "$tmp/q" --scheme w8a8 --quiet > /dev/null 2>&1
    run "$zq" bench "$tmp/q" --seconds 0.01 --prompt 2 --decode 1 --device cuda-host --json
    expect "on the simulated GPU: its name instead of a level, no limits" [ "$(value decode.1x2 level) $(value decode.1x2 limit)" = "cuda-host null" ]
    expect "and what lies there: 7 MB of codes and the session" near "$(value device.1x2 median)" 7.2 0.3
    run "$zq" bench "$tmp/q" --seconds 0.01 --prompt 2 --decode 1 --device cuda-host --ops --json
    expect "operators are waited for there" at_least "$(value ops.decode.attention.1x2 median)" 0.001
fi
finish
