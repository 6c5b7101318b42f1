# tools/gpu-check.sh without a GPU: one sentence and its exit code; with the simulator in its place the script itself, which must see
# a planted fault.
. tests/cli/check.sh

run env CUDA_VISIBLE_DEVICES= tools/gpu-check.sh --bundle "$build" --results "$tmp/r.md" kernels
expect_error "no GPU" 5 "device cuda"
run tools/gpu-check.sh --bundle "$tmp" kernels
expect "no programs: exit code 3" [ "$rc" = 3 ]
run tools/gpu-check.sh
expect "no stage: how to use it" grep -q 'STAGE     kernels' "$stderr"
if [ ! -e "$build/libzq_cuda_host.so" ]; then
    skip "the rest" "no C++ compiler, so no simulated device"
    finish
fi
if sanitized; then
    skip "the rest" "the simulator is slow here"
    finish
fi
run "$build/zqcheck" --cuda:7 --plugin "$build/libzq_cuda_host.so"
expect "zqcheck --cuda:7 asks for the eighth device" grep -q 'one simulated device, number 0' "$stderr"
run "$build/zqcheck" --cuda:x
expect "zqcheck --cuda:x is no option" [ "$rc" = 2 ]
run tools/gpu-check.sh --device cuda-host --bundle "$build" --results "$tmp/r.md" kernels
expect_code "the stage kernels" 0
run tools/gpu-check.sh --device cuda-host --bundle "$build" --results "$tmp/r.md" lkd
expect_code "the stage lkd" 0
run tools/gpu-check.sh --no-sanitizer --device cuda-host --bundle "$build" --results "$tmp/r.md" kernels
expect "without compute-sanitizer a row says so" grep -q '| compute-sanitizer | skipped, as asked |' "$stdout"
expect "a section per stage, written once, and that of the numbers" [ "$(grep -c '^## ' "$tmp/r.md")" = 3 ]
expect "the other section is kept" grep -q 'LKD (full) of models/novels to w4a8, on the processor | right' "$tmp/r.md"
expect "blocks solved and trained on the device are held against the processor's" [ "$(grep -c 'against the processor | right .* 0 worse' "$tmp/r.md")" = 2 ]
expect "two blocks are timed" [ "$(grep -c 'two blocks in .* extrapolated' "$tmp/r.md")" = 3 ]
run tools/gpu-check.sh --device cuda-host --bundle "$build" --results "$tmp/r.md" bench
expect_code "the stage bench" 0
expect "a simulator has no time, so no number is measured" [ "$(grep -c '| unmeasured |' "$tmp/r.md")" = 14 ]
expect "no PyTorch: the row says so" grep -q 'skipped: PyTorch was not at hand' "$tmp/r.md"
expect "those numbers are a section, written once" [ "$(grep -c '^## The numbers to reach' "$tmp/r.md")" = 1 ]

mkdir "$tmp/faulty"
cp "$build/zq" "$build/zqcheck" "$build/check-device" "$tmp/faulty/"
cp "$build/libzq_cuda_mutants.so" "$tmp/faulty/libzq_cuda_host.so"
run env ZQ_MUTANT=5 tools/gpu-check.sh --device cuda-host --bundle "$tmp/faulty" --results "$tmp/r.md" kernels
expect "a fault in a kernel: exit code 1" [ "$rc" = 1 ]
expect "and it is in the results" grep -q 'WRONG' "$tmp/r.md"
finish
