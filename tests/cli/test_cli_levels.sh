# Every ISA level of this machine writes the same bytes: zq forward on the quantized models of ../shared/models, and on the others after
# they are quantized. The prompt is long enough for the kernels of many tokens.
. tests/cli/check.sh
need_shared models

ids=$(seq -s, 3 39)
compare() { # compare NAME DIR
    local level
    for level in c avx2 avxvnni avx512vnni amx i8mm; do # those that the machine lacks fall back to lower ones
        ZQ_ISA=$level run "$zq" forward "$2" --ids "$ids" -o "$tmp/$level"
        expect_same "$1: $level and c" "$tmp/c" "$tmp/$level"
    done
}
n=0
for dir in "$shared"/models/*/; do
    [ -e "$dir/config.json" ] || continue
    name=$(basename "$dir")
    n=$((n + 1))
    if grep -q quantization_config "$dir/config.json"; then
        compare "$name" "$dir"
        continue
    fi
    sanitized && continue
    run "$zq" quantize "$dir" -o "$tmp/$name" --scheme w4/8a8 --lkd off --quiet
    expect_code "$name is quantized" 0
    compare "$name" "$tmp/$name"
    rm -rf "$tmp/$name"
done
expect "fourteen models are there" [ "$n" = 14 ]
finish
