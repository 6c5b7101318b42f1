#!/bin/bash
# Checks and measures the GPU code on a GPU, stage by stage, and writes what was found to docs/gpu-results.md.
#
#   tools/gpu-check.sh [OPTION...] STAGE [MODEL...]
#
#   STAGE     kernels   every operator against plain C, in bits; then the same under compute-sanitizer (memcheck, racecheck, synccheck), where that exists
#             models    models quantized in each scheme, exact and fast, with caches of each format: nll, greedy text and batches against this machine's processor
#             bench     rates of operators against the card's own limits; whole models
#             lkd       distillation with blocks solved and trained on the GPU, against the same on the processor; two blocks of GPT-350M's shape timed; the result runs
#             all       one after the other
#   MODEL     model directories, all together at most 50 MiB; default: models/novels
#   --bundle PATH     programs: an archive made by tools/gpu-bundle.sh, or a folder; default: build/gpu-bundle.tar.gz if it is there, else build
#   --device D        cuda (default), cuda:N; cuda-host goes through the motions on the simulator, with a fraction of the work
#   --no-sanitizer    kernels without compute-sanitizer, which takes two thirds of that stage
#   --results FILE    default docs/gpu-results.md; a stage replaces its own section and keeps the others; bench and lkd also replace
#                     "The numbers to reach", which tools/gpu-numbers.awk computes from their sections
#
# Needs bash, coreutils, awk, sed, grep, tar and the driver; no compiler, no other library. Where python3 (or ZQ_PYTHON) has torch and transformers and sees a
# GPU, bench runs bench/gpu_torch.py, too. Each stage ends within nine minutes. cuBLASLt is looked for where
# LD_LIBRARY_PATH and the system say, then in the toolkit: CUDA_HOME, CUDA_PATH, that of nvcc in PATH, /usr/local/cuda*.
# Exit codes: 0 all is right; 1 something is wrong; 5 there is no GPU (or no plug-in); 2, 3 options, files.
set -u
cd "$(dirname "$0")/.." || exit 3
device=cuda results=docs/gpu-results.md bundle='' stage='' models=() sanitizer=yes
while [ $# -gt 0 ]; do
    case $1 in
        --bundle) bundle=$2; shift ;;
        --device) device=$2; shift ;;
        --results) results=$2; shift ;;
        --no-sanitizer) sanitizer='' ;;
        kernels | models | bench | lkd | all) [ -z "$stage" ] && stage=$1 || models+=("$1") ;;
        -*) echo "$0: unknown option $1" >&2; exit 2 ;;
        *) models+=("$1") ;;
    esac
    shift
