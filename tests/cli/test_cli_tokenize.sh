# zq tokenize against the ids that the reference library gave (golden.json of the bundled model).
. tests/cli/check.sh

input=$tmp/text
printf 'Hello, world!' > "$input"
run "$zq" tokenize $model
expect_output "one text" "40 446 79 12 928 1"
run "$zq" tokenize $model --json
expect_output "as JSON" "[40, 446, 79, 12, 928, 1]"
run "$zq" tokenize $model/tokenizer.json
expect_output "a tokenizer file" "40 446 79 12 928 1"
mkdir "$tmp/folder"
cp $model/tokenizer.json "$tmp/folder"
run "$zq" tokenize "$tmp/folder"
expect_output "a folder with a tokenizer only" "40 446 79 12 928 1"

printf ' two  spaces\n\nand lines\t' > "$input"
run "$zq" tokenize $model
expect_output "line ends belong to the text" "740 221 558 1574 199 199 389 3931 198"
printf 'Hello, world!\0don'"'"'t can'"'"'t won'"'"'t\0' > "$input"
run "$zq" tokenize $model --nul
expect_output "texts separated by NUL" "40 446 79 12 928 1
68 280 480 552 480 1693 480"
printf '日本語 🙂 x²' > "$input"
run "$zq" tokenize $model
expect_output "other scripts" "163 246 99 163 251 106 165 104 253 221 173 254 248 225 221 88 127 111"
cp "$stdout" "$input"
run "$zq" tokenize $model --decode
expect_output "decoded" "日本語 🙂 x²"
: > "$input"
run "$zq" tokenize $model
expect_output "no text" ""

printf '40 446,79, 12\n928 1\n' > "$input"
run "$zq" tokenize $model --decode
expect_output "spaces and commas" "Hello,
 world!"
run "$zq" tokenize $model --decode --nul
printf 'Hello,\0 world!\0' > "$tmp/expected"
expect_same "decoded texts ended by NUL" "$tmp/expected" "$stdout"
run "$zq" tokenize $model --decode --json
expect_output "decoded as JSON" '"Hello,"
" world!"'
echo '40 0' > "$input"
run "$zq" tokenize $model --decode
expect_output "special tokens are dropped" "H"
run "$zq" tokenize $model --decode --keep-special
expect_output "special tokens are kept" "H<|endoftext|>"
echo '40 x' > "$input"
run "$zq" tokenize $model --decode
expect_error "not a number" 2 "line 1: 'x'"
echo '40,,1' > "$input"
run "$zq" tokenize $model --decode
expect_error "nothing between commas" 2 "line 1: ''"
printf '40\0 1\n' > "$input"
run "$zq" tokenize $model --decode
expect_error "a NUL byte" 2 "line 1: a NUL byte"
echo '40 4096' > "$input"
run "$zq" tokenize $model --decode
expect_error "id outside the vocabulary" 2 "4096"
printf '\377\376ab' > "$input"
run "$zq" tokenize $model
expect_code "invalid UTF-8 is no error" 0

printf 'some words' > "$input"
if [ -d "$shared/models/bert" ]; then
    run "$zq" tokenize "$shared/models/bert"
    with=$(wc -w < "$stdout")
    run "$zq" tokenize "$shared/models/bert" --no-special
    expect "[CLS] and [SEP] are optional" [ "$with" = $(($(wc -w < "$stdout") + 2)) ]
else
    skip "special tokens are optional" "no shared data"
fi
finish
