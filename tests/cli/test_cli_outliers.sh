# make-outliers: the same function, with activations that are harder to quantize.
. tests/cli/check.sh

text=$model/heldout.txt
# mean FIELD: the mean of a spread in stdout
mean() { sed -n "/\"$1\"/,/}/p" "$stdout" | sed -n 's/.*"mean": \([^,]*\),.*/\1/p' | head -n 1; }
below() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a != "" && a + 0 <= b + 0) }'; }

run "$build/make-outliers" $model "$tmp/outliers"
expect_code "a model with outliers" 0
limit=2048
if sanitized; then limit=512; fi # two windows
run "$zq" compare $model "$tmp/outliers" --text $text --limit $limit --json
expect "its function is the same: KL $(mean kl) at most 1e-8" below "$(mean kl)" 1e-8
run "$zq" inspect $model --ranges --text $text --limit 512 --module '.*\.0\.mlp\.c_fc' --json
plain=$(grep -o '"token_ranges": \[[^,]*' "$stdout" | sed 's/.*\[//')
run "$zq" inspect "$tmp/outliers" --ranges --text $text --limit 512 --module '.*\.0\.mlp\.c_fc' --json
large=$(grep -o '"token_ranges": \[[^,]*' "$stdout" | sed 's/.*\[//')
expect "its tokens are wider: $plain, $large" below "$plain" "$(awk -v x="$large" 'BEGIN { print x / 4 }')"

damage() { # DIR: sets $kl to what W8A8 costs it
    "$zq" quantize "$1" -o "$tmp/w8a8" --scheme w8a8 --quiet --force
    run "$zq" compare $model "$tmp/w8a8" --text $text --limit $limit --json
    kl=$(mean kl)
}
damage $model
before=$kl
damage "$tmp/outliers"
expect "and W8A8 costs more: KL $before, with outliers $kl" below "$(awk -v x="$before" 'BEGIN { print 5 * x }')" "$kl"

run "$build/make-outliers" "$shared/none" "$tmp/none"
expect "no model" [ "$rc" = 3 -a ! -e "$tmp/none" ]
run "$build/make-outliers" $model "$tmp/outliers"
expect "OUT exists" [ "$rc" = 8 ]
run "$build/make-outliers" $model "$tmp/none" 300
expect "more channels than there are" [ "$rc" = 2 -a ! -e "$tmp/none" ]
if [ -d "$shared/models" ]; then
    for name in neox llama; do
        run "$build/make-outliers" "$shared/models/$name" "$tmp/$name"
        run "$zq" compare "$shared/models/$name" "$tmp/$name" --text $text --limit 512 --json
        expect "$name: the same function: KL $(mean kl)" below "$(mean kl)" 1e-8
    done
    run "$build/make-outliers" "$shared/models/bert" "$tmp/bert"
    expect "norms after the sums are refused" [ "$rc" = 5 ]
else
    skip "other families" "no shared data"
fi
finish
