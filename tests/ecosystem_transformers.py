#!/usr/bin/env python3
"""Whether transformers reads what zq quantize writes: ecosystem_transformers.py ZQ SHARED

Each model is quantized by zq, then computed twice on the same ids: by `zq forward`, and by transformers after loading the same
directory (compressed-tensors, dtype float32). The logits must agree: mean KL(zq || transformers) over all positions. Without
quantized activations only float rounding is left; with them that library scales a token by absmax/127.5 and zq by absmax/127, so
single codes differ. Prints one line per check, PASS or FAIL; exit code 1 if one failed.
"""
import json, os, re, subprocess, sys, tempfile
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

FLOAT_BOUND, INT8_BOUND = 1e-5, 1e-3

zq, shared = sys.argv[1:3]
scratch = tempfile.TemporaryDirectory(prefix="zq-ecosystem-")
failed = 0


def report(ok, name, detail):
    global failed
    failed += not ok
    print("PASS" if ok else "FAIL", f"{name}: {detail}", flush=True)


def run_zq(*args):
    r = subprocess.run([zq, *map(str, args), "--quiet"], capture_output=True, text=True)
    if r.returncode:
        raise RuntimeError(f"zq {args[0]} exits with {r.returncode}: {r.stderr.strip()}")
    return r.stdout


def quantize(model, options):
    out = os.path.join(scratch.name, "-".join([model, *(re.sub(r"\W+", "_", o) for o in options)]))
    run_zq("quantize", os.path.join(shared, "models", model), "-o", out, *options)
    return out


def load(directory):
    """The model in transformers, and a complaint about tensors that it did not find or did not know (or None)."""
    config = json.load(open(os.path.join(directory, "config.json"), encoding="utf-8"))
    auto = AutoModelForMaskedLM if "MaskedLM" in config["architectures"][0] else AutoModelForCausalLM
    model, info = auto.from_pretrained(directory, dtype=torch.float32, output_loading_info=True)
    wrong = {k: sorted(v)[:3] for k, v in info.items() if v and k in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    return model.eval(), f"not all tensors fit: {wrong}" if wrong else None


def sequences(model):
    golden = load_file(os.path.join(shared, "models", model, "golden.safetensors"))
    return [golden["a.ids"][0], golden["a.ids"][1], golden["b.ids"][0]]


def zq_logits(directory, ids):
    path = os.path.join(scratch.name, "logits.safetensors")
    run_zq("forward", directory, "--ids", ",".join(map(str, ids.tolist())), "-o", path)
    return load_file(path)["logits"]


@torch.no_grad()
def hf_logits(model, ids):
    return model(ids.long()[None]).logits[0]


def kl(p, q):
    """Mean KL(p || q) over positions, from logits."""
    p, q = (torch.cat(x).double().log_softmax(-1) for x in (p, q))
    return (p.exp() * (p - q)).sum(-1).mean().item()


def check(model, options, bound, float_logits):
    name = f"transformers loads {model} {' '.join(options)}"
    try:
        directory = quantize(model, options)
        loaded, complaint = load(directory)
        ids = sequences(model)
        ours = [zq_logits(directory, i) for i in ids]
        theirs = [hf_logits(loaded, i) for i in ids]
    except Exception as e:  # whatever that library raises is the answer to the question
        return report(False, name, f"{type(e).__name__}: {str(e)[:300]}")
    if complaint:
        return report(False, name, complaint)
    distance = kl(ours, theirs)
    # a quantized model that has not moved away from the float one was not quantized
    moved = kl(float_logits, ours)
    report(distance <= bound and moved > 0, name, f"KL {distance:.1e} (at most {bound:.0e}), to the float model {moved:.1e}")


def check_model(model, option_sets):
    source, complaint = load(os.path.join(shared, "models", model))
    ids = sequences(model)
    theirs = [hf_logits(source, i) for i in ids]
    ours = [zq_logits(os.path.join(shared, "models", model), i) for i in ids]
    distance = kl(theirs, ours)
    report(complaint is None and distance <= FLOAT_BOUND, f"{model} as it is", complaint or f"KL {distance:.1e} (at most {FLOAT_BOUND:.0e})")
    for options, bound in option_sets:
        check(model, options, bound, theirs)


def check_gpt2():
    """No check of loading: that library matches Linear modules, and GPT-2 has Conv1D. The report must say so."""
    directory = quantize("gpt2-novels", ["--scheme", "w4a8"])
    text = open(os.path.join(directory, "zq-report.json"), encoding="utf-8").read()
    report("transformers" in text, "gpt2-novels", "zq-report.json says that transformers cannot load it")


SCHEMES = [(["--scheme", "w8a8"], INT8_BOUND), (["--scheme", "w4a8"], INT8_BOUND), (["--scheme", "w4a16"], FLOAT_BOUND),
           (["--scheme", "w4/8a8"], INT8_BOUND)]
MORE = [(["--scheme", "w8a16"], FLOAT_BOUND), (["--scheme", "w4/8a16"], FLOAT_BOUND), (["--scheme", "w8a8/16"], INT8_BOUND),
        (["--scheme", "w8a8", "--group", "k:64"], INT8_BOUND), (["--scheme", "w8a8", "--group", "rows:16"], INT8_BOUND),
        (["--scheme", "w4a16", "--group", "channel"], FLOAT_BOUND), (["--scheme", "w4a8", "--group", "k:128"], INT8_BOUND),
        (["--scheme", "w4a16", "--ignore", r"model\.layers\.0\..*"], FLOAT_BOUND),
        (["--scheme", "w8a16", "--set", r".*\.(up|gate)_proj=w4a16,k:32", "--set", r"model\.layers\.1\..*=float"], FLOAT_BOUND)]
EMBEDDINGS = [(["--scheme", "w8a8", "--embeddings", "int8"], INT8_BOUND), (["--scheme", "w4a16", "--embeddings", "int8"], FLOAT_BOUND)]

for family in ("neox", "opt", "gptj", "bert", "qwen2", "mistral"):
    check_model(family, SCHEMES + EMBEDDINGS)
check_model("llama", SCHEMES + MORE + EMBEDDINGS)
check_model("llama-rope3", SCHEMES + EMBEDDINGS)
check_gpt2()
sys.exit(1 if failed else 0)
