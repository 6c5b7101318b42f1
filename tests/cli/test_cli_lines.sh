# zq embed and zq classify: answers line by line.
. tests/cli/check.sh

input=$tmp/lines
echo 'A dark night.' > "$input"
run "$zq" classify $model
expect_error "a language model is no classifier" 5 "no classifier"
run "$zq" embed $model
expect_error "nor does it embed" 5 "encoder"
run "$zq" embed $model --pool max
expect_error "unknown pooling" 2 "--pool"

need_shared models/minilm-sst2
cls=$shared/models/minilm-sst2
printf 'A dark night.\nThe moor.\n\nA dark night.' > "$input"
run "$zq" embed "$cls" --normalize
expect "one array a line" [ "$rc $(wc -l < "$stdout") $(head -n 1 "$stdout" | tr ',' '\n' | wc -l)" = "0 4 384" ]
expect "a line does not depend on others" [ "$(sed -n 1p "$stdout")" = "$(sed -n 4p "$stdout")" ]
expect "but on its text" [ "$(sed -n 1p "$stdout")" != "$(sed -n 2p "$stdout")" ]
expect "length 1" near "$(head -n 1 "$stdout" | tr -d '[]' | tr ',' '\n' | awk '{ s += $1 * $1 } END { print s }')" 1 1e-5
printf 'a thoroughly delightful film .\nan utter waste of time .\n\n' > "$input"
run "$zq" classify "$cls"
expect "labels" [ "$(sed -n 's/^{"label": "\([a-z]*\)", "score": \(0\.[5-9]\|1\).*"logits": \[.*, .*\]}$/\1/p' "$stdout" | head -n 2 | tr '\n' ' ')" = "positive negative " ]
expect "an empty line has an answer" [ "$rc $(wc -l < "$stdout")" = "0 3" ]
printf 'a film\tand a play\n' > "$input"
run "$zq" classify "$cls"
cp "$stdout" "$tmp/pair"
printf 'a film and a play\n' > "$input"
run "$zq" classify "$cls"
expect "a TAB separates a pair" [ "$(cat "$tmp/pair")" != "$(cat "$stdout")" ]
{ printf 'word %.0s' $(seq 2000); echo; printf 'word %.0s' $(seq 3000); printf '\tshort\n'; } > "$input"
run "$zq" classify "$cls"
expect_line "long lines are cut" err '^note: line 1 has 2002 tokens; such lines are cut to [0-9]+$'
expect "with one note" [ "$(grep -c ^note: "$stderr")" = 1 ]
printf 'one\n' > "$input"
run "$zq" embed "$cls" --pool cls
cp "$stdout" "$tmp/cls"
run "$zq" embed "$cls" --pool mean
expect "poolings differ" [ "$rc" = 0 -a "$(cat "$tmp/cls")" != "$(cat "$stdout")" ]
finish
