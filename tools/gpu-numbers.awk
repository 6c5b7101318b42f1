# gpu-numbers.awk: computes "The numbers to reach" (docs/gpu.md) from what gpu-check.sh wrote: the rows of zqcheck --bench, of zq bench and of
# bench/gpu_torch.py in the section bench, and the times of the section lkd. Prints a table, and BERT's rates over batches.
#
#   awk -f tools/gpu-numbers.awk docs/gpu-results.md
#
# A ratio is of rows of one section, so of one run. Where a row is missing the number is unmeasured; that a number is missed is no error.
# FP16 and BF16 models are a baseline where cuBLASLt multiplied; without it they ran on a kernel for FP32 units, and their rows do not count.

/^## / { section = substr($0, 4); shape = scheme = "" }

# On NVIDIA H200, compute capability 9.0, with cuBLASLt, in 123 s.
section == "bench" && /^On .*, with cuBLASLt/ { cublaslt = 1 }

# | 8192 x 8192, w8a8, 8192 tokens, wgmma | 123.4 us | 1234.5 TOPS | |
section == "bench" && /^\| / {
    split($0, cells, / *\| */)
    split(cells[4], value, " ")
    if (value[1] + 0 > 0) rate[cells[2]] = value[1]
}

# the command above the rows of a shape
section == "bench" && (/^zq bench / || /^bench\/gpu_torch.py /) {
    shape = ""
    scheme = $1 == "zq" ? "" : "eager"
    for (i = 1; i < NF; i++) {
        if ($i == "--shape") shape = $(i + 1)
        if ($i == "--scheme") scheme = $(i + 1)
    }
}

# encode.128x128    1234.5    1300.1  sequences/s: the median
section == "bench" && shape && $1 ~ /\.[0-9]+x[0-9]+$/ && $2 + 0 > 0 && (cublaslt || (scheme != "f16" && $1 !~ /^float\./)) {
    whole[shape " " scheme " " $1] = $2
}

