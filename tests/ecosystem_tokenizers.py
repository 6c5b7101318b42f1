"""Compares `zq tokenize` with Hugging Face's tokenizers on random and nasty strings, for every tokenizer of the shared data.

    python tests/ecosystem_tokenizers.py ZQ_BINARY SHARED_DIR [--texts N] [--seed S] [--only NAME]

Encoding with and without special tokens, decoding of those ids and of random ids with and without special tokens. Needs the
packages tokenizers and transformers (for the folders that have no tokenizer.json). Exit code 1 if anything differs.
"""
import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
from tokenizers import Tokenizer  # noqa: E402

WORDS = """the a of and to in don't can't WE'LL they're I'd it's Hello world ZeroQuant naïve café Straße ΣΊΣΥΦΟΣ Σ İstanbul ıIiİ ﬁnance
ǅ Ǆungla שלום مرحبا हिन्दी தமிழ் ภาษาไทย 日本語 中文字符 한국어 각 ｆｕｌｌ ½ ² Ⅷ ① ٣٤٥ 12 3.14159 1,000,000 0x1F e\u0301 a\u0308\u0323 \u1100\u1161\u11a8
🙂 👩‍👩‍👧‍👦 🇩🇪 👍🏽 ❤️ ﷺ \ufb03 \u212b \u2126 \u00b5 \u017f \u1e9e __init__ snake_case CamelCase http://a.b/c?d=e&f user@example.com #tag <b> </s> <s>
C++ -> => !== ... … — “quoted” ‘x’ «y» \u200b \u200d \ufeff \u00ad \u0085 \u180e \u3000 \u00a0 \u2028""".split(" ")
WORDS = [w for chunk in WORDS for w in chunk.split("\n")]
SPACES = [" ", "  ", "   ", "\n", "\n\n", "\t", "\r\n", " \n ", "\u00a0", "\u3000", "\u2003", "\u0085", "\u200b", "\u180e", "\x0b", "\x0c", "\x1c"]
BLOCKS = [(0x1, 0x7f), (0x80, 0x24f), (0x250, 0x36f), (0x370, 0x52f), (0x590, 0x8ff), (0x900, 0xdff), (0xe00, 0x11ff), (0x1200, 0x1fff),
          (0x2000, 0x2bff), (0x2c00, 0x33ff), (0x3400, 0x9fff), (0xa000, 0xabff), (0xac00, 0xd7a3), (0xe000, 0xf8ff), (0xf900, 0xffff),
          (0x10000, 0x16fff), (0x17000, 0x1bfff), (0x1d000, 0x1d7ff), (0x1e000, 0x1f9ff), (0x20000, 0x2fa1f), (0x30000, 0xe01ef), (0xf0000, 0x10ffff)]


def random_char(rng):
    low, high = rng.choice(BLOCKS)
    c = rng.randint(low, high)
    return chr(c) if not 0xd800 <= c < 0xe000 else "\ufffd"


