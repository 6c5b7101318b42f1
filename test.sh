#!/bin/sh
# Builds twice (release; ASan and UBSan), runs every test in both through CTest, and checks the written rules of the source.
# The last line counts: cases of cmocka programs one by one, every other test as one. What is skipped is never a pass.
set -u
cd "$(dirname "$0")" || exit 1

passed=0 failed=0 skipped=0

finish() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" = 0 ] && [ "$passed" != 0 ]
    exit
}

give_up() {
    echo "$1" >&2
    failed=$((failed + 1))
    finish
}

# count CONSOLE LOG: "passed failed skipped". What CTest printed tells which programs passed, its log of their outputs which cases.
count() {
    awk '
        /^ *[0-9]+\/[0-9]+ Test +#[0-9]+: / && FILENAME == ARGV[1] {
            sub(/^.*Test +#[0-9]+: /, "")
            status[$1] = /\*\*\*Skipped/ ? "skip" : / Passed / ? "pass" : "fail"
        }
        /^[0-9]+\/[0-9]+ Testing: /  { name = $3; again = 0 }
        /^\[==========\] .* run\.$/  { again = 1 }   # cmocka lists failed and skipped cases a second time
        /^\[       OK \]/ && !again  { ok[name]++ }
        /^\[  SKIPPED \]/ && !again  { skip[name]++ }
        /^\[  FAILED  \]/ && !again  { bad[name]++ }
        END {
            for (name in status) {
                if (status[name] == "fail" && !bad[name]) bad[name] = 1
                if (ok[name] + skip[name] + bad[name] == 0) {
                    if (status[name] == "skip") skip[name] = 1
                    else ok[name] = 1
                }
                p += ok[name]
                f += bad[name]
                s += skip[name]
            }
            print p + 0, f + 0, s + 0
        }' "$1" "$2"
}

# run PRESET DIRECTORY: configures, builds, tests, and adds to the counts
run() {
    echo "== $1: build"
    if ! { cmake --preset "$1" > /dev/null && cmake --build --preset "$1"; }; then give_up "the $1 build failed"; fi
    echo "== $1: tests"
    rm -f "$2/Testing/Temporary/LastTest.log"
    { ctest --preset "$1" -j "$(nproc)" --output-on-failure; echo "ctest ended with $?"; } 2>&1 | tee "$2/test-output.txt"
    # shellcheck disable=SC2046 # three words
    set -- "$1" "$2" $(count "$2/test-output.txt" "$2/Testing/Temporary/LastTest.log")
    passed=$((passed + $3)) failed=$((failed + $4)) skipped=$((skipped + $5))
    if [ "$4" = 0 ] && ! tail -n 1 "$2/test-output.txt" | grep -qx "ctest ended with 0"; then
        give_up "CTest itself failed"
    fi
}

tools/install-deps.sh --tests || give_up "packages are missing"
run release build
run sanitize build/sanitize

echo "== rules of the source"
if tools/check-style.sh build; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
finish
