"""Eager PyTorch in FP16 on a GPU: rates of BERT and GPT-2 shapes with random weights, in rows as zq bench prints them. tools/gpu-numbers.awk divides
our rates by them.

    gpu_torch.py --shape bert-base|bert-large|gpt-350m [--batch 1,128] [--prompt 128] [--decode 50] [--seconds 0.5] [--layers N] [--device cuda]

Encoders have a row encode, decoders firstN: a prompt and N passes of one token after it, each the likeliest, chosen on the device. Times are the wall
clock's, of whole rows of passes after which the device is waited for: the median of at least five. Attention is written out in PyTorch's operators,
as it was when the paper measured; rows sdpa. have its fused one. --device cpu and --layers are for trying this where there is no GPU.
"""
import argparse
import statistics
import time

import torch
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

parser = argparse.ArgumentParser()
parser.add_argument("--shape", choices=("bert-base", "bert-large", "gpt-350m"), required=True)
parser.add_argument("--batch", default="1")
parser.add_argument("--prompt", type=int, default=128)
parser.add_argument("--decode", type=int, default=50)
parser.add_argument("--seconds", type=float, default=0.5)
parser.add_argument("--layers", type=int, default=0)
parser.add_argument("--device", default="cuda")
args = parser.parse_args()

# as in src/bench/shape.c: layers, width, heads
LAYERS, WIDTH, HEADS = {"bert-base": (12, 768, 12), "bert-large": (24, 1024, 16), "gpt-350m": (24, 1024, 16)}[args.shape]
LAYERS = args.layers or LAYERS
LEAST_PASSES = 5


def random_model(attention):
    torch.manual_seed(0)
    with torch.device(args.device):
        if args.shape == "gpt-350m":
            config = GPT2Config(n_layer=LAYERS, n_embd=WIDTH, n_head=HEADS, n_positions=2048, attn_implementation=attention)
            model = GPT2LMHeadModel(config)
        else:
            config = BertConfig(num_hidden_layers=LAYERS, hidden_size=WIDTH, num_attention_heads=HEADS, intermediate_size=4 * WIDTH,
                                attn_implementation=attention)
            model = BertModel(config, add_pooling_layer=False)
    return model.half().eval()


def encode(model, ids):
    model(ids)


def first(model, ids):
    """Logits of the last token only, as ours."""
    cache = None
    for _ in range(1 + args.decode):  # the prompt, then token by token
        out = model.transformer(ids, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        ids = model.lm_head(out.last_hidden_state[:, -1:]).argmax(-1)


def wait():
    if args.device != "cpu":
        torch.cuda.synchronize(args.device)


def seconds_of(run, model, ids):
    """Of each pass; the first, which makes plans and takes memory, does not count."""
    times = []
    run(model, ids)
    wait()
    began = time.perf_counter()
    while len(times) < LEAST_PASSES or time.perf_counter() - began < args.seconds:
        start = time.perf_counter()
        run(model, ids)
        wait()
        times.append(time.perf_counter() - start)
    return times


print(f"{'':<32} {'median':>10} {'best':>10}  unit")
for attention in ("eager", "sdpa"):
    model = random_model(attention)
    decodes = isinstance(model, GPT2LMHeadModel)
    for batch in (int(n) for n in args.batch.split(",")):
        ids = torch.randint(0, 30000, (batch, args.prompt), device=args.device)
        with torch.inference_mode():
            times = seconds_of(first if decodes else encode, model, ids)
        amount, unit, what = (batch * args.decode, "tokens/s", f"first{args.decode}") if decodes else (batch, "sequences/s", "encode")
        name = f"{'sdpa.' if attention == 'sdpa' else ''}{what}.{batch}x{args.prompt}"
        print(f"{name:<32} {amount / statistics.median(times):>10.5g} {amount / min(times):>10.5g}  {unit}", flush=True)
