# zq bench: which rows there are, and that their values can be true; never how fast anything is.
. tests/cli/check.sh

# row NAME: the row of that name in stdout; value NAME KEY: one of its numbers or strings
row() { grep -F "\"name\": \"$1\"" "$stdout"; }
value() { row "$1" | sed -n "s/.*\"$2\": \"\{0,1\}\([^,}\"]*\).*/\1/p"; }
names() { sed -n 's/.*"name": "\([^"]*\)".*/\1/p' "$stdout" | tr '\n' ' '; }
at_least() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a != "" && a + 0 >= b + 0) }'; }
fast="--layers 1 --seconds 0.01 --threads 2"

# shellcheck disable=SC2086 # options
run "$zq" bench --shape minilm $fast --batch 1,3 --prompt 7,16 --json
expect "a row for each batch and length" [ "$(names)" = "encode.1x7 memory encode.1x16 memory encode.3x7 memory encode.3x16 memory " ]
for key in name unit median best limit share bound threads level math model scheme group batch length; do
    expect "key $key in every row" [ "$(grep -c "\"$key\": " "$stdout")" = 8 ]
done
expect "the best is not below the median" at_least "$(value encode.3x16 best)" "$(value encode.3x16 median)"
expect "rates are positive" at_least "$(value encode.3x16 median)" 0.001
expect "what was asked for" [ "$(value encode.3x7 unit) $(value encode.3x7 threads) $(value encode.3x7 batch) $(value encode.3x7 length)" = "sequences/s 2 3 7" ]

run "$zq" bench $model --batch 2 --prompt 8 --decode 3 --seconds 0.01 --json
expect "rows of a decoder" [ "$(names)" = "prompt.2x8 decode.2x8 first3.2x8 memory " ]
expect "the prompt is part of firstN" at_least "$(value decode.2x8 best)" "$(value first3.2x8 best)"
run "$zq" bench $model --prompt 8 --decode 0 --seconds 0.01 --json
expect "no decoding" [ "$(names)" = "prompt.1x8 memory " ]

# every shape, scheme and form of embedding opens and runs
for shape in bert-base bert-large minilm gpt-350m gpt-1.3b gpt-j-6b gpt-neox-20b tinyllama-1.1b; do
    if sanitized && [ $shape != minilm ]; then continue; fi
    # shellcheck disable=SC2086
    run "$zq" bench --shape $shape $fast --scheme w4a8 --embeddings int8 --prompt 4 --decode 1
    expect_code "shape $shape" 0
done
for scheme in w8a8 w4/8a8 w4a16 w8a8/16 bf16 f32; do
    # shellcheck disable=SC2086
    run "$zq" bench --shape minilm $fast --scheme $scheme --prompt 4
    expect_line "scheme $scheme" out '^encode.1x4  *[0-9.e+]* '
done
# shellcheck disable=SC2086
run "$zq" bench --shape minilm $fast --group k:32 --prompt 4
expect_line "group" out '^encode.1x4 '

run "$zq" bench --shape bert-huge
expect_error "no such shape" 2 "shapes are bert-base, "
run "$zq" bench --shape minilm --scheme w2a8
expect_error "no such scheme" 2 "w2a8"
run "$zq" bench --shape minilm --group k:0
expect_error "no such group" 2 "k:0"
run "$zq" bench --shape minilm --prompt 1000
expect_error "above the limit of the shape" 9 "512"
run "$zq" bench $model --scheme w4a8
expect_error "a directory is what it is" 2 "--scheme"
run "$zq" bench $model --shape minilm
expect_error "a directory or a shape" 2 "--shape minilm needs no model"
for list in '' 0 1, ,1 1.5 x 1,x; do
    run "$zq" bench $model --batch "$list"
    expect_error "list '$list'" 2 "--batch needs whole numbers"
done
finish
