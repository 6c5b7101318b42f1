"""One training step of one block of GPT-2's size, ours beside PyTorch's, on the same threads in the same run, in turns.

    bench/peers.sh's environment (build/peers-venv), or any with torch:  build/peers-venv/bin/python bench/lkd_peer.py [--rounds N] [--steps N] ...

A step: forward through rounded weights and INT8 tokens, mean squared error to the original's output, backward (straight through the rounding), AdamW,
and new codes. PyTorch's is written as its users write it: fake quantization as an autograd function, scaled_dot_product_attention, fused
AdamW; FP32, beside ours with --math exact, and autocast to BF16, beside ours with --math fast. Each round runs all one after the other; printed
are the medians over all steps, and ratios of medians with the least and the largest of a round's.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time


class Arguments:
    def __init__(self):
        p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
        p.add_argument("--ours", default="build/lkd-step", help="the program that times our step")
        p.add_argument("--rounds", type=int, default=5)
        p.add_argument("--steps", type=int, default=2, help="of each in a round")
        p.add_argument("--batch", type=int, default=8)
        p.add_argument("--length", type=int, default=512)
        p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
        p.add_argument("--peers", default="fp32,bf16", help="of these two (a processor without BF16 products takes long for the second)")
        p.add_argument("--json", action="store_true", help="one JSON object instead of a table")
        self.__dict__.update(vars(p.parse_args()))


def make_peer(args):
    """Returns step(bf16): one step of the peer."""
    import torch
    from torch import nn
    import torch.nn.functional as F
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    width, heads, inner = 768, 12, 3072

    class Round(torch.autograd.Function):
        """Symmetric INT8 with one scale per row of the last axis, straight through in the backward pass."""
        @staticmethod
        def forward(ctx, x):
            scale = x.abs().amax(-1, keepdim=True).clamp(min=1e-30) / 127
            return torch.round(x / scale) * scale

        @staticmethod
        def backward(ctx, grad):
            return grad

    class Linear(nn.Linear):
        rounds = False

        def forward(self, x):
            if not self.rounds:
                return super().forward(x)
            return F.linear(Round.apply(x), Round.apply(self.weight), self.bias)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.proj = Linear(width, 3 * width), Linear(width, width)
            self.fc, self.down = Linear(width, inner), Linear(inner, width)

        def forward(self, x):
            n, t, _ = x.shape
            q, k, v = (y.view(n, t, heads, -1).transpose(1, 2) for y in self.qkv(self.ln_1(x)).split(width, -1))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.proj(y.transpose(1, 2).reshape(n, t, width))
            return x + self.down(F.gelu(self.fc(self.ln_2(x)), approximate="tanh"))

    block = Block()
    x = torch.rand(args.batch, args.length, width) * 2 - 1
    with torch.no_grad():
        target = block(x)
    Linear.rounds = True
    optimizer = torch.optim.AdamW(block.parameters(), lr=5e-6, fused=True)

    def step(bf16):
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = F.mse_loss(block(x).float(), target)
        loss.backward()
        optimizer.step()
    return step


def main():
    args = Arguments()
    step = make_peer(args)
    ours = [args.ours, "--steps", str(args.steps), "--batch", str(args.batch), "--length", str(args.length), "--threads", str(args.threads)]
    peers = args.peers.split(",")
    beside = {"fp32": "exact", "bf16": "fast"}
    titles = {"exact": "ours, exact", "fp32": "PyTorch FP32", "fast": "ours, --math fast", "bf16": "PyTorch, BF16 autocast"}
    names = {name: titles[name] for peer in peers for name in (beside[peer], peer)}
    seconds = {name: [] for name in names}
    for name in peers:
        step(name == "bf16")
    for i in range(args.rounds):
        for name in peers:
            times = []
            lines = subprocess.run([*ours, "--math", beside[name]], check=True, capture_output=True, text=True).stdout.split()
            seconds[beside[name]].append([float(line) for line in lines])
            for _ in range(args.steps):
                start = time.perf_counter()
                step(name == "bf16")
                times.append(time.perf_counter() - start)
            seconds[name].append(times)
        print(f"round {i + 1}:", *(f"{name} {statistics.median(rounds[-1]):.3f} s" for name, rounds in seconds.items()), file=sys.stderr, flush=True)
    medians = {name: statistics.median(t for times in rounds for t in times) for name, rounds in seconds.items()}
    ratios = {name: [statistics.median(a) / statistics.median(b) for a, b in zip(seconds[name], seconds[beside[name]])] for name in peers}
    result = {"work": f"step of a block, {args.batch}x{args.length} tokens", "threads": args.threads, "rounds": args.rounds,
              "median_s": medians, "ratio": {name: medians[name] / medians[beside[name]] for name in ratios},
              "ratio_least": {name: min(r) for name, r in ratios.items()}, "ratio_most": {name: max(r) for name, r in ratios.items()}}
    if args.json:
        json.dump(result, sys.stdout)
        print()
        return
    print(f"{result['work']}, {args.threads} threads, median of {args.rounds} rounds of {args.steps} steps")
    for name, text in names.items():
        times = f" {result['ratio'][name]:.2f}x ours ({result['ratio_least'][name]:.2f} to {result['ratio_most'][name]:.2f} by round)" \
            if name in ratios else ""
        print(f"  {text:24s} {medians[name]:.3f} s{times}")


if __name__ == "__main__":
    main()
