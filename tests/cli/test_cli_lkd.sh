#!/bin/bash
# zq quantize --lkd: what a distilled directory is, whoever interrupts it and however many threads make it. $1: the program.
set -u
zq=$1
model=models/novels
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
fail() { echo "FAIL: $1"; failed=1; }
# all files but the page, which tells of time and memory
same() { diff -r -x zq-report.html "$@"; }

settings=(--scheme w4/8a8 --group rows:4 --lkd paper --data "$model/heldout.txt" --samples 6 --length 16 --iters 4 --batch 2 --lr 1e-4 --quiet)
sanitized() { grep -q __asan_init "$zq"; }
if sanitized; then # twenty times slower: two blocks learn, and what only compares bits is left to the other build
    settings+=(--ignore '.*h\.[2-5]\..*')
fi
distil() { "$zq" quantize $model -o "$work/$1" "${settings[@]}" "${@:2}"; }

# shards that the journal of an unfinished output knows
shards_of() {
    local n
    n=$(sed -n 's/.*"shards": \([0-9]*\).*/\1/p' "$work/$1.partial/journal.json" 2> /dev/null)
    echo "${n:-0}"
}
# kill_at N NAME OPTION...: goes on with a run until its journal knows N shards, kills it, and waits until it is gone, so that the next one finds
# nobody at work
n_killed=0
kill_at() {
    local n=$1 name=$2
    shift 2
    "$zq" quantize $model -o "$work/$name" "${settings[@]}" "$@" --resume 2> /dev/null &
    until [ -e "$work/$name.partial" ] && [ "$(shards_of "$name")" -ge "$n" ] || ! kill -0 $! 2> /dev/null; do sleep 0.005; done
    kill -KILL $! 2> /dev/null
    wait $! 2> /dev/null
    [ $? != 137 ] || n_killed=$((n_killed + 1))
}

distil whole --threads 2 || fail "a run"
if ! sanitized; then
    distil alone --threads 1 || fail "a run on one thread"
    same "$work/whole" "$work/alone" > "$work/diff" || { cat "$work/diff"; fail "threads change the output"; }
fi

# killed at work on many blocks: nothing is lost, and the end is the same
for n in 0 1 2 4 6; do kill_at $n killed; done
[ $n_killed -ge 3 ] || fail "only $n_killed of 5 runs were killed at work"
distil killed --resume || fail "a resumed run"
same "$work/whole" "$work/killed" > "$work/diff" || { cat "$work/diff"; fail "interruptions change the output"; }
distil killed --resume || fail "--resume on a finished output"
[ -e "$work/killed.partial" ] && fail "something is left beside the output"
"$zq" quantize $model -o "$work/killed" "${settings[@]}" --seed 1 --resume 2> "$work/err" && fail "another seed was resumed"
grep -q "seed is 0 there, 1 here" "$work/err" || fail "the sentence names no seed: $(cat "$work/err")"

# every block is at least as good on the held-out samples as round-to-nearest
never_worse() {
    awk '/"before"/ { gsub(/,/, ""); before = $2 } /"after"/ { gsub(/,/, ""); after = $2 } /"layer"/ { n++ }
         /"before"|"after"/ && before != "" && after != "" { if (after > before) bad++; if (after < before) good++; before = after = "" }
         END { exit !(n == 6 && good && !bad) }' "$work/$1/zq-report.json" || fail "blocks in zq-report.json of $1"
}
never_worse whole
"$zq" quantize $model -o "$work/nearest" --scheme w4/8a8 --group rows:4 --quiet
cmp -s "$work/nearest/model-00001-of-00001.safetensors" "$work/whole/model-00002-of-00007.safetensors" && fail "nothing was learned"

# sources, and what is wrong with options
distil closed --lkd fast || fail "--lkd fast"
if ! sanitized; then
    distil again --lkd fast --threads 1 || fail "--lkd fast on one thread"
    same "$work/closed" "$work/again" > "$work/diff" || { cat "$work/diff"; fail "threads change the output of fast"; }
fi

# `full` begins with what `fast` gives: interrupted and on any number of threads it comes to the same, and a rate that is far too high to nothing
trained=(--lkd full --iters 3)
distil full "${trained[@]}" || fail "--lkd full"
if ! sanitized; then
    distil full-alone "${trained[@]}" --threads 1 || fail "--lkd full on one thread"
    same "$work/full" "$work/full-alone" > "$work/diff" || { cat "$work/diff"; fail "threads change the output of full"; }
    for n in 0 2 5; do kill_at $n full-killed "${trained[@]}"; done
    distil full-killed "${trained[@]}" --resume || fail "a resumed run of full"
    same "$work/full" "$work/full-killed" > "$work/diff" || { cat "$work/diff"; fail "interruptions change the output of full"; }
    distil wild "${trained[@]}" --lr 0.5 || fail "--lkd full --lr 0.5"
    for file in "$work/closed"/*.safetensors; do cmp "$file" "$work/wild/${file##*/}" || fail "a bad rate left its mark"; done
    [ "$(grep -c '"fell_back": true' "$work/wild/zq-report.json")" = 6 ] || fail "a bad rate is not told of"
