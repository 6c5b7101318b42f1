# zq forward: the file it writes, and its arguments.
. tests/cli/check.sh

out=$tmp/out.safetensors
run "$zq" forward $model --ids 40,446,79,12,928,1 -o "$out"
expect_code "ids" 0
expect "logits [tokens, vocabulary]" grep -qa '"logits":{"dtype":"F32","shape":\[6,4096\]' "$out"
run "$zq" forward $model --text 'Hello, world!' -o "$tmp/text.safetensors"
expect_same "text gives the same" "$out" "$tmp/text.safetensors"
run "$zq" forward $model --ids '40 446 79 12 928 1' --hidden -o "$out" --threads 1
expect "hidden states" grep -qa '"hidden.6":{"dtype":"F32","shape":\[6,256\]' "$out"
expect "of six layers" [ "$(head -c 4000 "$out" | tr ',' '\n' | grep -ca '"hidden\.')" = 7 ]

run "$zq" forward $model --ids 1,2
expect_error "no output" 2 "-o"
run "$zq" forward $model -o "$out"
expect_error "neither ids nor text" 2 "--ids"
run "$zq" forward $model --ids 1 --text x -o "$out"
expect_error "both ids and text" 2 "--text"
run "$zq" forward $model --ids 1,x -o "$out"
expect_error "not a number" 2 "'x'"
run "$zq" forward $model --ids '' -o "$out"
expect_error "no ids" 2 "--ids is empty"
run "$zq" forward $model --ids 4096 -o "$tmp/bad.safetensors"
expect_error "id outside the vocabulary" 2 "4096"
run "$zq" forward $model --ids 1,2 --types 0 -o "$tmp/bad.safetensors"
expect_error "too few types" 2 "--types has 1 values"
run "$zq" forward $model --ids "$(seq -s, 513)" -o "$tmp/bad.safetensors"
expect_error "above the limit" 9 "512"
run "$zq" forward $model --ids 1 -o "$tmp/none/x.safetensors"
expect_error "no such folder" 3 "$tmp/none"
expect "errors leave no file" [ -z "$(find "$tmp" -name '*bad*')" ]
finish
