# zq generate: the reference continuation, streaming, limits, sampling.
. tests/cli/check.sh

# strings of golden.json have \n and \" escapes only
golden() { sed -n "s/^  \"$1\": \"\(.*\)\",\{0,1\}\$/\1/p" $model/golden.json; }
prompt=$(golden prompt)
printf '%b\n' "$(golden text)" > "$tmp/golden_text"
n=$(sed -n '/"new_ids"/,/\]/p' $model/golden.json | grep -c '^ *[0-9]')

run "$zq" generate $model -p "$prompt" -n "$n"
expect_same "greedy text is the reference's" "$tmp/golden_text" "$stdout"
expect_line "speeds are told" err '^prompt: 8 tokens, [0-9.]* tokens/s; new: 48 tokens'
run "$zq" generate $model -p "$prompt" -n "$n" --quiet
expect "--quiet says nothing" [ ! -s "$stderr" ]
run "$zq" generate $model -p "$prompt" -n "$n" --json
expect_line "JSON has the same text" out "\"text\": \"$(golden text | sed 's/\\/\\\\/g')\""
expect "JSON counts" [ "$(field prompt_tokens) $(field new_tokens) $(field stop)" = "8 48 count" ]
printf '%s' "$prompt" > "$tmp/prompt"
input=$tmp/prompt
run "$zq" generate $model -n "$n"
expect_same "prompt from standard input" "$tmp/golden_text" "$stdout"
input=/dev/null

run "$zq" generate $model -p "$prompt" -n 0
expect_output "no new tokens" ""
run "$zq" generate $model -p ''
expect_error "empty prompt" 2 "the prompt is empty"
head -c 6000 $model/heldout.txt > "$tmp/long"
input=$tmp/long
run "$zq" generate $model
expect_error "prompt above the limit" 9 "the limit of the model is 512"
input=/dev/null

# "night" is one token with its space: 512 of them fill the model, one more is predicted, and no more
run "$zq" generate $model -p "$(printf ' night%.0s' $(seq 512))" -n 5 --json
expect "stops at the limit" [ "$(field prompt_tokens) $(field new_tokens) $(field stop)" = "512 1 length" ]
run "$zq" generate $model -p "$(printf ' night%.0s' $(seq 510))" -n 5 --json
expect "fills the limit" [ "$(field prompt_tokens) $(field new_tokens) $(field stop)" = "510 3 length" ]
run "$zq" generate $model -p "$(printf ' night%.0s' $(seq 510))" -n 5
expect_line "and says so" err "stopped at the model's limit of 512 tokens"

sample() { run "$zq" generate $model -p "$prompt" -n 30 --quiet --temperature 1 --seed "$1"; }
sample 7
cp "$stdout" "$tmp/first"
sample 7
expect_same "a seed repeats its text" "$tmp/first" "$stdout"
sample 8
expect "another seed gives another text" [ "$rc" = 0 -a "$(cat "$tmp/first")" != "$(cat "$stdout")" ]
run "$zq" generate $model -p "$prompt" -n "$n" --temperature 1 --top-k 1
expect_same "top-k 1 is greedy" "$tmp/golden_text" "$stdout"
run "$zq" generate $model -p "$prompt" -n "$n" --temperature 1 --top-p 0.0001
expect_same "so is a top-p of less than one token" "$tmp/golden_text" "$stdout"
run "$zq" generate $model -p "$prompt" -n "$n" --top-k 5
expect_line "top-k without temperature is remarked" err '^note: .*--temperature'

# A tokenizer in which ",", " and", " the" have traded places with the three bytes of the euro sign: the model writes it at once,
# a byte per token, and later lone last bytes, which are no characters.
mkdir "$tmp/euro"
cp $model/config.json $model/model.safetensors "$tmp/euro"
sed 's/^\( *"\),": 12,/\1â": 12,/; s/^\( *"\)Ġand": 281,/\1Ĥ": 281,/; s/^\( *"\)Ġthe": 263,/\1¬": 263,/
     s/^\( *"\)â": 159,/\1,": 159,/; s/^\( *"\)Ĥ": 225,/\1Ġand": 225,/; s/^\( *"\)¬": 106,/\1Ġthe": 106,/' $model/tokenizer.json > "$tmp/euro/tokenizer.json"
run "$zq" generate "$tmp/euro" -p "It was a dark night" -n 30 --quiet
cp "$stdout" "$tmp/streamed"
expect "characters of several tokens are printed whole" grep -q '^€$' "$tmp/streamed"
run "$zq" generate "$tmp/euro" -p "It was a dark night" -n 30 --quiet --json
sed 's/.*"ids": \[\([0-9, ]*\)\].*/\1/' "$stdout" > "$tmp/ids"
input=$tmp/ids
run "$zq" tokenize "$tmp/euro" --decode
expect_same "streamed bytes are the decoded ids" "$stdout" "$tmp/streamed"
input=/dev/null
run "$zq" generate $model -p "$(printf 'caf\351')" -n 2 --json
expect "JSON is UTF-8 whatever the prompt" iconv -f utf-8 -t utf-8 "$stdout"

run "$zq" quantize $model -o "$tmp/w8a8" --quiet
for threads in 1 2 7; do
    run "$zq" generate "$tmp/w8a8" -p "$prompt" -n 40 --quiet --threads $threads
    [ $threads = 1 ] && cp "$stdout" "$tmp/one_thread"
    expect_same "quantized text with $threads threads" "$tmp/one_thread" "$stdout"
done

if [ -d "$shared/models/bert" ]; then
    run "$zq" generate "$shared/models/bert" -p x
    expect_error "an encoder cannot generate" 5 "encoder"
else
    skip "an encoder cannot generate" "no shared data"
fi
finish
