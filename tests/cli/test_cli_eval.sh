# zq eval: the reference's nll, KL to itself and to the original, windows and errors.
. tests/cli/check.sh

text=$model/heldout.txt
run "$zq" quantize $model -o "$tmp/w8a8" --quiet
if sanitized; then
    skip "the reference's nll" "too slow with sanitizers"
else
    run "$zq" eval "$tmp/w8a8" --text $text --limit 10240 --against $model --json
    expect "W8A8: nll is near the reference's" near "$(field nll)" 4.235589 0.0015
    expect "W8A8: so is the KL divergence" near "$(field kl)" 0.000734 0.0002
    run "$zq" eval $model --text $text --limit 10240 --json
    expect "nll is the reference's" near "$(field nll)" 4.234718 0.00005
fi
run "$zq" eval $model --text $text --limit 1024 --json
expect "tokens are those predicted" [ "$(field tokens)" = 1020 ]
expect "ppl is exp(nll)" near "$(field ppl)" "$(awk -v nll="$(field nll)" 'BEGIN { print exp(nll) }')" 0.001
expect "no kl without --against" [ -z "$(field kl)$(field top1)" ]
expect "bytes of the tensors" [ "$(field bytes)" -gt 11800000 -a "$(field bytes)" -le 11844840 ]
expect "speed" near "$(field tokens_per_s)" 1e6 999999

run "$zq" eval $model --text $text --limit 1024 --against $model --json
expect "no distance to itself" [ "$(field kl) $(field top1)" = "0.0 1.0" ]
nll=$(field nll)
head -c 10000 $text > "$tmp/text"
input=$tmp/text
run "$zq" eval $model --text - --limit 1024 --json
expect "text from standard input" [ "$(field nll)" = "$nll" ]
run "$zq" eval $model --text - --limit 1024 --window 64 --json
expect "smaller windows" [ "$(field tokens)" = 1008 -a "$(field nll)" != "$nll" ]
run "$zq" eval $model --text - --limit 1100 --json
expect "an unfinished window is dropped" [ "$(field nll)" = "$nll" ]
run "$zq" eval $model --text - --limit 1024
expect_line "text output" out '^perplexity  *[0-9.]+$'
input=/dev/null

run "$zq" eval $model
expect_error "no text" 2 "--text"
run "$zq" eval $model --text "$tmp/none"
expect_error "no such text" 3 "$tmp/none"
run "$zq" eval $model --text "$tmp"
expect_code "a directory is no text" 3
echo short > "$tmp/short"
run "$zq" eval $model --text "$tmp/short"
expect_code "text shorter than a window" 2
run "$zq" eval $model --text $text --window 513
expect_code "window above the limit" 9
finish
