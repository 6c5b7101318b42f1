#!/bin/bash
# Measures us beside the libraries people use, on the same random shapes, alternately in one run, and writes docs/performance.md.
#
#   bench/peers.sh [--fresh] [STAGE...]     STAGE: bert minilm gpt (default: all)
#
#   ZQ_PEERS_VENV    the Python environment, default build/peers-venv; made when it does not exist (several GB from PyPI)
#   ZQ_WORK          converted models and what was measured already, default build/peers; --fresh measures again
#   ZQ_ROUNDS        how often everybody has a turn, default 3: the figure is the median of the rounds' medians
#   ZQ_SECONDS       length of one measurement, default 3
#   ZQ_SHAPES        of the encoders, sequences x tokens, for example "1x32 1x128"; default: those of the table
#   ZQ_THREADS       threads of everybody, default all cores
set -euo pipefail
cd "$(dirname "$0")/.."
fresh=
[ "${1-}" = --fresh ] && { fresh=1; shift; }
stages=${*:-bert minilm gpt}
venv=${ZQ_PEERS_VENV:-build/peers-venv}
work=${ZQ_WORK:-build/peers}
rounds=${ZQ_ROUNDS:-3}
seconds=${ZQ_SECONDS:-3}
threads=${ZQ_THREADS:-$(nproc)}
python=$venv/bin/python
mkdir -p "$work"

if [ ! -x "$python" ]; then
    echo "installing the peers into $venv" >&2
    python3 -m venv "$venv"
    "$python" -m pip install --quiet --disable-pip-version-check -r bench/peers_requirements.txt
fi
[ -x build/zq ] || { echo "build/zq is missing: cmake --preset release && cmake --build --preset release" >&2; exit 1; }

# turn STAGE NAME COMMAND...: adds the JSON that the command prints to the rows of the stage; a peer that cannot run is named as such
turn() {
    local stage=$1 name=$2 rows
    shift 2
    if rows=$("$@" 2> "$work/$stage-$name.log" | grep "^{"); then echo "$rows" >> "$work/$stage.rows.new"; return; fi
    echo "$name: failed, see $work/$stage-$name.log" >&2
    echo "{\"who\": \"$name\", \"failed\": true}" >> "$work/$stage.rows.new"
}

ours() { # STAGE NAME SCHEME [OPTION...]
    local stage=$1 name=$2 scheme=$3
    shift 3
    turn "$stage" "$name" build/zq bench --shape "$shape" --scheme "$scheme" --threads "$threads" --seconds "$seconds" "$@" --json
}

schemes="w8a8 w4/8a8 w4a8"
maths=exact
build/zq bench --help | grep -q -- --math && maths="exact fast"

# encoder STAGE LAYERS HIDDEN FFN HEADS LENGTHxBATCH...: one round
encoder() {
    local stage=$1 layers=$2 hidden=$3 ffn=$4 heads=$5
    shift 5
    for peer in pytorch-fp32 pytorch-int8 onnxruntime-fp32 onnxruntime-int8 openvino-fp32 openvino-int8 openvino-int8-token; do
        turn "$stage" $peer "$python" bench/peers_bert.py $peer --shapes "$(echo "$@" | tr ' ' ,)" --threads "$threads" --seconds "$seconds" \
            --layers "$layers" --hidden "$hidden" --ffn "$ffn" --heads "$heads" --work "$work"
    done
    for math in $maths; do
        for scheme in $schemes; do
            for work_item in "$@"; do
                ours "$stage" "zq-$(echo "$scheme" | tr -d /)-$math" "$scheme" --batch "${work_item%x*}" --prompt "${work_item#*x}" \
                    $([ "$maths" = exact ] || echo --math $math)
            done
        done
    done
}

decoder() { # STAGE: one round
    for peer in pytorch-fp32 pytorch-bf16 ctranslate2-fp32 ctranslate2-int8; do
        turn "$1" $peer "$python" bench/peers_gpt.py $peer --threads "$threads" --seconds "$seconds" --prompt 512 --work "$work"
    done
    for math in $maths; do
        for scheme in $schemes; do
            ours "$1" "zq-$(echo "$scheme" | tr -d /)-$math" "$scheme" --prompt 512 --decode 32 --embeddings int8 $([ "$maths" = exact ] || echo --math $math)
        done
    done
}

for stage in $stages; do
    [ -s "$work/$stage.rows" ] && [ -z "$fresh" ] && continue
    : > "$work/$stage.rows.new"
    for round in $(seq "$rounds"); do
        echo "$stage, round $round of $rounds" >&2
        case $stage in
            bert) shape=bert-base encoder bert 12 768 3072 12 ${ZQ_SHAPES:-1x32 1x128 16x128 1x384} ;;
            minilm) shape=minilm encoder minilm 6 384 1536 12 ${ZQ_SHAPES:-1x128 16x128} ;;
            gpt) shape=gpt-350m decoder gpt ;;
            *) echo "no stage '$stage': bert, minilm, gpt" >&2; exit 2 ;;
        esac
    done
    mv "$work/$stage.rows.new" "$work/$stage.rows"
done
"$python" bench/peers_report.py "$work" docs "$threads" "$rounds"
