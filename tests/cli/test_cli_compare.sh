# zq compare: agrees with zq eval --against, tables and JSON, lines of an encoder, and what it refuses.
. tests/cli/check.sh

text=$model/heldout.txt
run "$zq" quantize $model -o "$tmp/w8a8" --quiet
run "$zq" eval "$tmp/w8a8" --text $text --limit 1024 --against $model --json
kl=$(field kl) nll=$(field nll)
run "$zq" compare $model "$tmp/w8a8" --text $text --limit 1024 --json
cp "$stdout" "$tmp/json"
# inside KEY: the mean in the object of that name
inside() { sed -n "/\"$1\": {/,/}/s/.*\"mean\": \([^,]*\),*/\1/p" "$tmp/json" | tail -n 1; }
expect "KL is that of eval --against" near "$(inside kl)" "$kl" 1e-8
expect "nll of the second model" near "$(sed -n '/"quantized"/,$p' "$tmp/json" | sed -n 's/.*"mean": \([^,]*\),*/\1/p' | head -n 1)" "$nll" 1e-7
expect "windows and tokens" [ "$(field sequences) $(field tokens)" = "4 1020" ]
expect "one row for each layer" [ "$(grep -c '"layer": ' "$tmp/json")" = 7 ]
expect "spread" [ "$(grep -c '"error": ' "$tmp/json")" = 5 ]
run "$zq" compare $model "$tmp/w8a8" --text $text --limit 1024
expect_line "table: perplexity" out '^perplexity +[0-9.]+ +[0-9.]+ +[+-][0-9.]+ \+- [0-9.]+ %$'
expect_line "table: KL divergence" out '^KL divergence +0\.000[0-9]+ \+- 0\.0000[0-9]+ nats, '
expect_line "table: layers" out '^layer 6 +0\.0[0-9]+ +0\.999[0-9]+$'
run "$zq" compare $model "$tmp/w8a8" --text $text --limit 256
expect_line "one window has no spread" out '^KL divergence +0\.000[0-9]+ nats, '

run "$zq" compare $model
expect_error "one model" 2 "QUANTIZED is missing"
run "$zq" compare $model "$tmp/w8a8"
expect_error "no text" 2 "--text"
run "$zq" compare $model "$tmp/w8a8" third --text $text
expect_error "three models" 2 "unexpected argument 'third' after QUANTIZED"
run "$zq" compare $model "$tmp/none" --text $text
expect_error "no such model" 3 "$tmp/none"

head -c 6000 $text > "$tmp/calibration"
run "$zq" compare $model $model --study w8a8,tensor,static:minmax --calibrate "$tmp/calibration" --text $text --limit 512
expect_line "a study" out '^KL divergence +0\.00[0-9]+ \+- '
run "$zq" eval $model --study w8a8 --against $model --text $text --limit 512 --json
expect "a study of W8A8" near "$(field kl)" 0.0007 0.0003
run "$zq" eval $model --calibrate $text --text $text
expect_error "calibration without a study" 2 "--study"
run "$zq" eval $model --study w8a8 --activations static:ema --calibrate "$tmp/calibration" --text $text --limit 512 --json
cp "$stdout" "$tmp/by-option"
run "$zq" eval $model --study w8a8,static:ema --calibrate "$tmp/calibration" --text $text --limit 512 --json
expect "static activations by an option of their own" test "$(sed -n 's/.*"nll": \([^,]*\).*/\1/p' "$tmp/by-option")" = "$(field nll)"
run "$zq" eval $model --activations static:ema --text $text
expect_error "activations without a study" 2 "--study"
run "$zq" eval $model --study w8a8 --activations static:most --calibrate "$tmp/calibration" --text $text
expect_error "static activations of no kind" 2 "static:most"
run "$zq" eval $model --study w8a8,static:minmax --text $text
expect_error "a study without calibration" 2 "calibrate"

need_shared models/minilm-sst2
cls=$shared/models/minilm-sst2
run "$zq" compare $model "$cls" --text $text
expect_error "another vocabulary" 2 "different vocabularies"
printf 'a thoroughly delightful film .\nan utter waste of time .\n\nnot without its charms , though .\n' > "$tmp/lines"
run "$zq" quantize "$cls" -o "$tmp/cls" --quiet
run "$zq" compare "$cls" "$tmp/cls" --text "$tmp/lines"
expect_line "encoder: cosine" out '^cosine +0\.99[0-9]+ \+- 0\.0[0-9]+, least 0\.99'
expect_line "classifier: labels" out '^same label +100\.00 \+- 0\.00 %'
run "$zq" compare "$cls" "$tmp/cls" --text "$tmp/lines" --json
expect "encoder: lines, no perplexity" [ "$(field sequences) $(field ppl)" = "3 " ]
expect "encoder: 1 - cosine" near "$(field distance)" 0.005 0.0049
finish
