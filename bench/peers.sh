#!/bin/bash
# Measures us beside the libraries people use, on the same random shapes, alternately in one run, and writes docs/performance.md.
#
#   bench/peers.sh [--all] [--fresh] [--prepare] [--report] [--minutes M] [STAGE...]
#
#   STAGE        product bert minilm gpt llama fusion granularity ops threads large first bert-large; default: all, in this order
#   --all        also what takes hours: batches up to 64, BERT-large's too, and whole models of 6 and 20 billion parameters (24 GiB)
#   --prepare    only convert the peers' models, which is not measured
#   --report     only write the page from what was measured before
#   --fresh      measure again what was measured before; otherwise a run that was cut short goes on where it ended
#   --minutes M  begin nothing new after M minutes, and write the page from what there is. All of it takes about 25 minutes for the first round
#                on two cores without VNNI; turns that other programs disturbed, and turns after which cores shared no cache though they had, are repeated when the run is called again
#
#   ZQ_PEERS_VENV  the Python environment, default build/peers-venv; made when it does not exist (several GB from PyPI; a C++ compiler builds llama.cpp)
#   ZQ_WORK        converted models and what was measured, default build/peers
#   ZQ_ROUNDS      how often everybody has a turn, default 3: the figure is the median of the rounds' medians
#   ZQ_SECONDS     length of one measurement, default 1
#   ZQ_THREADS     threads of everybody, default all cores
#   ZQ_ISA         holds us to a level; peers that can be held to it (ONEDNN_MAX_CPU_ISA and the like) have a row of that besides. So they have where
#                  our level is below theirs anyway. The section is one of its own
#   ZQ_DOCS        where the page and its charts go, default docs
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${ZQ_PEERS_VENV:-build/peers-venv}
if [ ! -x "$venv/bin/python" ]; then
    echo "installing the peers into $venv" >&2
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r bench/peers_requirements.txt
fi
[ -x build/zq ] || { echo "build/zq is missing: cmake --preset release && cmake --build --preset release" >&2; exit 1; }
exec "$venv/bin/python" bench/peers.py "$@"