fi

# --math fast: products of training in BF16 where there are units for them, else those of exact
tensors_differ() { for file in "$work/$1"/*.safetensors; do cmp -s "$file" "$work/$2/${file##*/}" || return 0; done; return 1; }
if ! sanitized; then
    for method in paper full; do
        distil fast-$method --lkd $method --iters 3 --math fast --threads 2 || fail "--lkd $method --math fast"
        distil fast-$method-alone --lkd $method --iters 3 --math fast --threads 1 || fail "--lkd $method --math fast on one thread"
        same "$work/fast-$method" "$work/fast-$method-alone" > "$work/diff" || { cat "$work/diff"; fail "threads change the output of --math fast"; }
        never_worse fast-$method
    done
    if grep -q avx512_bf16 /proc/cpuinfo; then tensors_differ full fast-full || fail "--math fast changes nothing"; fi
    ZQ_ISA=avx2 distil plain-full "${trained[@]}" --math fast 2> "$work/err" || fail "--math fast without BF16"
    tensors_differ full plain-full && fail "--math fast without BF16 is not exact"
    ZQ_ISA=avx2 "$zq" quantize $model -o "$work/planned" "${settings[@]}" --math fast --dry-run > "$work/plan"
    grep -q "no units for BF16" "$work/plan" || fail "the plan does not say that --math fast changes nothing"
fi

# few bits: a directory that only this program reads, every method makes one, and it is better than it was
study=("${settings[@]}" --scheme w2/8a16 --iters 1 --force)
from_original() {
    "$zq" quantize $model -o "$work/study" "${study[@]}" --lkd "$1" || fail "--lkd $1 with 2 bits"
    "$zq" eval "$work/study" --against $model --text $model/heldout.txt --limit 512 --json --quiet | sed -n 's/.*"kl": \([^,]*\),.*/\1/p'
}
nearest=$(from_original off)
for method in paper full fast; do kl=$(from_original $method); done
awk -v a="$kl" -v b="$nearest" 'BEGIN { exit !(a > 0 && a < 0.2 * b) }' || fail "2 bits: KL $kl, $nearest as rounded to nearest"
grep -q '"quant_method": "zq-study"' "$work/study/config.json" || fail "a study does not say so"

# streams on disk: less memory, the same bytes
wide=(--samples 32 --length 128 --lkd fast --batch 2 --ignore '.*h\.[1-5]\..*') # one block learns
distil memory "${wide[@]}" || fail "streams in memory"
settings_aloud=("${settings[@]/--quiet/}")
plan() { "$zq" quantize $model -o "$work/disk" ${settings_aloud[@]} "${wide[@]}" --dry-run "$@" 2>&1; }
planned=$(plan | sed -n 's/^ *estimates *\([0-9]*\).* MB of memory.*/\1/p')
bound=$((planned - 8))M # the streams take 12 MB; what a program takes without them differs from build to build
distil disk "${wide[@]}" --memory $bound || fail "streams on disk"
same "$work/memory" "$work/disk" > "$work/diff" || { cat "$work/diff"; fail "--memory changes the output"; }
plan --memory $bound | grep -q "kept on disk" ||
    fail "nothing says that streams lie on disk"

# what a run takes is what its plan says, less at most the 6 MiB that a plan sets aside for all that is small (and half a megabyte of pages of the
# program that a busy machine takes back), and below the bound. Two blocks learn.
memory_of() { sed -n 's/.*"memory_bytes": \([0-9]*\).*/\1/p' | tail -n 1; }
# bounded METHOD SAVED: with SAVED MB less than with the streams in memory, which take 23
bounded() {
    local how=(--lkd "$1" --samples 64 --length 128 --iters 1 --batch 2 --ignore '.*h\.[2-5]\..*' --force --json) free limit planned taken
    free=$(distil bounded "${how[@]}" --dry-run | memory_of)
    limit=$((free - $2 * 1000000))
    planned=$(distil bounded "${how[@]}" --memory $limit --dry-run | memory_of)
    taken=$(distil bounded "${how[@]}" --memory $limit | memory_of)
    [ "$taken" -le $limit ] || fail "$1 takes $taken bytes under a bound of $limit"
    [ "$taken" -le "$planned" ] && [ "$taken" -ge $((planned - 6800000)) ] || fail "$1 takes $taken bytes, the plan says $planned"
}
if ! sanitized; then # shadow memory is in nobody's plan
    bounded fast 15
    bounded full 15
    bounded paper 15
