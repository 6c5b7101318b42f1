"""Tokens per second of one library on a decoder of GPT-2's architecture with random weights: a prompt, and one token after another behind it.

    peers_gpt.py PEER [--prompt 512] [--threads 2] [--layers 24 --hidden 1024 --heads 16] [--seconds 6] [--work FOLDER]

PEER: pytorch-fp32, pytorch-bf16, ctranslate2-fp32, ctranslate2-int8. The default shape is the paper's GPT-3 style model of 350M parameters. Converted
models are kept in the work folder.
"""
import argparse
import json
import os
import statistics
import time

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from peers_timing import rates, row

parser = argparse.ArgumentParser()
parser.add_argument("peer")
parser.add_argument("--prompt", type=int, default=512)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--layers", type=int, default=24)
parser.add_argument("--hidden", type=int, default=1024)
parser.add_argument("--heads", type=int, default=16)
parser.add_argument("--seconds", type=float, default=6)
parser.add_argument("--work", default="build/peers")
args = parser.parse_args()

torch.manual_seed(0)
torch.set_num_threads(args.threads)
source = os.path.join(args.work, f"gpt2-{args.layers}x{args.hidden}")
N_IDS = 50257


def save_source():
    """A checkpoint with random weights, and a made-up vocabulary of the right size: no text is ever tokenized here."""
    if os.path.exists(os.path.join(source, "done")):
        return
    GPT2LMHeadModel(GPT2Config(n_layer=args.layers, n_embd=args.hidden, n_head=args.heads)).save_pretrained(source)
    vocabulary = {f"t{i}": i for i in range(N_IDS - 1)} | {"<|endoftext|>": N_IDS - 1}
    with open(os.path.join(source, "vocab.json"), "w") as file:
        json.dump(vocabulary, file)
    with open(os.path.join(source, "merges.txt"), "w") as file:
        file.write("#version: 0.2\n")
    with open(os.path.join(source, "tokenizer_config.json"), "w") as file:
        json.dump({"tokenizer_class": "GPT2Tokenizer", "model_max_length": 1024}, file)
    open(os.path.join(source, "done"), "w").close()


def pytorch(dtype):
    model = GPT2LMHeadModel.from_pretrained(source, dtype=dtype).eval()
    ids = torch.randint(0, 50000, (1, args.prompt))
    row(args.peer, f"prompt {args.prompt}", "tokens/s", *rates(lambda: model(ids, use_cache=True), args.prompt, args.seconds))
    cache, times, start = model(ids, use_cache=True).past_key_values, [], time.perf_counter()
    while len(times) < 8 or (time.perf_counter() - start < args.seconds and len(times) < 400):
        t = time.perf_counter()
        cache = model(ids[:, :1], past_key_values=cache, use_cache=True).past_key_values
        times.append(time.perf_counter() - t)
    row(args.peer, "decode", "tokens/s", 1 / statistics.median(times[1:]), 1 / min(times))


def ctranslate2_generator(kind):
    import ctranslate2
    import ctranslate2.converters.transformers as converters

    converted = f"{source}-ctranslate2-{kind}"
    if not os.path.exists(os.path.join(converted, "model.bin")):
        converters.TransformersConverter(source).convert(converted, quantization=kind, force=True)
    generator = ctranslate2.Generator(converted, device="cpu", intra_threads=args.threads, inter_threads=1, compute_type=kind)
    prompt = [f"t{i}" for i in np.random.randint(0, 50000, args.prompt)]
    row(args.peer, f"prompt {args.prompt}", "tokens/s",
        *rates(lambda: generator.forward_batch([prompt], return_log_probs=False), args.prompt, args.seconds))

    def generate(n):
        t = time.perf_counter()
        generator.generate_batch([prompt[: args.prompt]], max_length=n, min_length=n, include_prompt_in_result=False, sampling_topk=1)
        return time.perf_counter() - t

    generate(2)
    tokens = [(generate(36) - generate(4)) / 32 for _ in range(3)]
    row(args.peer, "decode", "tokens/s", 1 / statistics.median(tokens), 1 / min(tokens))


peers = {
    "pytorch-fp32": lambda: pytorch(torch.float32),
    "pytorch-bf16": lambda: pytorch(torch.bfloat16),
    "ctranslate2-fp32": lambda: ctranslate2_generator("float32"),
    "ctranslate2-int8": lambda: ctranslate2_generator("int8"),
}
save_source()
with torch.inference_mode():
    peers[args.peer]()
