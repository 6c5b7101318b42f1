"""The training of distill_end_to_end.py: a GPT-2 of transformers whose maps round, taught by its float original."""
import os
import random
import resource
import sys
import time

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

WINDOW = 256  # ids: as zq compare cuts a text


class Straight(torch.autograd.Function):
    """x * 1 in the backward pass, rounded in the forward pass."""
    @staticmethod
    def forward(ctx, x, rounded):
        return rounded

    @staticmethod
    def backward(ctx, grad):
        return grad, None


def round_tokens(x):
    scale = x.detach().abs().amax(-1, keepdim=True) / 127
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return Straight.apply(x, torch.round(x.detach() / scale) * scale)


def round_weight(w, bits, groups):
    """w [rows, columns]: row r belongs to group floor(r * groups / rows); codes -127 .. 127, or -8 .. 7."""
    values, out = w.detach(), torch.empty_like(w)
    rows = values.shape[0]
    group = torch.arange(rows) * groups // rows
    least, most = (-127, 127) if bits == 8 else (-(1 << bits - 1), (1 << bits - 1) - 1)
    for g in range(groups):
        part = values[group == g]
        scale = torch.maximum(part.max() / most, part.min() / least)
        out[group == g] = torch.clamp(torch.round(part / scale), least, most) * scale
    return Straight.apply(w, out)


class RoundedMap(torch.nn.Module):
    """A Conv1D of GPT-2 (weights [in, out]) with rounded weights and tokens."""
    def __init__(self, conv, bits, groups):
        super().__init__()
        self.weight, self.bias, self.bits, self.groups = conv.weight, conv.bias, bits, groups

    def forward(self, x):
        return F.linear(round_tokens(x), round_weight(self.weight.t(), self.bits, self.groups), self.bias)


def make_student(path, groups):
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    for block in model.transformer.h:
        for part, names, bits in ((block.attn, ("c_attn", "c_proj"), 8), (block.mlp, ("c_fc", "c_proj"), 4)):
            for name in names:
                assert isinstance(getattr(part, name), Conv1D)
                setattr(part, name, RoundedMap(getattr(part, name), bits, groups))
    return model


def ids_of(tokenizer, path, limit=None):
    with open(path, encoding="utf-8", errors="replace") as f:
        text = f.read() if limit is None else f.read(16 * limit)
    return torch.tensor(tokenizer.encode(text, add_special_tokens=False).ids[:limit])


@torch.no_grad()
def divergence(teacher, student, ids):
    """Mean KL divergence of the student's predictions from the teacher's, in nats."""
    total, n = 0.0, 0
    for at in range(0, len(ids) // WINDOW * WINDOW, WINDOW):
        window = ids[None, at:at + WINDOW - 1]
        p, q = (F.log_softmax(model(window).logits[0].double(), -1) for model in (teacher, student))
        total += float((p.exp() * (p - q)).sum())
        n += WINDOW - 1
    return total / n


def hidden_loss(teacher, student, batch):
    with torch.no_grad():
        wanted = teacher.transformer(batch, output_hidden_states=True).hidden_states[1:]
    got = student.transformer(batch, output_hidden_states=True).hidden_states[1:]
    return sum(F.mse_loss(a, b) / b.square().mean() for a, b in zip(got, wanted)) / len(wanted)


def batches(texts, args, seed):
    chooser = random.Random(seed)
    while True:
        rows = []
        for _ in range(args.batch):
            ids = texts[chooser.randrange(len(texts))]
            at = chooser.randrange(len(ids) - args.length)
            rows.append(ids[at:at + args.length])
        yield torch.stack(rows)


def train(teacher, student, source, steps, rate):
    optimizer = torch.optim.AdamW(student.transformer.h.parameters(), lr=rate, weight_decay=0.0)
    for i in range(steps):
        optimizer.zero_grad(set_to_none=True)
        loss = hidden_loss(teacher, student, next(source))
        loss.backward()
        optimizer.step()
        if i % 20 == 0:
            print(f"rate {rate:g}, step {i}: loss {loss.item():.5f}", file=sys.stderr, flush=True)


def best_rate(args, teacher, texts):
    """Of several rates, tried for a few steps each, the one with the least loss on batches that were not trained on."""
    losses = {}
    for rate in args.rates:
        student = make_student(args.model, args.groups)
        train(teacher, student, batches(texts, args, 1), args.trial_steps, rate)
        judge = batches(texts, args, 1000)
        with torch.no_grad():
            losses[rate] = sum(hidden_loss(teacher, student, next(judge)).item() for _ in range(4))
    return min(losses, key=losses.get)


def distil(args):
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    tokenizer = Tokenizer.from_file(os.path.join(args.model, "tokenizer.json"))
    texts, test = [ids_of(tokenizer, path) for path in args.data], ids_of(tokenizer, args.test, args.limit)
    teacher = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    nearest = divergence(teacher, make_student(args.model, args.groups), test)
    start, processor = time.perf_counter(), time.process_time()
    rate = args.rates[0] if len(args.rates) == 1 else best_rate(args, teacher, texts)
    student = make_student(args.model, args.groups)
    train(teacher, student, batches(texts, args, 2 + args.seed), args.steps, rate)
    wall, processor = time.perf_counter() - start, time.process_time() - processor
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"nearest": nearest, "kl": divergence(teacher, student, test), "rate": rate, "seconds": wall, "processor_seconds": processor,
            "memory_bytes": memory, "tokens": args.steps * args.batch * args.length}
