#!/bin/bash
# kill -9 at random moments of zq quantize --lkd, then --resume: the same bytes as an undisturbed run, of every file but the page that tells of
# time. tests/cli/test_cli_lkd.sh is the short form; this one takes a few minutes.
#
#   tests/kill-loop.sh [ZQ [KILLS [SEED]]]      default build/zq, 50 kills for each method
set -u
cd "$(dirname "$0")/.."
zq=$(realpath -m "${1:-build/zq}") kills=${2:-50}
RANDOM=${3:-1}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
for method in paper fast full; do
    run=("$zq" quantize models/novels --scheme w4/8a8 --lkd $method --data models/novels/heldout.txt --samples 8 --length 32 --batch 4 --quiet)
    [ $method = fast ] || run+=(--iters 20)
    begin=$(date +%s%N)
    "${run[@]}" -o "$work/whole" --force || exit 1
    span=$((($(date +%s%N) - begin) / 1000000))
    n=0 n_runs=0 n_resumed=0
    while [ $n -lt "$kills" ]; do
        rm -rf "$work/killed"
        finished=
        while [ -z "$finished" ] && [ $n -lt "$kills" ]; do
            "${run[@]}" -o "$work/killed" --resume &
            sleep "$(awk -v ms=$((RANDOM % (span / 2 + 1))) 'BEGIN { print ms / 1000 }')"
            kill -9 $! 2> /dev/null
            wait $! 2> /dev/null
            case $? in
            137) n=$((n + 1)) ;;
            0) finished=1 ;;
            *) echo "$method: a run failed by itself"; failed=1 ;;
            esac
            [ ! -s "$work/killed.partial/journal.json" ] || n_resumed=$((n_resumed + 1))
        done
        "${run[@]}" -o "$work/killed" --resume || failed=1
        n_runs=$((n_runs + 1))
        if ! diff -r -x zq-report.html "$work/whole" "$work/killed" || [ -e "$work/killed.partial" ]; then
            echo "$method: run $n_runs ended in other bytes"
            failed=1
        fi
    done
    echo "$method: $n kills over $n_runs runs, $n_resumed of them with finished blocks: $([ $failed = 0 ] && echo 'the same bytes' || echo FAILED)"
done
exit $failed
