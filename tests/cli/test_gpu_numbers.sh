# tools/gpu-numbers.awk on results that were made up: each number, what becomes of one that is missed, and of one whose rows are missing.
. tests/cli/check.sh

made_up=tests/cuda/made-up-results.md
numbers() { run awk -f tools/gpu-numbers.awk "$1"; }
# number NAME REST: the row that begins so is "NAME... | REST |"
number() { expect "$1: $2" grep -qF "$(grep -F "| $1" "$stdout" | head -n 1 | cut -d '|' -f 1-2)| $2 |" "$stdout"; }

numbers $made_up
number "INT8 product 8192 x 8192 x 8192, wgmma or CUTLASS" "1.40 POPS | 1.20 POPS | reached"
number "the same by mma.sync" "0.70 POPS | 0.70 POPS | reached"
number "W4A8 by W8A8" "0.75 x | 0.90 x | missed"
number "W8A8, one token" "69.8 % | 70.0 % | missed"
number "W4A8, one token" "55.0 % | 50.0 % | reached"
number "BERT-base, 128 x 128 tokens, W8A8 by our own FP16" "1.50 x | 1.40 x | reached"
number "the same by eager FP16 PyTorch" "5.00 x | 5.19 x | missed"
number "GPT-350M, first 50" "8.00 x | 4.16 x | reached"
number "GPT-NeoX-20B, a token" "1.75 x | 1.50 x | reached"
number "the same, W4/8A8" "2.70 x | 2.00 x | reached"
number "the same, GPUs of 40 GB" "5.40 x | 5.20 x | reached"
number "LKD (fast)" "6.0 minutes | 15.0 minutes | reached"
number "LKD (full)" "16.0 minutes | 15.0 minutes | missed"
number "LKD (paper)" "- | 15.0 minutes | unmeasured"
expect "rates over batches" grep -qF '| 128 | 10000 | 9900 | 7000 | 15000 | 1.5 |' "$stdout"
expect "a batch that was not measured" grep -qF '| 2 | - | - | - | - | - |' "$stdout"

# without its row a number is unmeasured, and all others are what they were
without() {
    grep -vF -- "$1" $made_up > "$tmp/less.md"
    numbers "$tmp/less.md"
}
unmeasured() { expect "$1: $2 unmeasured besides LKD (paper)" [ "$(grep -c '| unmeasured |' "$stdout")" = $(($2 + 1)) ]; }
without '| copy of 1 GiB'
unmeasured "no rate of copying" 2
without '8192 tokens, w'
number "INT8 product" "1.40 POPS | 1.20 POPS | reached"
unmeasured "nor a kernel of W4A8, but CUTLASS and small tiles of W8A8" 1
without 'gpu_torch.py'
unmeasured "no PyTorch" 2
without 'gpt-neox-20b --scheme f16'
unmeasured "no floats of GPT-NeoX-20B" 3
without 'device.1x128                          41200'
unmeasured "no memory of them" 1
without 'bert-base --scheme f16'
unmeasured "no FP16 of BERT-base" 1
without 'with cuBLASLt'
unmeasured "FP16 without cuBLASLt" 4
expect "rates of FP16 and BF16 without cuBLASLt" grep -qF '| 128 | - | - | 7000 | 15000 | - |' "$stdout"
sed 's/with cuBLASLt/without cuBLASLt/' $made_up > "$tmp/less.md"
numbers "$tmp/less.md"
unmeasured "a card without cuBLASLt" 4
: > "$tmp/none.md"
numbers "$tmp/none.md"
unmeasured "nothing at all" 13
finish