# | LKD (paper, --math fast) of the shape, W4/8A8, defaults | right | 12 s | two blocks in 10.0 s; extrapolated to 24: 120 s (to reach: 900 s) |
section == "lkd" && /of the shape, W4\/8A8, defaults \| right/ && match($0, /extrapolated to 24: [0-9]+ s/) {
    seconds = substr($0, RSTART + 20) + 0
    method = $0
    sub(/^[^(]*\(/, "", method)
    sub(/,.*/, "", method)
    if (!(method in lkd) || seconds < lkd[method]) lkd[method] = seconds
}

# rate of an operator, the fastest of kernels in a list with commas; "": none was timed
function fastest(operator, kernels,    names, n, i, best)
{
    n = split(kernels, names, ",")
    best = ""
    for (i = 1; i <= n; i++)
        if ((operator ", " names[i]) in rate && rate[operator ", " names[i]] + 0 > best + 0) best = rate[operator ", " names[i]]
    return best
}

# the smallest share of copying among operators in a list with semicolons, in percent; "": one of them was not timed
function least_share(operators,    names, n, i, least, share)
{
    n = split(operators, names, ";")
    if (!("copy of 1 GiB" in rate)) return ""
    for (i = 1; i <= n; i++) {
        if (!(names[i] in rate)) return ""
        share = 100 * rate[names[i]] / rate["copy of 1 GiB"]
        if (i == 1 || share < least) least = share
    }
    return least
}

function of(shape, scheme, row) { return (shape " " scheme " " row) in whole ? whole[shape " " scheme " " row] : "" }

function ratio(a, b) { return a != "" && b != "" ? a / b : "" }
function more_of(a, b) { return a == "" || (b != "" && b + 0 > a + 0) ? b : a }

# GPUs of 40 GB that hold what lies on the device (MB) x ms of a token
function cost(scheme,    mb, token, gpus)
{
    mb = of("gpt-neox-20b", scheme, "device.1x128")
    token = of("gpt-neox-20b", scheme, "decode.1x128")
    if (mb == "" || token == "") return ""
    gpus = int(mb / 40000)
    if (gpus * 40000 < mb) gpus++
    return gpus * 1000 / token
}

# number NAME VALUE FORMAT TARGET [least]: a row; least: the value has to be at most the target
function number(name, value, format, target, least)
{
    if (value == "") printf "| %s | - | " format " | unmeasured |\n", name, target
    else printf "| %s | " format " | " format " | %s |\n", name, value, target, (least ? value <= target : value >= target) ? "reached" : "missed"
}

# rates of one encoder over batches; - where a row is missing
function table(shape, title,    batches, n, i, row, f16)
{
    printf "\n| %s, sequences of 128 tokens/s, batch | FP16 | BF16 | INT8 unfused | INT8 fused | fused by FP16 |\n|---|---|---|---|---|---|\n", title
    n = split("1 2 4 8 16 32 64 128", batches, " ")
    for (i = 1; i <= n; i++) {
        row = "encode." batches[i] "x128"
        f16 = of(shape, "f16", row)
        printf "| %s | %s | %s | %s | %s | %s |\n", batches[i], cell(f16), cell(of(shape, "w8a8", "float." row)),
               cell(of(shape, "w8a8", "unfused." row)), cell(of(shape, "w8a8", row)), cell(ratio(of(shape, "w8a8", row), f16))
    }
}
function cell(value) { return value == "" ? "-" : sprintf(value >= 1000 ? "%.0f" : "%.4g", value) }

END {
    large = "8192 x 8192, w8a8, 8192 tokens"
    all = "small tiles,wide tiles,wgmma,CUTLASS,cuBLASLt"
    neox = "GPT-NeoX-20B "
    print "| number | measured | to reach | |\n|---|---|---|---|"
    tops = fastest(large, "wgmma,CUTLASS")
    number("INT8 product 8192 x 8192 x 8192, wgmma or CUTLASS", ratio(tops, 1000), "%.2f POPS", 1.2)
    tops = fastest(large, "small tiles,wide tiles")
    number("the same by mma.sync", ratio(tops, 1000), "%.2f POPS", 0.7)
    number("W4A8 by W8A8, the same product, fastest kernels", ratio(fastest("8192 x 8192, w4a8, 8192 tokens", all), fastest(large, all)), "%.2f x", 0.9)
    number("W8A8, one token, the slowest of GPT-NeoX-20B's matrices, by copying",
           least_share(neox "qkv, w8a8, 1 tokens;" neox "o, w8a8, 1 tokens;" neox "up, w8a8, 1 tokens;" neox "down, w8a8, 1 tokens"), "%.1f %%", 70)
    number("W4A8, one token, the slower of up and down, by copying",
           least_share(neox "up, w4a8, 1 tokens;" neox "down, w4a8, 1 tokens"), "%.1f %%", 50)
    bert = of("bert-base", "w8a8", "encode.128x128")
    number("BERT-base, 128 x 128 tokens, W8A8 by our own FP16", ratio(bert, of("bert-base", "f16", "encode.128x128")), "%.2f x", 1.4)
    number("the same by eager FP16 PyTorch", ratio(bert, of("bert-base", "eager", "encode.128x128")), "%.2f x", 5.19)
    number("GPT-350M, first 50 tokens after 128, W8A8 by eager FP16 PyTorch",
           ratio(of("gpt-350m", "w8a8", "first50.1x128"), of("gpt-350m", "eager", "first50.1x128")), "%.2f x", 4.16)
    floats = of("gpt-neox-20b", "f16", "decode.1x128")
    number("GPT-NeoX-20B, a token, W8A8 by our own FP16", ratio(of("gpt-neox-20b", "w8a8", "decode.1x128"), floats), "%.2f x", 1.5)
    number("the same, W4/8A8", ratio(of("gpt-neox-20b", "w4/8a8", "decode.1x128"), floats), "%.2f x", 2.0)
    number("the same, GPUs of 40 GB x ms per token: FP16 by the better of W8A8 and W4/8A8",
           more_of(ratio(cost("f16"), cost("w8a8")), ratio(cost("f16"), cost("w4/8a8"))), "%.2f x", 5.2)
    n = split("paper fast full", methods, " ")
    for (i = 1; i <= n; i++)
        number("LKD (" methods[i] ") of GPT-350M's shape to W4/8A8, extrapolated from two blocks of 24",
               methods[i] in lkd ? lkd[methods[i]] / 60 : "", "%.1f minutes", 15, 1)
    table("bert-base", "BERT-base")
    table("bert-large", "BERT-large")
}
