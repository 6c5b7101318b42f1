# --math fast keeps what it promises: perplexity within 0.1 % of exact, embeddings within a cosine of 0.9999.
. tests/cli/check.sh

limit=4096
sanitized && limit=512
run "$zq" quantize $model -o "$tmp/w8a8" --scheme w8a8 --quiet
expect_code "quantized" 0
for math in exact fast; do
    run "$zq" eval "$tmp/w8a8" --text $model/heldout.txt --limit $limit --math $math --json
    expect_code "perplexity, $math" 0
    eval "$math=$(field nll)"
done
expect "perplexity within 0.1 %: $exact and $fast" near "$exact" "$fast" 0.001
expect "fast is another computation" [ "$exact" != "$fast" ]

need_shared models/minilm-sst2
run "$zq" quantize "$shared/models/minilm-sst2" -o "$tmp/encoder" --scheme w8a8 --quiet
expect_code "encoder" 0
printf '%s\n' "a quiet film" "It is not what it wants to be, but it tries very hard all the same." x > "$tmp/lines"
for math in exact fast; do
    input=$tmp/lines run "$zq" embed "$tmp/encoder" --math $math
    expect_code "embeddings, $math" 0
    tr -cs '0-9.e+\n-' ' ' < "$stdout" > "$tmp/$math"
done
cosine=$(paste "$tmp/exact" "$tmp/fast" | awk '{ n = NF / 2; ab = aa = bb = 0
    for (i = 1; i <= n; i++) { ab += $i * $(i + n); aa += $i * $i; bb += $(i + n) * $(i + n) }
    c = ab / sqrt(aa * bb); if (NR == 1 || c < least) least = c } END { print least }')
expect "cosine of embeddings is $cosine" awk -v c="$cosine" 'BEGIN { exit !(c >= 0.9999) }'
finish
