# Sourced by the tests of the program, which get its path as $1 and run in the root of the repository.
# A case is `run COMMAND...` followed by expectations, which end with `ok NAME` or `not_ok NAME REASON`.
set -u
zq=$1
build=${ZQ_BUILD:-$(dirname "$zq")}
model=models/novels
shared=${ZQ_SHARED:-../shared}
tmp=$(mktemp -d)
stdout=$tmp/.stdout stderr=$tmp/.stderr # of the latest run
trap 'rm -rf "$tmp"' EXIT
failures=0
# the sanitized program is ten times slower, and linked with libraries of its own
sanitized() { grep -q __asan_init "$zq"; }

ok() { echo "[       OK ] $1"; }
not_ok() {
    echo "[  FAILED  ] $1"
    printf '    %s\n' "$2" "exit code $rc" "stdout: $(head -c 400 "$stdout" | tr -d '\0')" "stderr: $(head -c 400 "$stderr")"
    failures=$((failures + 1))
}

# Standard input of run: a file, empty by default.
input=/dev/null
run() {
    "$@" < "$input" > "$stdout" 2> "$stderr"
    rc=$?
}

# expect_code NAME CODE: exit code; an error must be one sentence on standard error and nothing on standard output
expect_code() {
    if [ "$rc" != "$2" ]; then not_ok "$1" "expected exit code $2"
    elif [ "$2" != 0 ] && [ -s "$stdout" ]; then not_ok "$1" "an error printed data"
    elif [ "$2" != 0 ] && [ "$(grep -c '^zq: ' "$stderr")" != 1 ]; then not_ok "$1" "an error is one line that begins with 'zq: '"
    else ok "$1"; fi
}
# expect_error NAME CODE TEXT: the same, and the sentence contains TEXT
expect_error() {
    if grep -qF -- "$3" "$stderr"; then expect_code "$1" "$2"; else not_ok "$1" "expected a message with '$3'"; fi
}
# expect_output NAME TEXT: success with exactly TEXT and a newline as output
expect_output() {
    printf '%s\n' "$2" > "$tmp/expected"
    expect_same "$1" "$tmp/expected" "$stdout"
}
# expect_line NAME FILE REGEX: success, and a line of out or err that matches
expect_line() {
    if [ "$rc" != 0 ]; then not_ok "$1" "expected success"
    elif grep -qE -- "$3" "$tmp/.std$2"; then ok "$1"
    else not_ok "$1" "expected a line like '$3' in std$2"; fi
}
# expect_same NAME FILE FILE: success, and both files are equal
expect_same() {
    if [ "$rc" != 0 ]; then not_ok "$1" "expected success"
    elif cmp -s "$2" "$3"; then ok "$1"
    else not_ok "$1" "differs from: $(head -c 400 "$2")"; fi
}
# expect NAME COMMAND...: the command succeeds
expect() {
    local name=$1
    shift
    if "$@" > /dev/null; then ok "$name"; else not_ok "$name" "fails: $*"; fi
}
skip() { echo "[  SKIPPED ] $1: skipped: $2"; }
# need_shared FOLDER: ends the test here if that part of the shared data is absent
need_shared() {
    [ -d "$shared/$1" ] && return
    skip "the rest" "no shared data"
    [ "$failures" != 0 ] || exit 77
    finish
}
# field NAME: a number or string of the JSON in stdout
field() { sed -n "s/.*\"$1\": \"\{0,1\}\([^,}\"]*\).*/\1/p" "$stdout" | head -n 1; }
# near A B TOLERANCE
near() { awk -v a="$1" -v b="$2" -v t="$3" 'BEGIN { d = a - b; if (d < 0) d = -d; exit !(a != "" && d <= t) }'; }

finish() { exit $((failures != 0)); }