def random_text(rng, specials):
    """One text without NUL, of a kind drawn at random."""
    kind = rng.randrange(9)
    if kind == 0:
        return "".join(random_char(rng) for _ in range(rng.randint(1, 30)))
    if kind == 1:
        low, high = rng.choice(BLOCKS[:-3])
        return "".join(chr(c) if not 0xd800 <= (c := rng.randint(low, high)) < 0xe000 else "x" for _ in range(rng.randint(1, 40)))
    if kind == 2:  # runs of one character
        return "".join(rng.choice([rng.choice(WORDS)[:1] or "a", random_char(rng), rng.choice(SPACES)]) * rng.choice([1, 2, 3, 7, 30, 120])
                       for _ in range(rng.randint(1, 5)))
    if kind == 3:  # marks on letters
        return "".join(rng.choice("aeiouAEIOUxZΩж각") + "".join(chr(rng.choice([rng.randint(0x300, 0x36f), rng.randint(0x1ab0, 0x1ace), 0x5b0, 0x64b,
                       0x93c, 0x302e, 0x1d165])) for _ in range(rng.randint(0, 6))) for _ in range(rng.randint(1, 12)))
    if kind == 4:  # special tokens, whole and broken
        parts = []
        for _ in range(rng.randint(1, 8)):
            token = rng.choice(specials)
            cut = rng.choice([token, token, token[:-1], token[1:], token.upper(), token + token[:2], token[:len(token) // 2]])
            parts += [cut, rng.choice(["", "", " ", "  ", "x", "\n", rng.choice(WORDS)])]
        return "".join(parts)
    if kind == 5:
        return "".join(rng.choice(SPACES) if rng.random() < 0.6 else rng.choice(WORDS) for _ in range(rng.randint(1, 25)))
    if kind == 6:  # ASCII noise
        return "".join(chr(rng.randint(1, 127)) for _ in range(rng.randint(1, 60)))
    text = "".join(rng.choice(WORDS) + rng.choice([" ", " ", " ", "", rng.choice(SPACES)]) for _ in range(rng.randint(1, 40)))
    return text if kind == 7 else "".join(c if rng.random() < 0.95 else random_char(rng) for c in text)


def zq(binary, path, records, *options):
    """The output of one call for many records, split."""
    decode = "--decode" in options
    data = b"".join(r.encode() + (b"\n" if decode else b"\0") for r in records)
    run = subprocess.run([binary, "tokenize", path, "--nul", *options], input=data, capture_output=True)
    if run.returncode:
        raise SystemExit(f"{path}: zq tokenize failed: {run.stderr.decode()}")
    lines = run.stdout.split(b"\0" if decode else b"\n")[:-1]
    assert len(lines) == len(records), (path, options, len(lines), len(records))
    return [line.decode() for line in lines]


class Report:
    def __init__(self):
        self.checked = self.failed = 0

    def compare(self, name, what, inputs, got, want):
        shown = 0
        for i, g, w in zip(inputs, got, want):
            self.checked += 1
            if g == w:
                continue
            self.failed += 1
            if shown < 3:
                print(f"{name}: {what}: {ascii(i)[:300]}\n   zq   {ascii(g)[:300]}\n   hf   {ascii(w)[:300]}")
            shown += 1
        if shown > 3:
            print(f"{name}: {what}: {shown} differ")


def check(report, binary, name, path, hf, rng, n_texts):
    specials = [t.content for t in hf.get_added_tokens_decoder().values() if t.content.strip()] or ["<|x|>"]
    texts = [random_text(rng, specials) for _ in range(n_texts)]
    texts += ["", " ", "a", "\n", "a" * 3000, " " * 3000, "\u0301" * 500, "<|" * 500, "🙂" * 500, "日" * 500, "é" * 500]
    ids = {}
    for special in (True, False):
        ids[special] = [e.ids for e in hf.encode_batch(texts, add_special_tokens=special)]
        got = zq(binary, path, texts, *([] if special else ["--no-special"]))
        report.compare(name, f"encode special={special}", texts, got, [" ".join(map(str, i)) for i in ids[special]])
    known = sorted(hf.get_vocab(with_added_tokens=True).values())
    lists = ids[True] + [[rng.choice(known) for _ in range(rng.randint(1, 12))] for _ in range(n_texts // 4)]
    for skip in (True, False):
        want = [hf.decode(i, skip_special_tokens=skip) for i in lists]
        kept = [k for k in range(len(lists)) if "\0" not in want[k]]  # NUL separates the answers
        got = zq(binary, path, [" ".join(map(str, lists[k])) for k in kept], "--decode", *([] if skip else ["--keep-special"]))
        report.compare(name, f"decode skip={skip}", [lists[k] for k in kept], got, [want[k] for k in kept])
    for text in ("\0", "a\0b", "\0\0 c\0"):
        run = subprocess.run([binary, "tokenize", path], input=text.encode(), capture_output=True, check=True)
        report.compare(name, "encode NUL", [text], [run.stdout.decode().strip()], [" ".join(map(str, hf.encode(text).ids))])


def from_old_files(folder, classes, renamed, work):
    """transformers' reading of a folder without tokenizer.json; renamed: the file names that it expects."""
    import transformers
    copy = os.path.join(work, os.path.basename(folder))
    shutil.copytree(folder, copy)
    for old, new in renamed.items():
        os.rename(os.path.join(copy, old), os.path.join(copy, new))
    return getattr(transformers, classes).from_pretrained(copy).backend_tokenizer


def opt_folder(shared, work):
    """The older files of an OPT tokenizer, made from GPT-2's: bos is prepended."""
    folder = os.path.join(work, "opt-like")
    os.makedirs(folder)
    source = os.path.join(shared, "data/tokenizers/gpt2")
    vocab = json.load(open(os.path.join(source, "encoder.json"), encoding="utf-8"))
    vocab["</s>"] = vocab.pop("<|endoftext|>")
    json.dump(vocab, open(os.path.join(folder, "vocab.json"), "w", encoding="utf-8"), ensure_ascii=False)
    shutil.copy(os.path.join(source, "vocab.bpe"), os.path.join(folder, "merges.txt"))
    json.dump({"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, "bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>",
               "pad_token": "</s>"}, open(os.path.join(folder, "tokenizer_config.json"), "w"))
    return folder


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("zq")
    parser.add_argument("shared")
    parser.add_argument("--texts", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only")
    a = parser.parse_args()
    work = tempfile.mkdtemp(prefix="zq-tokenizers-")
    folders, seen = [], set()
    for parent in ("data/tokenizers", "models"):
        for entry in sorted(os.listdir(os.path.join(a.shared, parent))):
            folders.append(os.path.join(a.shared, parent, entry))
    folders.append(opt_folder(a.shared, work))
    report = Report()
    for folder in folders:
        name = os.path.basename(folder)
        files = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        whole = [f for f in files if f.endswith("tokenizer.json")]
        if (a.only and a.only != name) or not (whole or "vocab.txt" in files or any(f.endswith(("vocab.json", "encoder.json")) for f in files)):
            continue
        if whole:
            path = os.path.join(folder, whole[0])
            content = open(path, "rb").read()
            if content in seen:  # the small models share a tokenizer
                continue
            seen.add(content)
            hf = Tokenizer.from_file(path)
            hf.no_truncation()
            hf.no_padding()
        elif "encoder.json" in files:
            hf = from_old_files(folder, "GPT2Tokenizer", {"encoder.json": "vocab.json", "vocab.bpe": "merges.txt"}, work)
        elif "vocab.txt" in files:
            hf = from_old_files(folder, "BertTokenizer", {}, work)
        else:
            hf = from_old_files(folder, "Qwen2Tokenizer" if "qwen2" in name else "GPT2Tokenizer", {}, work + "/copies")
        before = report.failed
        check(report, a.zq, name, folder, hf, random.Random(a.seed), a.texts)
        differences = report.failed - before
        print(f"FAIL {name}: {differences} differences" if differences else f"PASS {name}: equal", flush=True)
    shutil.rmtree(work)
    print(f"{report.checked} comparisons, {report.failed} differences")
    return 1 if report.failed or not report.checked else 0


if __name__ == "__main__":
    sys.exit(main())