done
[ -n "$stage" ] || { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
[ ${#models[@]} -gt 0 ] || models=(models/novels)
[ "$(du -cLsm "${models[@]}" | tail -n 1 | cut -f 1)" -le 50 ] || { echo "$0: the models have more than 50 MiB" >&2; exit 2; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ -z "$bundle" ]; then if [ -e build/gpu-bundle.tar.gz ]; then bundle=build/gpu-bundle.tar.gz; else bundle=build; fi; fi
if [ -f "$bundle" ]; then
    mkdir "$work/bundle" && tar -C "$work/bundle" -xzf "$bundle" || exit 3
    bundle=$work/bundle
fi
[ -x "$bundle/zq" ] || { echo "$0: $bundle holds no programs" >&2; exit 3; }
libraries=${LD_LIBRARY_PATH-} # as other programs are to have it
if [ -d "$bundle/lib" ]; then export LD_LIBRARY_PATH=$bundle/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}; fi
# toolkit_libraries: the first folder of a toolkit that has cuBLASLt
toolkit_libraries() {
    local home folder nvcc
    nvcc=$(command -v nvcc)
    for home in "${CUDA_HOME-}" "${CUDA_PATH-}" "${nvcc%/bin/nvcc}" /usr/local/cuda /usr/local/cuda-*; do
        [ -n "$home" ] && for folder in "$home"/lib64 "$home"/targets/*/lib; do
            if compgen -G "$folder/libcublasLt.so*" > /dev/null; then echo "$folder"; return; fi
        done
    done
}
folder=$(toolkit_libraries)
if [ -n "$folder" ]; then export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder; fi
zq=$bundle/zq
case $device in
    cuda-host) zqcheck=("$bundle/zqcheck" --cuda-host --plugin "$bundle/libzq_cuda_host.so") ;;
    *) zqcheck=("$bundle/zqcheck" "--$device" --plugin "$bundle/libzq_cuda.so") ;;
esac

# one sentence and its exit code where there is no GPU
"$zq" quantize models/novels -o "$work/probe" --scheme w8a8 --quiet > /dev/null || exit 3
"$zq" forward "$work/probe" --ids 1,2 -o "$work/x" --device "$device" --quiet > /dev/null 2> "$work/said"
code=$?
[ $code = 0 ] || { cat "$work/said" >&2; exit $code; }

wrong=0 deadline=0
left() { echo $((deadline > SECONDS ? deadline - SECONDS : 1)); }
# try NAME COMMAND...: runs it within what is left of the stage; prints a row of a table, and the end of what it said if it failed
try() {
    local name=$1 began=$SECONDS code
    shift
    if [ "$(type -t "$1")" = function ]; then "$@" > "$work/out" 2>&1; else timeout "$(left)" "$@" > "$work/out" 2>&1; fi
    code=$?
    if [ $code = 0 ]; then echo "| $name | right | $((SECONDS - began)) s | $(tail -n 1 "$work/out") |"
    else
        wrong=1
        echo "| $name | WRONG, exit code $code$([ $code = 124 ] && echo ': out of time') | $((SECONDS - began)) s | $(grep -m 1 -E 'FAIL|ERROR|zqcheck:' "$work/out") |"
        echo "$name:" >&2
        tail -n 30 "$work/out" >&2
    fi
}

stage_kernels() {
    local seeds=(1 2 3 4 5) tool
    [ "$device" = cuda-host ] && seeds=(1)
    echo "| what | result | time | |"
    echo "|---|---|---|---|"
    for seed in "${seeds[@]}"; do try "operators against plain C, seed $seed" "${zqcheck[@]}" --seed "$seed"; done
    if [ -z "$sanitizer" ]; then
        echo "| compute-sanitizer | skipped, as asked | | |"
        return
    fi
    if [ "$device" = cuda-host ] || ! command -v compute-sanitizer > /dev/null; then
        echo "| compute-sanitizer | skipped: it is not here | | |"
        return
    fi
    try "compute-sanitizer memcheck" compute-sanitizer --tool memcheck --error-exitcode 1 "${zqcheck[@]}" --seed 1
    # our kernels are global functions of C++; those of cuBLASLt and CUTLASS, of whose barriers we know nothing, lie in namespaces or are extern "C"
    for tool in racecheck synccheck; do
        try "compute-sanitizer $tool" compute-sanitizer --tool $tool --kernel-name 'regex=^_Z[0-9]' --error-exitcode 1 "${zqcheck[@]}" --seed 1
    done
}

# the text that a model is judged on
text_of() { if [ -e "$1/test.txt" ]; then echo "$1/test.txt"; else echo models/novels/heldout.txt; fi; }

# check_model DIR TEXT SIZE OPTION...: a row of check_titles. SIZE: a list of options
check_titles() {
    echo "| model | math | result | nll | greedy text | sequences of a batch against each alone | one token at a time |"
    echo "|---|---|---|---|---|---|---|"
}
check_model() {
    local dir=$1 text=$2 size=$3 code
    shift 3
    # shellcheck disable=SC2086 # a list
    timeout "$(left)" "$bundle/check-device" "$dir" --device "$device" --text "$text" $size "$@" > "$work/row" 2> "$work/said"
    code=$?
    [ $code = 0 ] || wrong=1
    if [ -s "$work/row" ]; then sed "s|$work/||" "$work/row"
    else echo "| $(basename "$dir") | $* | WRONG, exit code $code: $(tail -n 1 "$work/said") | | | | |"; fi
}

stage_models() {
    local size="--limit 4096 --count 64" schemes=(w8a8 w4a8 w8a8/16 w4/8a8 w8a16 w4a16)
    local caches=("exact f16" "exact int8" "fast int8") model scheme name math kv
    [ "$device" = cuda-host ] && size="--limit 32 --count 3" schemes=(w8a8 w4a8) caches=("fast int8")
    check_titles
    for model in "${models[@]}"; do
        for scheme in "${schemes[@]}"; do
            name=$(basename "$model")-${scheme//\//_}
            "$zq" quantize "$model" -o "$work/$name" --scheme "$scheme" --embeddings int8 --force --quiet > /dev/null 2> "$work/said" ||
                { echo "| $name | | skipped: $(head -n 1 "$work/said") | | | | |"; continue; }
            for math in exact fast; do check_model "$work/$name" "$(text_of "$model")" "$size" --math $math; done
            if [ "$scheme" = w8a8 ]; then
                for kv in "${caches[@]}"; do check_model "$work/$name" "$(text_of "$model")" "$size" --math ${kv% *} --kv ${kv#* }; done
            fi
            rm -rf "${work:?}/$name"
        done
        # as it is, by cuBLASLt where there is one; the simulator runs quantized models only
        [ "$device" = cuda-host ] || check_model "$model" "$(text_of "$model")" "$size" --math fast
    done
}

# has_room GB: so much memory is free on the card, as nvidia-smi says, and here
has_room() {
    local index=${device#cuda} card
    index=${index#:}
    card=$(nvidia-smi -i "${index:-0}" --query-gpu=memory.free --format=csv,noheader,nounits 2> /dev/null)
    [ "${card:-0}" -ge $(($1 * 954)) ] && awk -v gb="$1" '/^MemAvailable:/ { free = $2 } END { exit !(free >= gb * 976563) }' /proc/meminfo
}

# eager PyTorch beside ours, where python has it and it sees a GPU; ours does not depend on it
python=${ZQ_PYTHON:-python3} has_torch='' sees_gpu='import torch, transformers; exit(not torch.cuda.is_available())'
torch_rows() {
    local shape=$1
    shift
    printf '\n```\nbench/gpu_torch.py --device %s --shape %s %s\n' "$device" "$shape" "$*"
    if [ -z "$has_torch" ]; then echo "skipped: PyTorch was not at hand: $python with torch, transformers and a GPU (ZQ_PYTHON names another python)"
    else
        LD_LIBRARY_PATH=$libraries timeout $(($(left) < 60 ? $(left) : 60)) "$python" bench/gpu_torch.py --device "$device" --shape "$shape" "$@" 2>&1 ||
            echo "FAILED or out of time"
    fi
    echo '```'
}

stage_bench() {
    try "operators" "${zqcheck[@]}" --bench > "$work/row"
    if grep -q right "$work/row"; then cat "$work/out"; else cat "$work/row"; fi
    echo
    local run=() batches=1,2,4,8,16,32,64,128 one shape scheme
    export XDG_CACHE_HOME=$work # the table of --tune, and nobody's own
    if [ "$device" = cuda-host ]; then
        # a decoder's head alone would take half a minute
        run=("minilm w8a8 --layers 1 --batch 2 --prompt 3 --seconds 0.01" "bert-base eager --batch 1 --prompt 128")
    else
        for shape in bert-base bert-large; do
            run+=("$shape w8a8 --batch $batches --prompt 128 --unfused --tune --seconds 0.5" "$shape f16 --batch $batches --prompt 128 --seconds 0.5")
            run+=("$shape w4a8 --batch 1,128 --prompt 128")
        done
        for scheme in w8a8 w4/8a8 f16; do run+=("gpt-350m $scheme --batch 1,8 --prompt 128 --decode 50"); done
        run+=("bert-base eager --batch $batches --prompt 128" "bert-large eager --batch $batches --prompt 128" "gpt-350m eager --batch 1,8 --prompt 128 --decode 50")
        for scheme in w8a8 w4/8a8 f16; do run+=("gpt-neox-20b $scheme --batch 1,8,32 --prompt 128 --decode 32"); done
        run+=("gpt-neox-20b w8a8 --batch 1 --prompt 128 --decode 8 --ops")
    fi
    [ "$device" = cuda-host ] || ! LD_LIBRARY_PATH=$libraries timeout 60 "$python" -c "$sees_gpu" > /dev/null 2>&1 || has_torch=yes
    echo "Whole models of random weights, by the wall clock of the processor. float (BF16) and f16: the same shape on cuBLASLt, fused as INT8 is, if this"
    echo "card is \"with cuBLASLt\" above; unfused: INT8 with a launch of its own for every quantization and dequantization."
    for one in "${run[@]}"; do
        read -r shape scheme one <<< "$one"
        if [ "$scheme" = eager ]; then
            # shellcheck disable=SC2086 # a list of options
            torch_rows "$shape" $one
            continue
        fi
        one="--math fast $one"
        [ "$scheme" = f16 ] || one="--embeddings int8 $one"
        printf '\n```\nzq bench --shape %s --scheme %s %s\n' "$shape" "$scheme" "$one"
        # shellcheck disable=SC2086 # a list of options
        if [ "$shape $scheme" = "gpt-neox-20b f16" ] && ! has_room 52; then
            echo "skipped: 52 GB of the card's memory (nvidia-smi) and of the machine's are not free"
        else
            timeout "$(left)" "$zq" bench --shape "$shape" --scheme "$scheme" $one --device "$device" 2>&1 ||
                { wrong=1; echo "FAILED or out of time"; }
        fi
        echo '```'
    done
    for one in "$work"/zeroquant/tuning-*.txt; do
        [ -e "$one" ] && mkdir -p src/cuda/tuned && cp "$one" src/cuda/tuned/ && printf '\nThe fastest kernels: src/cuda/tuned/%s\n' "$(basename "$one")"
    done
}

# losses DIR: before and after of each block that learned, a line each
losses() { awk '/^ *"before":/ { gsub(/,/, ""); b = $2 } /^ *"after":/ { gsub(/,/, ""); print b, $2 }' "$1/zq-report.json"; }
# never_worse DIR AGAINST: prints what blocks came to, in parts of what the processor's came to. A block that is not quantized has rounding to lose
never_worse() {
    paste -d ' ' <(losses "$1") <(losses "$2") | awk '$1 > 1e-9 { n++; if (!($2 <= $1)) bad++; r = $4 > 0 ? $2 / $4 : 1; if (n == 1 || r < low) low = r; if (r > high) high = r }
        END { printf "%d blocks, %d worse than they began; loss held out is %.4f to %.4f of that on the processor\n", n, bad, low, high
              exit !(n && !bad && high < 1.1) }'
}
# extrapolated METHOD OPTION...: seconds of two blocks of a shape, and what all would take
extrapolated() {
    local method=$1 began end
    shift
    began=$(date +%s%N)
    timeout "$(left)" "$zq" quantize "$work/shape" -o "$work/shaped" --scheme w4/8a8 --lkd "$method" --data random --device "$device" --force --quiet "$@" || return 1
    end=$(date +%s%N)
    awk -v t=$((end - began)) 'BEGIN { t /= 1e9; printf "two blocks in %.1f s; extrapolated to 24: %.0f s (to reach: 900 s)\n", t, 12 * t }'
}

# maths_of METHOD: of stage_lkd's; what makes no steps has one
maths_of() { if [ "$1" = fast ]; then echo exact; else echo "${maths[@]}"; fi; }

stage_lkd() {
    local size="--limit 4096 --count 64" learn=(--samples 64 --length 128 --iters 40) shape=(gpt-350m --layers 2 --vocab 1000) few=()
    local methods=(fast full paper) maths=(exact fast) method math
    if [ "$device" = cuda-host ]; then
        size="--limit 32 --count 3" learn=(--samples 4 --length 8 --iters 1 --batch 2 --ignore '.*h\.[1-5]\..*')
        shape=(gpt2 --layers 2 --width 32 --heads 2 --vocab 100) few=(--samples 4 --length 8 --iters 1 --batch 2)
        methods=(fast full) maths=(exact)
    fi
    learn+=(--scheme w4a8 --data models/novels/heldout.txt --force --quiet)
    echo "Passes, sums over tokens and training run on the device; codes that are solved without training, and the last word on a block, are this machine's"
    echo "processor's work ($(nproc) cores). The shape has random weights (make-checkpoint ${shape[*]}) and learns on random tokens."
    echo
    echo "| what | result | time | |"
    echo "|---|---|---|---|"
    for method in "${methods[@]}"; do
        try "LKD ($method) of models/novels to w4a8, on the processor" "$zq" quantize models/novels -o "$work/here-$method" --lkd "$method" "${learn[@]}"
        for math in $(maths_of "$method"); do
            try "the same on the device, --math $math" \
                "$zq" quantize models/novels -o "$work/$method-$math" --lkd "$method" "${learn[@]}" --device "$device" --math $math
            try "... against the processor" never_worse "$work/$method-$math" "$work/here-$method"
        done
    done
    try "a checkpoint of the shape" "$bundle/make-checkpoint" "${shape[@]}" "$work/shape"
    for method in fast full paper; do
        for math in $(maths_of "$method"); do try "LKD ($method, --math $math) of the shape, W4/8A8, ${few[*]:-defaults}" extrapolated $method --math $math "${few[@]}"; done
    done
    echo
    check_titles
    check_model "$work/full-exact" models/novels/heldout.txt "$size"
}

# Replaces the section "## NAME" of the results.
put_section() {
    local name=$1
    [ -e "$results" ] || cat > "$results" <<- END
	# Results on a GPU
	Written by tools/gpu-check.sh; [gpu.md](gpu.md) says what each part proves.
	END
    awk -v name="## $name" '/^## / { skip = $0 == name } !skip' "$results" > "$work/results"
    { sed -e :a -e '/^\n*$/{$d;N;ba' -e '}' "$work/results"; echo; echo "## $name"; cat "$work/section"; } > "$results"
}

# The numbers to reach, from the sections of the results
put_numbers() {
    {
        echo "Computed from the sections bench and lkd; a number without its rows there is unmeasured."
        echo
        awk -f tools/gpu-numbers.awk "$results"
    } > "$work/section"
    put_section "The numbers to reach"
    echo "The numbers to reach:"
    cat "$work/section"
}

run_stage() {
    deadline=$((SECONDS + 530))
    local began=$SECONDS before=$wrong
    wrong=0
    "stage_$1" > "$work/table"
    { echo "On $(machine), in $((SECONDS - began)) s."; echo; cat "$work/table"; } > "$work/section"
    put_section "$1"
    echo "$1: $([ $wrong = 0 ] && echo right || echo WRONG), $((SECONDS - began)) s"
    cat "$work/table"
    case $1 in bench | lkd) put_numbers ;; esac
    [ $before = 0 ] || wrong=1
}

machine() {
    local driver
    driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2> /dev/null | head -n 1)
    echo "$("${zqcheck[@]}" --list 2> /dev/null)${driver:+, driver $driver}"
}

if [ "$stage" = all ]; then for s in kernels models bench lkd; do run_stage $s; done; else run_stage "$stage"; fi
exit $wrong
