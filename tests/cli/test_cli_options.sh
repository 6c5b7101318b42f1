# Help, versions, misspelt names, exit codes and pipes: what all commands have in common.
. tests/cli/check.sh

commands="quantize generate eval compare forward embed classify tokenize inspect bench"

run "$zq" --version
version=$(sed -n 's/^project(.* VERSION \([0-9.]*\) .*/\1/p' CMakeLists.txt)
expect_output "version" "zq $version"

run "$zq"
expect_error "no command" 2 "a command is missing"
run "$zq" --help
expect_line "help" out '^Usage: zq '
sed -n 's/^  *\([0-9][0-9]*\)  \(.*\)/\1 \2/p' "$stdout" > "$tmp/help_codes"
sed -n '/^.SH EXIT STATUS/,/^.PP/p' docs/zq.1 | awk '/^\.TP/ { getline code; getline text; print code, text }' > "$tmp/man_codes"
sed -n 's/^ *X(ZQ_[A-Z]*, \([0-9]*\), "\(.*\)").*/\1 \2/p' include/zeroquant.h > "$tmp/header_codes"
expect_same "exit codes of --help are the header's" "$tmp/header_codes" "$tmp/help_codes"
expect_same "exit codes of the man page are the header's" "$tmp/header_codes" "$tmp/man_codes"

sed 's/\\-/-/g' docs/zq.1 > "$tmp/man"
for command in $commands; do
    run "$zq" "$command" --help
    expect_line "$command --help has an example" out '^  .*zq '"$command"
    cp "$stdout" "$tmp/help"
    run "$zq" help "$command"
    expect_same "help $command" "$tmp/help" "$stdout"
    missing=
    for option in $(sed -n 's/^  .\{4\}--\([a-z0-9-]*\).*/\1/p' "$tmp/help"); do
        sed -n "/^.SH OPTIONS/,/^.SH QUANTIZE/p; /^.SH $(echo "$command" | tr a-z A-Z)\$/,/^.SH/p" "$tmp/man" | grep -q -- "--$option" || missing="$missing --$option"
    done
    expect "the man page has all options of $command:$missing" [ -z "$missing" ]
    run "$zq" "$command"
    expect_error "$command without a model" 2 " is missing: zq $command "
    run "$zq" "$command" --no-such-thing
    expect_error "$command with an unknown option" 2 "--no-such-thing"
done

run "$zq" quantise
expect_error "nearest command" 2 "did you mean 'quantize'?"
run "$zq" xyzzy
expect_error "no near command" 2 "unknown command 'xyzzy'; 'zq --help'"
run "$zq" --verison
expect_error "nearest option without a command" 2 "unknown option '--verison'; did you mean '--version'?"
run "$zq" --threads 2 inspect $model
expect_error "an option before the command" 2 "unknown option '--threads'; options of a command follow its name"
run "$zq" generate $model --temprature 1
expect_error "nearest option" 2 "unknown option --temprature; did you mean --temperature?"
run "$zq" generate $model --tread=3
expect_error "nearest common option" 2 "unknown option --tread; did you mean --threads?"
run "$zq" generate $model -Z
expect_error "unknown letter" 2 "unknown option -Z"
run "$zq" inspect $model other
expect_error "too many arguments" 2 "unexpected argument 'other'"
run "$zq" inspect $model --json=1
expect_error "value for a flag" 2 "--json takes no value"
run "$zq" generate $model -p x -n
expect_error "missing value" 2 "--count needs a value"
for value in x -1 1.5 '' 99999999999999999999; do
    run "$zq" generate $model -p x -n "$value"
    expect_error "count '$value'" 2 "--count"
done
for value in x -1 nan inf 1x; do
    run "$zq" generate $model -p x --temperature "$value"
    expect_error "temperature '$value'" 2 "--temperature needs a number"
done
for value in x 1X 1.5.5G -1M 1Mi M; do
    run "$zq" quantize $model -o "$tmp/none" --dry-run --memory "$value"
    expect_error "memory '$value'" 2 "--memory needs a size"
done
for value in 1G 1GiB 1.5gb 1073741824 1T; do
    run "$zq" quantize $model -o "$tmp/none" --dry-run --memory "$value"
    expect_code "memory '$value'" 0
done

printf 'Hello' > "$tmp/hello"
input=$tmp/hello
run "$zq" tokenize --json $model
cp "$stdout" "$tmp/expected_json"
run "$zq" tokenize $model --threads=2 --json
expect_same "--option=value" "$tmp/expected_json" "$stdout"
run "$zq" tokenize --threads 2 --json -- $model
expect_same "-- ends the options" "$tmp/expected_json" "$stdout"
run "$zq" tokenize -- --json
expect_code "-- makes a name of an option" 3

mkdir "$tmp/bad" "$tmp/unknown" "$tmp/missing"
run "$zq" inspect "$tmp/nowhere"
expect_error "no such model" 3 "$tmp/nowhere"
echo '{' > "$tmp/bad/config.json"
run "$zq" inspect "$tmp/bad"
expect_error "malformed config" 4 "config.json"
sed 's/"gpt2"/"gpt9"/' $model/config.json > "$tmp/unknown/config.json"
cp $model/model.safetensors "$tmp/unknown"
run "$zq" inspect "$tmp/unknown"
expect_error "unknown architecture" 5 "gpt9"
cp $model/config.json "$tmp/missing"
run "$zq" inspect "$tmp/missing"
expect_code "no tensors" 3

if [ -w /dev/full ]; then
    "$zq" inspect $model > /dev/full 2> "$stderr"
    rc=$? ; : > "$stdout"
    expect_error "full disk" 7 "standard output"
    "$zq" quantize $model -o "$tmp/none" --dry-run --json > /dev/full 2> "$stderr" # more than stdio keeps until the end
    rc=$?
    expect_error "full disk at once" 7 "standard output"
else
    skip "full disk" "no /dev/full"
fi
"$zq" inspect $model >&- 2> "$stderr"
rc=$?
expect_error "closed standard output" 3 "standard output"
"$zq" tokenize $model <&- > "$stdout" 2> "$stderr"
rc=$?
expect_error "closed standard input" 3 "standard input"
yes 'some words' | tr '\n' '\0' | "$zq" tokenize --nul $model 2> "$stderr" | head -n 2 > "$stdout"
rc=${PIPESTATUS[2]}
expect "a reader that leaves ends us by SIGPIPE" [ "$rc" = 141 ]
expect "without a word" [ ! -s "$stderr" ]
finish
