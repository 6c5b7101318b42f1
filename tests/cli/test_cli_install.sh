# What cmake --install gives, and a program outside the tree that uses it.
. tests/cli/check.sh

if sanitized; then
    echo "skipped: a library with sanitizers cannot be linked into an ordinary program"
    exit 77
fi
prefix=$tmp/prefix
run cmake --install "$build" --prefix "$prefix"
expect_code "install" 0
for file in 'bin/zq' 'include/zeroquant.h' 'lib*/libzq.a' 'lib*/libzq.so' 'lib*/pkgconfig/zeroquant.pc' 'share/man/man1/zq.1'; do
    expect "$file" test -n "$(find "$prefix" -path "$prefix/${file%/*}*" -name "${file##*/}")"
done
library=$(dirname "$(find "$prefix" -name libzq.so)")
export PKG_CONFIG_PATH=$library/pkgconfig
run pkg-config --cflags --libs zeroquant
flags=$(cat "$stdout")
# shellcheck disable=SC2086 # a list of options
run cc -Wall -Werror examples/generate.c $flags -o "$tmp/generate"
expect_code "the example builds with pkg-config" 0
prompt="It was a dark night, and the"
run "$zq" generate $model -p "$prompt" -n 64 --quiet
cp "$stdout" "$tmp/by_zq"
run env LD_LIBRARY_PATH="$library" "$tmp/generate" $model "$prompt"
expect_same "and writes the same text" "$tmp/by_zq" "$stdout"
if [ -n "$(find "$prefix" -name libzq_cuda_host.so)" ]; then
    run "$zq" quantize $model -o "$tmp/w8a8" --quiet
    run env PATH="$prefix/bin:$PATH" zq generate "$tmp/w8a8" -p "$prompt" -n 1 --device cuda-host
    expect_code "an installed program finds its plug-in" 0
fi
finish