fi

# a time budget chooses the steps once: a resumed run goes on with them, whatever it would have measured
budget=(--lkd paper --iters 5000 --time-budget 0.02)
"$zq" quantize $model -o "$work/budget" ${settings_aloud[@]} "${budget[@]}" --samples 8 --length 32 2> "$work/err" || fail "--time-budget"
grep -q "iterations of each block fit into the time budget" "$work/err" || fail "nothing tells how many fit"
n=$(sed -n 's/.*"fitted_iterations": \([0-9]*\).*/\1/p' "$work/budget/zq-report.json")
[ "${n:-0}" -ge 1 ] && [ "$n" -lt 5000 ] || fail "$n iterations fit into a second"
kill_at 2 budget-killed "${budget[@]}" --samples 8 --length 32
sed -i "s/\"fitted_iterations\": [0-9]*/\"fitted_iterations\": 7/" "$work/budget-killed.partial/journal.json"
grep -q '"fitted_iterations": 7' "$work/budget-killed.partial/journal.json" || fail "the journal does not know the iterations"
distil budget-killed "${budget[@]}" --samples 8 --length 32 --resume || fail "a resumed run with a budget"
grep -q '"fitted_iterations": 7' "$work/budget-killed/zq-report.json" || fail "a resumed run measures anew"

# the other loss: it is taken, and leads elsewhere
distil kl --loss kl || fail "--loss kl"
grep -q '"loss": "kl"' "$work/kl/zq-report.json" || fail "the report does not name the loss"
cmp -s "$work/kl/model-00002-of-00007.safetensors" "$work/whole/model-00002-of-00007.safetensors" && fail "--loss kl changes nothing"
awk '/"before"/ { gsub(/,/, ""); before = $2 } /"after"/ { gsub(/,/, ""); if ($2 < before) good++; if ($2 > before) bad++ }
     END { exit !(good && !bad) }' "$work/kl/zq-report.json" || fail "--loss kl learns nothing"

# every option counts: one block learns something else
if ! sanitized; then
    one=(--ignore '.*h\.[1-5]\..*' --force)
    distil base "${one[@]}"
    for option in '--samples 5' '--length 12' '--iters 3' '--batch 1' '--lr 2e-4' '--holdout 0.4' '--seed 1'; do
        # shellcheck disable=SC2086 # an option and its value
        distil other "${one[@]}" $option || fail "$option"
        tensors_differ base other || fail "$option changes nothing"
    done
fi

for source in self random "random:1,$model/heldout.txt:2"; do
    distil sources --data "$source" --iters 1 --force || fail "--data $source"
done
refused() {
    local code=$1 words=$2
    shift 2
    "$zq" quantize $model -o "$work/refused" --quiet "$@" 2> "$work/err"
    [ $? = "$code" ] || fail "exit code of $*"
    grep -q -- "$words" "$work/err" || fail "$*: $(cat "$work/err")"
    [ -e "$work/refused" ] && fail "$* left an output"
}
refused 2 "valid are off, paper, fast, full$" --lkd papre
refused 2 "valid are gptq, awq$" --lkd off --method paper
refused 2 "stands alone" --lkd paper --method gptq
refused 3 "cannot open" --lkd paper --data "$work/no-such-file"
refused 2 "is no source" --lkd paper --data ":1"
refused 9 "above the model's limit" --lkd paper --length 100000
refused 2 "valid are mse and kl" --lkd paper --loss l1
refused 2 "full knows one loss, mse" --lkd full --loss kl
refused 2 "leave none to learn from" --lkd paper --samples 1
refused 2 "above 0 and below 1, not '2'" --lkd paper --holdout 2
refused 2 "above 0 and below 1, not '0'" --lkd paper --holdout 0
refused 2 "have it as --study w16a8" --scheme w16a8
remarked() {
    "$zq" quantize $model -o "$work/remarked" --dry-run "${@:2}" 2>&1 | grep -q -- "$1" || fail "${*:2} changes nothing, and nothing says so"
}
remarked "Nothing is learned without --lkd" --iters 4
remarked "Nothing is learned without --lkd" --lkd off --data random
remarked "fast is solved and makes no steps" --lkd fast --lr 1e-3
"$zq" quantize $model -o "$work/remarked" --dry-run --lkd fast --samples 4 2>&1 | grep -q "change nothing" && fail "a remark without a reason"
refused 2 "no iterations" --lkd fast --time-budget 1
refused 6 "of memory" --lkd paper --memory 16M
[ $failed = 0 ] && echo "distillation: all checks passed"
exit $failed
