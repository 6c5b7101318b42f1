# zq inspect --ranges: table, JSON, picture, and options that make no sense without it.
. tests/cli/check.sh

text=$model/heldout.txt
run "$zq" inspect $model --ranges --text $text --window 128 --limit 256 -o "$tmp/figure.svg"
expect_line "a row for each layer" out '^transformer\.h\.5\.attn\.c_proj +[0-9.]+ +[0-9.]+ +[0-9.]+x +0\.[0-9]+ +0\.[0-9]+ +3\.8x +[0-9.]+ +5$'
expect "the picture is SVG" [ "$(head -c 5 "$tmp/figure.svg") $(tail -n 1 "$tmp/figure.svg")" = "<svg  </svg>" ]
expect "with a box for each layer, twice" [ "$(grep -c 'fill-opacity="0.35"' "$tmp/figure.svg")" = 12 ]
if command -v xmllint > /dev/null; then expect "well-formed" xmllint --noout "$tmp/figure.svg"; else skip "well-formed" "no xmllint"; fi
run "$zq" inspect $model --ranges --text $text --window 16 --limit 32 --module '.*\.1\.mlp\.c_(fc|proj)' --json
expect "JSON: tokens and modules" [ "$(field tokens) $(grep -o '"layer": 1' "$stdout" | wc -l)" = "32 2" ]
expect "JSON: a range for each token" [ "$(grep -o '"token_ranges": \[[^]]*\]' "$stdout" | head -n 1 | tr ',' '\n' | wc -l)" = 32 ]
expect "JSON: codes of rows" [ "$(grep -o '"int4_codes": \[[^]]*\]' "$stdout" | head -n 1 | tr ',' '\n' | wc -l)" = 1024 ]

run "$zq" inspect $model --ranges
expect_error "no text" 2 "--text"
run "$zq" inspect $model --text $text
expect_error "a text without --ranges" 2 "--ranges"
run "$zq" inspect $model --ranges --text $text --limit 512 --module 'nothing'
expect_error "nothing matches" 2 "nothing"
run "$zq" inspect $model --ranges --text $text --limit 256 -o "$tmp/none/figure.svg" --json
expect_code "nowhere to draw" 3
finish
