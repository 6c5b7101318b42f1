#!/bin/sh
# Quantizes the bundled model in four ways and shows what that costs and gains: one table, and a paragraph by each model.
set -eu
cd "$(dirname "$0")"

model=models/novels
text=$model/heldout.txt
out=build/demo
prompt="It was a dark night, and the"

# field NAME FILE: the value of a key in the output of --json
field() { sed -n "s/.*\"$1\": \([^,}]*\).*/\1/p" "$2" | head -n 1; }

# measure DIR NAME [EVAL OPTIONS]: writes the JSON of inspect, eval and the fastest of three generations to $out/NAME.*
measure() {
    dir=$1 name=$2
    shift 2
    build/zq inspect "$dir" --json > "$out/$name.inspect"
    build/zq eval "$dir" --text "$text" "$@" --json --quiet > "$out/$name.eval"
    for run in 1 2 3; do
        head -c 1000 "$text" | build/zq generate "$dir" -n 128 --json --quiet > "$out/$name.speed.$run"
    done
}

fastest() { for run in 1 2 3; do field "$1" "$out/$2.speed.$run"; done | sort -g | tail -n 1; }

# row NAME TITLE
row() {
    kl=$(field kl "$out/$1.eval")
    echo "$2 $(field file_bytes "$out/$1.inspect") $(field bits_per_weight "$out/$1.inspect") $(field ppl "$out/$1.eval")" \
         "${kl:--} $(fastest prompt_tokens_per_s "$1") $(fastest decode_tokens_per_s "$1")" |
        awk '{ printf "%-12s %9.2f MB %12.2f %12.3f %14s %16.0f %16.0f\n", $1, $2 / 1e6, $3, $4, $5 == "-" ? "-" : sprintf("%.5f", $5), $6, $7 }'
}

paragraph() {
    printf '\n%s\n  %s' "$1" "$prompt"
    build/zq generate "$2" -p "$prompt" -n 90 --temperature 0.7 --top-k 40 --seed 5 --quiet | tr -s '\n ' ' ' | fold -s -w 110 | sed '2,$s/^/  /'
    echo
}

tools/install-deps.sh
echo "== building"
mkdir -p build
if ! { cmake --preset release && cmake --build --preset release --target zq; } > build/demo-build.log 2>&1; then
    cat build/demo-build.log >&2
    exit 1
fi
mkdir -p "$out"
for scheme in w8a8 w4/8a8; do
    echo
    echo "== zq quantize $model --scheme $scheme"
    build/zq quantize $model -o "$out/$(echo $scheme | tr -d /)" --scheme $scheme --force
done
for method in fast "full --iters 60"; do # 200 steps are the default of full, and take two minutes more
    echo
    echo "== zq quantize $model --scheme w4/8a8 --lkd $method"
    # shellcheck disable=SC2086 # words
    build/zq quantize $model -o "$out/${method%% *}" --scheme w4/8a8 --lkd $method --force
done

echo
echo "== measuring"
measure $model original
measure $out/w8a8 w8a8 --against $model
measure $out/w48a8 w48a8 --against $model
measure $out/fast fast --against $model
measure $out/full full --against $model

echo
echo "File size of the tensors, bits per weight inside the blocks, perplexity on held-out text ($text),"
echo "KL divergence to the original in nats per token, and tokens per second on $(nproc) cores."
echo
printf '%-12s %12s %12s %12s %14s %16s %16s\n' model "file size" bits/weight perplexity "KL divergence" "prompt tokens/s" "decode tokens/s"
row original original
row w8a8 W8A8
row w48a8 W4/8A8
row fast W4/8A8+fast
row full W4/8A8+full

echo
echo "== zq generate -p \"$prompt\" --temperature 0.7 --top-k 40 --seed 5"
paragraph original: $model
paragraph W8A8: $out/w8a8
paragraph W4/8A8: $out/w48a8
paragraph "W4/8A8 distilled on its own text (--lkd fast):" $out/fast
paragraph "W4/8A8 distilled on its own text (--lkd full):" $out/full
