# kill -9 at any moment of zq quantize, then --resume: the same bytes as an undisturbed run. And: a full disk, two runs at once.
. tests/cli/check.sh

# 64 MB in, 34 MB out, three shards
run "$build/make-checkpoint" llama "$tmp/model" --layers 8 --width 512 --heads 8 --ffn 2048 --vocab 4000 --dtype bf16
expect_code "a model" 0
printf '{"version": "1.0"}' > "$tmp/model/tokenizer.json"
printf '{}' > "$tmp/model/generation_config.json"
out=$tmp/out
options=(--scheme w8a8 --embeddings int8)
quantize() { "$zq" quantize "$tmp/model" -o "$out" "${options[@]}" --quiet "$@"; }
# start OPTION...: the same in the background; $job is the program itself, not a shell around it
start() {
    "$zq" quantize "$tmp/model" -o "$out" "${options[@]}" --quiet "$@" > "$stdout" 2> "$stderr" &
    job=$!
}
# all files but the page, which tells of time and memory
sums() { (cd "$1" && find . -type f ! -name zq-report.html -exec sha256sum {} + | sort -k 2); }

now_ms() { echo $(($(date +%s%N) / 1000000)); }
begin=$(now_ms)
run quantize
span=$(($(now_ms) - begin))
expect_code "undisturbed, $span ms" 0
expect "in several shards" [ "$(find "$out" -name '*.safetensors' | wc -l)" -ge 3 ]
sums "$out" > "$tmp/new"
rm -r "$out"
options=(--scheme w4a8)
run quantize
expect_code "another output" 0
sums "$out" > "$tmp/old"
options=(--scheme w8a8 --embeddings int8)

# SIGKILL; killed=1 if the run had not ended by itself
kill_job() {
    kill -9 $job 2> /dev/null
    wait $job 2> /dev/null
    rc=$?
    killed=$((rc == 137))
}
# kill_after MS OPTION...
kill_after() {
    local ms=$1
    shift
    start "$@"
    sleep "$(printf '%d.%03d' $((ms / 1000)) $((ms % 1000)))"
    kill_job
}
# when the second shard is begun, the journal knows the first
await_shard() {
    local tries=0
    until ls "$out.partial"/*00002* > /dev/null 2>&1 || ! kill -0 $job 2> /dev/null || [ $((tries += 1)) = 2000 ]; do sleep 0.002; done
}

RANDOM=20
n_killed=0 n_resumed=0
rounds="1 2 3 4 5 6" at_least=6
if sanitized; then rounds="1 2" at_least=2; fi # what is killed where, the faster program tells
for round in $rounds; do
    rm -rf "$out"
    for attempt in 1 2 3; do # each continues what the one before has left
        if [ $attempt = 2 ]; then
            start --resume
            await_shard
            kill_job
        else
            kill_after $((RANDOM % (span / attempt + 20))) --resume
        fi
        n_killed=$((n_killed + killed))
        if [ $killed = 1 ] && [ -e "$out" ]; then # between its last step and its end
            sums "$out" > "$tmp/sums"
            cmp -s "$tmp/sums" "$tmp/new" || not_ok "round $round.$attempt" "a killed run left an incomplete output"
        fi
        [ ! -s "$out.partial/journal.json" ] || n_resumed=$((n_resumed + 1))
    done
    run quantize --resume
    sums "$out" > "$tmp/sums"
    expect_same "round $round: killed three times, resumed to the same bytes" "$tmp/new" "$tmp/sums"
    expect "round $round: nothing left beside" [ ! -e "$out.partial" ]
done
expect "kills hit runs at work ($n_killed), some with finished shards ($n_resumed)" [ $n_killed -ge $at_least -a $n_resumed -ge 1 ]

for round in ${rounds% 6}; do # --force: the old output or the new one, never a mixture
    rm -rf "$out"
    options=(--scheme w4a8)
    run quantize
    options=(--scheme w8a8 --embeddings int8)
    kill_after $((span / 3 + RANDOM % (span + 50))) --force
    sums "$out" > "$tmp/sums"
    if cmp -s "$tmp/sums" "$tmp/old" || cmp -s "$tmp/sums" "$tmp/new"; then ok "round $round: killed while replacing"
    else not_ok "round $round: killed while replacing" "neither the old output nor the new one"; fi
    run quantize --force
    sums "$out" > "$tmp/sums"
    expect_same "round $round: replaced" "$tmp/new" "$tmp/sums"
    expect "round $round: nothing left beside" [ ! -e "$out.partial" ]
done

# two at once
rm -rf "$out"
start --threads 1
tries=0
until [ -e "$out.partial" ] || [ $((tries += 1)) = 2000 ]; do sleep 0.005; done
kill -STOP $job
run quantize
expect_error "a second run at the same time" 8 "another run is writing"
run quantize --resume
expect_error "also with --resume" 8 "another run is writing"
kill -CONT $job
wait $job
rc=$?
sums "$out" > "$tmp/sums"
expect_same "the first one is not disturbed" "$tmp/new" "$tmp/sums"

# a full disk
mkdir "$tmp/disk"
if mount -t tmpfs -o size=64m tmpfs "$tmp/disk" 2> /dev/null; then
    trap 'umount "$tmp/disk"; rm -rf "$tmp"' EXIT
    out=$tmp/disk/out
    head -c 40M /dev/zero > "$tmp/disk/filler"
    run quantize
    expect_error "too little space, seen before the start" 7 "MiB free"
    expect "nothing is left" [ "$(ls -A "$tmp/disk")" = filler ]
    for resume in "" --resume; do
        rm -f "$tmp/disk/filler"
        start --threads 1 $resume
        await_shard
        kill -STOP $job
        head -c 100M /dev/zero > "$tmp/disk/filler" 2> /dev/null
        kill -CONT $job
        wait $job
        rc=$?
        expect_error "the disk fills up meanwhile${resume:+, with --resume}" 7 "No space left"
        expect "no output" [ ! -e "$out" ]
        if [ -z "$resume" ]; then
            expect "nothing is left" [ "$(ls -A "$tmp/disk")" = filler ]
        else
            expect "finished shards stay" ls "$out.partial"/*00001*.safetensors
            rm "$tmp/disk/filler"
            run quantize --resume
            sums "$out" > "$tmp/sums"
            expect_same "with space again, the same bytes" "$tmp/new" "$tmp/sums"
        fi
    done
else
    skip "a full disk" "only root can mount a small file system"
fi
finish
