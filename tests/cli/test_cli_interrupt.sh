# A quantization that is stopped politely, or killed, and continued: the output appears whole, with the bytes of an undisturbed run.
. tests/cli/check.sh

run "$build/make-checkpoint" opt "$tmp/model" --layers 12 --width 1024 --heads 16 --vocab 1000 --length 128
expect_code "a model that takes a while" 0
quantized=$tmp/quantized
quantize=("$zq" quantize "$tmp/model" -o "$quantized" --scheme w4/8a8)
sums() { (cd "$1" && sha256sum -- *) | grep -v zq-report.html; } # which tells of time and memory

run "${quantize[@]}"
expect_code "undisturbed" 0
sums "$quantized" > "$tmp/whole"
rm -r "$quantized"

# disturb SIGNAL: starts a run and sends the signal as soon as a finished shard is there
disturb() {
    "${quantize[@]}" --quiet --resume > "$stdout" 2> "$stderr" &
    local job=$! tries=0
    until ls "$quantized.partial"/*.safetensors > /dev/null 2>&1 || [ $((tries += 1)) = 3000 ]; do sleep 0.01; done
    kill -s "$1" $job
    wait $job 2> /dev/null
    rc=$?
}
disturb TERM
expect_error "stopped by SIGTERM" 10 "--resume continues"
expect "no output yet" [ ! -e "$quantized" ]
disturb KILL
expect "killed" [ $rc = 137 -a ! -e "$quantized" ]
run "${quantize[@]}" --resume
expect_line "resumed" err 'parts of it by an earlier run'
sums "$quantized" > "$tmp/resumed"
expect_same "the same bytes" "$tmp/whole" "$tmp/resumed"
expect "nothing left beside" [ ! -e "$quantized.partial" ]
finish
