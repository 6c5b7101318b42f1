#!/bin/bash
# The expensive alternative beside ours: end-to-end distillation of hidden states in PyTorch, of a small GPT-2, with the error, time and
# peak memory of both.
#
#   bench/distill_end_to_end.sh [OPTION...]        options of bench/distill_end_to_end.py; --help lists them
#
#   ZQ_SHARED          the shared data, default ../shared
#   ZQ_DISTILL_PYTHON  a Python with torch and transformers; default: that of build/distill-venv, made when it does not exist (several GB from PyPI)
set -euo pipefail
cd "$(dirname "$0")/.."
shared=${ZQ_SHARED:-../shared}
python=${ZQ_DISTILL_PYTHON:-build/distill-venv/bin/python}
work=${ZQ_WORK:-build/distill}
[ -d "$shared/models/gpt2-novels" ] || { echo "skipped: no shared data"; exit 77; }
mkdir -p "$work"
if [ ! -x "$python" ]; then
    echo "installing PyTorch into build/distill-venv" >&2
    python3 -m venv build/distill-venv
    "$python" -m pip install --quiet --disable-pip-version-check -r bench/distill_requirements.txt
fi
texts=(Wcollins_Woman_1860 Eliot_Adam_1859 Hardy_Jude_1895 Doyle_Hound_1902)
[ -s "$work/novels/${texts[3]}.txt" ] || tar -xJf "$shared/data/text/english.tar.xz" -C "$work" $(printf "novels/%s.txt " "${texts[@]}")
exec "$python" bench/distill_end_to_end.py --model "$shared/models/gpt2-novels" --test "$work/novels/${texts[3]}.txt" --work "$work" \
    --data "$work/novels/${texts[0]}.txt" "$work/novels/${texts[1]}.txt" "$work/novels/${texts[2]}.txt" "$@"
