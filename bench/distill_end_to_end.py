"""End-to-end distillation of hidden states in PyTorch: the expensive alternative to distilling block by block, on a small GPT-2.

The student is the whole model with rounded weights (4 bits in the feed-forward part, 8 in attention, groups of rows) and INT8 tokens, the teacher
a second, float copy. All of the student's parameters are trained by AdamW, straight through the rounding, until its hidden states are the
teacher's: mean over layers of the squared error over the mean square of the teacher's states. What this needs and block by block does not:
both models, gradients and two moments of every parameter, and the activations of all layers at once.

Prints the KL divergence to the original on held-out text (windows of 256 ids, as `zq compare` cuts them), as rounded to nearest and after
training, wall and processor seconds and peak memory, beside `zq quantize --lkd fast` and `full` on the same text. Rounded to nearest both programs
should agree: that row says whether the same thing is measured.
"""
import argparse
import json
import os
import re
import resource
import subprocess


def ours(args, method):
    """A row of zq quantize and zq compare."""
    out = os.path.join(args.work, "out")
    lkd = [] if method == "off" else ["--lkd", method, "--data", ",".join(args.data), "--seed", str(args.seed)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    text = subprocess.run([args.zq, "quantize", args.model, "-o", out, "--scheme", "w4/8a8", "--group", f"rows:{args.groups}", "--force", "--quiet",
                           "--json", "--threads", str(args.threads), *lkd], check=True, capture_output=True, text=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    report = json.loads(text)
    compared = subprocess.run([args.zq, "compare", args.model, out, "--text", args.test, "--limit", str(args.limit), "--json",
                               "--quiet"], check=True, capture_output=True, text=True).stdout
    options = report["options"]
    return {"kl": float(re.search(r'"kl": \{\s*"mean": ([^,]*),', compared).group(1)), "seconds": report["run"]["seconds"],
            "processor_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            "memory_bytes": report["run"]["memory_bytes"], "tokens": options.get("samples", 0) * options.get("length", 0)}


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", required=True)
    p.add_argument("--data", nargs="+", required=True, help="texts to learn from")
    p.add_argument("--test", required=True, help="text to measure on")
    p.add_argument("--work", default=".")
    p.add_argument("--zq", default="build/zq")
    p.add_argument("--groups", type=int, default=4, help="groups of rows of each matrix")
    p.add_argument("--steps", type=int, default=200)
    p.add_argument("--trial-steps", type=int, default=20)
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--length", type=int, default=128)
    p.add_argument("--rates", type=float, nargs="+", default=[2e-5, 1e-4, 5e-4], help="one, or several of which the best is taken")
    p.add_argument("--limit", type=int, default=32768, help="ids of the test text")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--methods", nargs="*", default=["off", "fast", "full"], help="of zq quantize --lkd, to stand beside")
    p.add_argument("--json", action="store_true")
    args = p.parse_args()
    # first: a process that is begun by one with PyTorch in it would count PyTorch's memory as its own peak
    rows = {"ours, " + ("rounded to nearest" if method == "off" else method): ours(args, method) for method in args.methods}
    from distill_torch import distil
    rows["end to end, PyTorch"] = distil(args)
    if args.json:
        print(json.dumps(rows))
        return
    print(f"rounded to nearest in PyTorch: KL {rows['end to end, PyTorch']['nearest']:.5f}")
    print(f"{'':28s} {'KL':>9s} {'seconds':>9s} {'processor':>10s} {'peak MB':>8s} {'tokens':>9s}")
    for name, r in rows.items():
        print(f"{name:28s} {r['kl']:9.5f} {r['seconds']:9.1f} {r['processor_seconds']:10.1f} {r['memory_bytes'] / 1e6:8.0f} {r['tokens']:9d}")


if __name__ == "__main__":
    main()
