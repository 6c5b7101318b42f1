# zq-report.html: whole in itself, with the pictures and tables of what the run did, and the only file that tells of time and memory.
. tests/cli/check.sh

page=$tmp/out/zq-report.html
run "$zq" quantize $model -o "$tmp/out" --scheme w4/8a8 --lkd fast --samples 4 --length 16 --quiet
expect_code "a distilled model" 0
expect "no script, no address but SVG's name" [ "$(grep -cE '<script|src=|href=|@import|url\(' "$page") $(grep -oE 'https?://[^" ]*' "$page" | sort -u)" = "0 http://www.w3.org/2000/svg" ]
expect "light and dark" grep -q "prefers-color-scheme:dark" "$page"
for title in Method "Loss per block" "Loss of each block" "How far the quantized stream is off" "Activation range of each token" \
    "Weight range of each row" "Error of the weights" Tensors Remarks; do
    expect "$title" grep -q ">$title<" "$page"
done
expect "time and memory" grep -qE '<th>peak memory</th><td>[0-9.]+ MB' "$page"
expect "data" grep -q "4 samples of 16 tokens, 64 tokens in all" "$page"
expect "boxes of six layers, twice" [ "$(grep -c 'fill-opacity="0.35"' "$page")" = 12 ]
expect "bars: six blocks before, after, and in percent" [ "$(grep -c 'fill-opacity="0.8"/>' "$page")" -ge 18 ]
before=$(sed -n 's/.*"before": \([^,]*\).*/\1/p' "$tmp/out/zq-report.json" | head -n 1)
expect "the loss of block 0 as in zq-report.json" grep -qF "<td class=\"n\">0</td><td class=\"n\">$(printf '%.4g' "$before")<" "$page"
expect "a row for each tensor" [ "$(grep -cE '^<tr><td>(transformer|lm_head)' "$page")" = "$(grep -c '"bytes_in"' "$tmp/out/zq-report.json" | awk '{ print $1 - 1 }')" ]
if command -v xmllint > /dev/null; then
    sed -n '/^<svg/,/^<\/svg>/p' "$page" | sed 's/<\/svg>/&\n/' > "$tmp/svg"
    (echo '<all>' && cat "$tmp/svg" && echo '</all>') > "$tmp/all.xml"
    expect "its pictures are well-formed" xmllint --noout "$tmp/all.xml"
else
    skip "well-formed" "no xmllint"
fi

if sanitized; then
    skip "run to run" "distillation is slow with sanitizers; what it writes, the other build compares"
else
    run "$zq" quantize $model -o "$tmp/again" --scheme w4/8a8 --lkd fast --samples 4 --length 16 --quiet
    expect "nothing else differs from run to run" diff -r -x zq-report.html "$tmp/out" "$tmp/again"
fi
run "$zq" quantize $model -o "$tmp/plain" --quiet
expect "round to nearest: rows have ranges" grep -q "Weight range of each row" "$tmp/plain/zq-report.html"
expect "and nothing that was not measured" [ "$(grep -cE 'Loss per block|Activation range|nan' "$tmp/plain/zq-report.html")" = 0 ]
finish
