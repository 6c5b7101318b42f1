#!/bin/bash
# check-style.sh [BUILD]: the rules that a machine can check, as CONTRIBUTING.md gives them. Prints each breach as file:line: rule.
# Rules about compiled code need a release build (default: build).
set -u
cd "$(dirname "$0")/.." || exit 1
build=${1:-build}
breaches=0

# Reads breaches from standard input.
report() {
    while read -r line; do
        echo "$line"
        breaches=$((breaches + 1))
    done
}

# Folders of src/ from the bottom up: what each may include besides itself.
declare -A below
below[base]=""
below[quant]="base"
below[kernels]="base quant"
below[cuda]="base quant kernels"
below[ops]="base quant kernels cuda"
below[checkpoint]="base quant"
below[text]="base quant"
below[model]="base quant kernels cuda ops checkpoint text"
below[compress]="${below[model]} model distill eval"
below[eval]="${below[model]} model"
below[bench]="${below[model]} model"
below[distill]="${below[model]} model"

files() { find "$@" '(' -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' -o -name '*.cpp' ')' | sort; }

# include_lines FOLDER: "file:line: included" for includes in quotes
include_lines() { files "$1" | xargs grep -Hno '^ *# *include *"[^"]*"' | sed 's/: *# *include *"\([^"]*\)"/: \1/'; }

check_layers() {
    local folder target
    while read -r place target; do
        folder=${place#src/}
        folder=${folder%%/*}
        [ "$target" = zeroquant.h ] && continue
        if [ -z "${below[$folder]+known}" ]; then
            echo "$place folder src/$folder has no place in the dependency order"
        elif [[ $target != */* ]]; then
            echo "$place include \"$target\" with its folder: \"$folder/$target\""
        elif [[ " $folder ${below[$folder]} " != *" ${target%%/*} "* ]]; then
            echo "$place src/$folder must not depend on src/${target%%/*}"
        fi
    done < <(include_lines src)
    while read -r place target; do
        [ "$target" = zeroquant.h ] || [[ $target != */* && -e cli/$target ]] || echo "$place the program may include zeroquant.h only, not \"$target\""
    done < <(include_lines cli)
}

check_own_header_first() {
    local file header first
    for header in $(files src cli | grep '\.h$'); do
        file=${header%.h}.c
        [ -e "$file" ] || continue
        first=$(grep -m 1 -o '^#include "[^"]*"' "$file" | sed 's/.*"\(.*\)"/\1/')
        [ "${first##*/}" = "${header##*/}" ] || echo "$file:1: includes \"$first\" before its own header"
    done
}

check_text() {
    # shellcheck disable=SC2016 # awk's own fields
    files src cli include tests tools examples | xargs awk '
        FNR == 1 {
            if (name) end_of_file()
            name = FILENAME; start = 0
            if (!/^\/\*/) print FILENAME ":1: does not open with a comment that says what it is for"
        }
        /[ \t]$/                          { print FILENAME ":" FNR ": trailing space" }
        /\t/                              { print FILENAME ":" FNR ": tab" }
        length($0) > 150                  { print FILENAME ":" FNR ": longer than 150 columns" }
        /TODO|FIXME/                      { print FILENAME ":" FNR ": unfinished business" }
        FILENAME ~ /^(src|cli)/ && /[^a-z_](strcpy|strcat|sprintf|vsprintf|gets|alloca|atoi|atof|rand)\(/ {
            print FILENAME ":" FNR ": function that cannot be used safely"
        }
        /^{/                              { start = FNR - 1 }
        /^}/ && start                     { if (FNR - start > 100) print FILENAME ":" start ": function of " FNR - start " lines"; start = 0 }
        { lines = FNR }
        function end_of_file()            { if (lines > 800) print name ":" lines ": file of more than 800 lines" }
        END                               { end_of_file() }
    '
}

check_public_header() {
    local file=include/zeroquant.h
    gcc -x c -std=c11 -Wall -Wextra -Wpedantic -Werror -fsyntax-only $file || echo "$file:1: does not compile alone as C11"
    g++ -x c++ -std=c++11 -Wall -Wextra -Wpedantic -Werror -fsyntax-only $file || echo "$file:1: does not compile alone as C++"
}

# Functions of the header against symbols of the shared library.
check_exports() {
    diff <(sed -n 's/^ZQ_API .*[ *]\(zq_[a-z0-9_]*\)(.*/\1/p' include/zeroquant.h | sort) \
         <(nm -D --defined-only "$build/libzq.so" | awk '{ print $3 }' | sort) |
        sed -n 's|^< \(.*\)|include/zeroquant.h:1: \1 is declared, but libzq.so does not export it|p
                s|^> \(.*\)|include/zeroquant.h:1: libzq.so exports \1, which is not declared|p'
}

# What the library calls: no printing, no ending of the process, one place that allocates.
check_symbols() {
    nm -A -u "$build/libzq.a" 2>/dev/null | awk '
        { split($1, place, ":"); object = place[2]; sub(/\.o$/, "", object); symbol = $NF; sub(/@.*/, "", symbol) }
        symbol ~ /^(_?exit|_Exit|quick_exit|abort|__assert_fail|perror|puts|putchar|putc|fputs|fputc|fwrite|stdout|stderr)$/ ||
        symbol ~ /^(__)?v?f?printf(_chk)?$/ { print object ": the library must not call " symbol }
        symbol ~ /^(malloc|calloc|realloc|aligned_alloc|posix_memalign|strdup|__strdup|strndup|asprintf|__asprintf_chk)$/ && object != "alloc.c" {
            print object ": memory comes from base/alloc.h, not from " symbol }
        symbol == "free" && object != "alloc.c" { frees[object] }
        symbol == "scandir" { scans[object] } # which hands out memory of libc
        END { for (object in frees) if (!(object in scans)) print object ": memory goes back through zq_free, not free" }'
}

report < <(check_layers)
report < <(check_own_header_first)
report < <(check_text)
report < <(check_public_header)
if [ -e "$build/libzq.a" ] && [ -e "$build/libzq.so" ]; then
    report < <(check_exports)
    report < <(check_symbols)
else
    report <<< "$build: no libzq.a and libzq.so to check; build first"
fi
if [ $breaches = 0 ]; then echo "style: no breach"; else echo "style: $breaches breaches"; fi
[ $breaches = 0 ]
