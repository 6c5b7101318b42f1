# Memory of zq quantize: bounded by the largest layer, not by the model, mapped file pages included. The large acceptance run
# (12 GB, about two minutes and 16 GB of disk) is the same command on a larger shape:
#   build/make-checkpoint gpt-j-6b /tmp/gptj6b --dtype bf16
#   /usr/bin/time -v build/zq quantize /tmp/gptj6b -o /tmp/gptj6b-w8a8 --memory 2G       # Maximum resident set size < 2097152 kB
. tests/cli/check.sh

make_checkpoint=${ZQ_BUILD:-build}/make-checkpoint
[ -x /usr/bin/time ] || { echo "skipped: no /usr/bin/time (package time)"; exit 77; }
if grep -q __asan_init "$zq"; then
    echo "skipped: a sanitized program has shadow memory"
    exit 77
fi
if [ "$(df --output=avail -k "$tmp" | tail -n 1)" -lt 1000000 ]; then
    echo "skipped: $tmp has no room for 1 GB"
    exit 77
fi

# measured COMMAND...: as run, and the largest resident memory in kB in $resident
measured() {
    run /usr/bin/time -o "$tmp/time" -f '%M' "$@"
    resident=$(tail -n 1 "$tmp/time")
}
# expect_resident NAME KB
expect_resident() {
    if [ "$rc" = 0 ] && [ "$resident" -le "$2" ]; then ok "$1: $resident kB of at most $2"; else not_ok "$1" "$resident kB of at most $2"; fi
}
at_least() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a != "" && a >= b) }'; }

# check_model NAME DTYPE SHAPE...: several matrices of up to 82 MB, 100 MB and more in all. What is used stays below both the plan and the
# bound, which is so tight that buffers kept from one matrix to the next would break it.
check_model() {
    local name=$1 dtype=$2 planned
    shift 2
    rm -rf "$tmp/model" "$tmp/out"
    run "$make_checkpoint" "$@" --dtype $dtype --shard-size 200M
    expect_code "$name $dtype: a model" 0
    for options in "w8a8" "w4a16" "w4a8 --group rows:48" "w8a8 --embeddings int8"; do
        # shellcheck disable=SC2086 # words
        run "$zq" quantize "$tmp/model" -o "$tmp/out" --scheme $options --memory 112M --dry-run --json --quiet
        planned=$(($(field memory_bytes) / 1024))
        # shellcheck disable=SC2086
        measured "$zq" quantize "$tmp/model" -o "$tmp/out" --scheme $options --memory 112M --force --quiet
        expect_resident "$name $dtype: $options within its plan" "$planned"
        expect "and that within --memory" [ "$planned" -le $((112 * 1024)) ]
    done
    run "$zq" inspect "$tmp/out" --quiet
    expect_code "$name $dtype: the result opens" 0
}
check_model Linear f32 gptj "$tmp/model" --layers 1 --width 2048 --heads 16 --ffn 8192 --vocab 10000
check_model Conv1D bf16 gpt2 "$tmp/model" --layers 2 --width 2048 --heads 16 --ffn 8192 --vocab 10000
check_model Conv1D f32 gpt2 "$tmp/model" --layers 1 --width 2048 --heads 16 --ffn 8192 --vocab 10000

# distilled OPTION..: a block learns. What that takes is within its plan and at least nine tenths of it, or 7 MB less, though the table of
# embeddings and the buffers of writing are as large as the block, and never there at the same time.
distilled() {
    local planned most
    lesson=(--scheme w4/8a8 --data random "$@" --samples 6 --length 32 --batch 2 --iters 1 --threads 2 --quiet)
    run "$zq" quantize "$tmp/model" -o "$tmp/out" "${lesson[@]}" --dry-run --json
    planned=$(($(field memory_bytes) / 1024))
    measured "$zq" quantize "$tmp/model" -o "$tmp/out" "${lesson[@]}" --force
    expect_resident "$* within its plan" "$planned"
    most=$((resident / 9 > 7168 ? resident + resident / 9 : resident + 7168))
    expect "which is hardly more than the $resident kB of $*" [ "$planned" -le "$most" ]
}
rm -rf "$tmp/model"
run "$make_checkpoint" gpt2 "$tmp/model" --layers 1 --width 512 --heads 8 --ffn 2048 --vocab 20000 --dtype f32
expect_code "a model of one block" 0
for method in paper fast full; do distilled --lkd $method; done
for method in gptq awq; do distilled --method $method; done
distilled --lkd paper --ignore '.*c_attn' # which is put back from the file

# a text of 60 MB is larger than all that the work takes beside it
cp models/novels/tokenizer.json models/novels/tokenizer_config.json "$tmp/model"
for _ in $(seq 830); do cat models/novels/heldout.txt; done > "$tmp/text"
distilled --lkd paper --data "$tmp/text" --memory 120M

# and with a small model texts are most of it, of bytes that are no UTF-8 and in a single line, too
tr '\0' '\377' < /dev/zero | head -c 4M > "$tmp/bytes"
tr '\0' ' ' < /dev/zero | head -c 4M > "$tmp/spaces"
for text in text bytes spaces; do
    lesson=(--scheme w4a8 --method awq --data "$tmp/$text" --samples 2 --length 16 --threads 2 --quiet)
    run "$zq" quantize models/novels -o "$tmp/out" "${lesson[@]}" --dry-run --json
    planned=$(($(field memory_bytes) / 1024))
    measured "$zq" quantize models/novels -o "$tmp/out" "${lesson[@]}" --force
    expect_resident "a text of $text within its plan" "$planned"
    expect "which is no more than 9 MB above it" [ "$planned" -le $((resident + 9216)) ]
done

run "$zq" quantize "$tmp/model" -o "$tmp/small" --memory 1M --quiet
expect_error "a bound that is too small" 6 "memory"
expect "leaves nothing" [ ! -e "$tmp/small" ]

# 41 GB that are not there: a plan reads headers only
run "$make_checkpoint" gpt-neox-20b "$tmp/neox" --sparse
measured "$zq" quantize "$tmp/neox" -o "$tmp/neox-out" --scheme w4/8a8 --embeddings int8 --dry-run --json --quiet
expect_resident "GPT-NeoX-20B: a plan" 65536
expect "GPT-NeoX-20B, W4/8A8 with INT8 embeddings is at least 2.8x smaller" at_least "$(field file_ratio)" 2.8
expect "GPT-NeoX-20B, its blocks at least 2.9x" at_least "$(field block_ratio)" 2.9

finish
