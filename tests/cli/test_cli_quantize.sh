# zq quantize and zq inspect: plan, report, rules, and what happens to an output that exists.
. tests/cli/check.sh

out=$tmp/w8a8
run "$zq" quantize $model -o "$out" --dry-run
expect_line "the plan folds layers" out '^  .*h\.0-5\.attn\.c_attn\.weight +x6 +F16 +w8a8 channel '
expect_line "and tells sizes" out '^  inside blocks .*x smaller than FP16, 8\.[0-9]+ bits per weight'
expect "--dry-run writes nothing" [ -z "$(find "$tmp" -name 'w8a8*')" ]
run "$zq" quantize $model -o "$out" --dry-run --json --quiet
expect_line "the plan as JSON" out '^\{'

run "$zq" quantize $model -o "$out"
expect_line "quantize" err '^Written: '
expect "prints no data" [ ! -s "$stdout" ]
expect "leaves nothing beside" [ -z "$(find "$tmp" -name '*.partial*')" ]
for file in config.json tokenizer.json zq-report.json; do expect "$file" test -s "$out/$file"; done
run "$zq" inspect "$out"
expect_line "inspect" out '^  .*h\.0-5\.mlp\.c_fc +x6 +1024 +256 +I8 +w8a8 +channel '
run "$zq" inspect "$out" --json
expect "bits per weight" near "$(field bits_per_weight)" 8.1 0.1
expect "tensors" near "$(field file_bytes)" 7.1e6 1e5

run "$zq" quantize $model -o "$out"
expect_error "an existing output" 8 "$out"
run "$zq" quantize $model -o "$out" --resume
expect_line "nothing to resume" err 'nothing to do'
run "$zq" quantize $model -o "$out" --resume --scheme w4a8
expect_error "resume with another scheme" 2 "scheme"
run "$zq" quantize $model -o "$out" --force --resume
expect_error "force and resume" 2 "--force"
cp "$out/model.safetensors" "$tmp/first.safetensors" 2> /dev/null || cat "$out"/*.safetensors > "$tmp/first.safetensors"
run "$zq" quantize $model -o "$out" --force --quiet --threads 1
expect "--quiet says nothing" [ "$rc" = 0 -a ! -s "$stderr" ]
cat "$out"/*.safetensors > "$tmp/second.safetensors"
expect_same "the same bytes again, with one thread" "$tmp/first.safetensors" "$tmp/second.safetensors"

scheme_of() { sed -n "/\"name\": \"[a-z.]*$1\"/,/}/s/.*\"scheme\": \"\(.*\)\",/\1/p; /\"name\": \"[a-z.]*$1\"/,/}/s/.*\"group\": \"\(.*\)\",/\1/p" "$stdout" | tr '\n' ' '; }
name=$("$zq" inspect $model --json | sed -n 's/.*"name": "\(.*\)h\.0\.attn\.c_attn",/\1/p')
run "$zq" quantize $model -o "$tmp/rules" --quiet --scheme w4/8a8 --set '(?=.*c_fc).*=w4a16,k:32' --ignore ".*h\\.1\\..*" --set "${name}h\\.1\\.mlp\\.c_proj=w8a16"
expect_code "rules" 0
run "$zq" inspect "$tmp/rules" --json
expect "w4/8a8: attention has 8 bits" [ "$(scheme_of 'h\.0\.attn\.c_attn')" = "w8a8 channel " ]
expect "w4/8a8: feed-forward has 4" [ "$(scheme_of 'h\.0\.mlp\.c_proj')" = "w4a8 k:64 " ]
expect "--set with a group" [ "$(scheme_of 'h\.2\.mlp\.c_fc')" = "w4a16 k:32 " ]
expect "--ignore after --set" [ "$(scheme_of 'h\.1\.mlp\.c_fc')" = "float  " ]
expect "--set after --ignore" [ "$(scheme_of 'h\.1\.mlp\.c_proj')" = "w8a16 channel " ]

run "$zq" quantize $model -o "$tmp/j" --json
expect_line "the report as JSON" out '^\{'
# the file leaves out what differs from run to run, so that a resumed run writes the same bytes
lines=$(($(wc -l < "$tmp/j/zq-report.json") - 2))
head -n $lines "$tmp/j/zq-report.json" > "$tmp/in_file"
head -n $lines "$stdout" > "$tmp/printed"
expect_same "is the one in the directory" "$tmp/in_file" "$tmp/printed"
expect_line "with time and memory of this run" out '"memory_bytes": [0-9]{7}'
limited() { (ulimit -f 3000; exec "$zq" "$@"); }
run limited quantize $model -o "$tmp/limited"
expect_error "a limit on the size of files" 3 "cannot write"
expect "leaves nothing" [ ! -e "$tmp/limited" -a ! -e "$tmp/limited.partial" ]
run "$zq" quantize $model
expect_error "no output" 2 "-o OUT"
run "$zq" quantize $model -o "$tmp/x" --scheme w1a8
expect_error "unknown scheme" 2 "w1a8"
run "$zq" quantize $model -o "$tmp/x" --group rows:0
expect_error "bad group" 2 "rows:0"
run "$zq" quantize $model -o "$tmp/x" --set 'a(=w8a8'
expect_error "bad regex" 2 "a("
run "$zq" quantize $model -o "$tmp/x" --set 'w8a8'
expect_error "--set without a scheme" 2 "--set needs REGEX=SCHEME"
run "$zq" quantize $model -o "$tmp/x" --embeddings int4
expect_error "unknown embeddings" 2 "--embeddings is int8"
run "$zq" quantize $model -o "$tmp/x" --memory 1M
expect_code "too little memory" 6
run "$zq" quantize "$out" -o "$tmp/x"
expect_code "a quantized model is no source" 5
expect "errors leave nothing" [ -z "$(find "$tmp" -maxdepth 1 -name 'x*')" ]
finish
