"""Makes tokenizer_golden.json, which test_tokenizer_golden.c reads: small tokenizers, one or two for every component, with what
Hugging Face's tokenizers makes of a few texts: ids, ids without special tokens, these ids decoded, decoded with special tokens.

    python tests/unit/tokenizer_golden.py > tests/unit/tokenizer_golden.json        (needs the package tokenizers; 0.23.3 made ours)
"""

import json
import sys

from tokenizers import Tokenizer


def byte_alphabet():
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(hidden)) for b in range(256)]


def bpe(tokens, merges, **options):
    tokens = list(tokens)
    for left, right in merges:
        tokens.append(left + right[len(options.get("continuing_subword_prefix") or "") :])
    return {"type": "BPE", "vocab": {t: i for i, t in enumerate(dict.fromkeys(tokens))}, "merges": merges, **options}


def chain(*steps):
    """Merges for words written as their parts: 'a b c' gives (a, b), (ab, c)."""
    merges = []
    for step in steps:
        left, *rest = step.split(" ")
        for right in rest:
            if [left, right] not in merges:
                merges.append([left, right])
            left += right
    return merges


LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEHTS0123456789.,!?'-_<>|/#▁éäσßıǆ日本語한🙂\n"
MODELS = {
    "bytes": bpe(
        byte_alphabet(),
        chain("Ġ t h e", "t h e", "i n", "Ġ a", "e r", "ĠĠ", "Ġ Ġ", "ĠĠ ĠĠ", "a a", "aa aa", "aaaa aaaa", "Ã ©", "æ Ĺ", "æĹ ¥"),
    ),
    "letters": bpe(["<unk>", *LETTERS], chain("t h e", "▁ t", "▁t he", "a a", "aa a", "aa aa", "h e", "l l"), unk_token="<unk>"),
    "silent": bpe(list("abct "), chain("a b", "ab c"), unk_token=None),
    "spm": bpe(
        ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256) if b != 0xF0), *LETTERS],
        chain("▁ t", "h e", "▁t he", "a a", "aa aa", "▁ ▁", "▁▁ ▁▁", "l l"),
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    ),
    "whole": bpe(["<unk>", "▁", "a", "b", "c", "abc"], [["a", "b"]], unk_token="<unk>", ignore_merges=True),
    "affixes": bpe(
        ["a", "a</w>", "b</w>", "##b", "##b</w>", "##a", "##a</w>"],
        [["a", "##b"], ["a", "##b</w>"], ["ab", "##a</w>"], ["##b", "##a"]],
        unk_token="a",
        fuse_unk=True,
        continuing_subword_prefix="##",
        end_of_word_suffix="</w>",
    ),
    "pieces": {
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 12,
        "vocab": {
            t: i
            for i, t in enumerate(
                [
                    "[PAD]",
                    "[UNK]",
                    "[CLS]",
                    "[SEP]",
                    "[MASK]",
                    "the",
                    "##s",
                    "t",
                    "##h",
                    "##e",
                    "a",
                    "##a",
                    "aa",
                    "cafe",
                    "ca",
                    "##fe",
                    ",",
                    ".",
                    "'",
                    "!",
                    "日",
                    "本",
                    "i",
                    "##̇",
                    "don",
                    "##t",
                    "s",
                    "é",
                    "e",
                ]
            )
        },
    },
}


def token(content, **flags):
    return {
        "id": 0,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": False,
        **flags,
    }


def seq(kind, *steps):
    return {"type": "Sequence", kind: list(steps)}


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
BERT = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
SPM = seq("normalizers", {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"})
SPM_BACK = seq(
    "decoders",
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
    {"type": "ByteFallback"},
    {"type": "Fuse"},
    {"type": "Strip", "content": " ", "start": 1, "stop": 0},
)
QWEN = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|" " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"


def split(pattern, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


def template(first, second):
    return {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [
            {"Sequence": {"id": "B", "type_id": 1}},
            {"SpecialToken": {"id": "x y", "type_id": 2}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "special_tokens": {
            "<s>": {"id": "<s>", "ids": [first], "tokens": ["<s>"]},
            "x y": {"id": "x y", "ids": [first, second], "tokens": ["x", "y"]},
        },
    }


TEXTS = [
    "",
    "the",
    "the the  the   ",
    "Don't the 12345,67!",
    "aaaaaaaaaaaaa",
    "Caf\u00e9 cafe\u0301 ÄÖ \u0130I \u03a3 \ufb01 \ufdfa",
    "日本語 한국\u1112\u1161\u11ab",
    " \t\n\n  x\r\n\u00a0\u3000\u0085\u200b\u180e a",
    "🙂🙂👍🏽 \U0001f1e9\U0001f1ea",
    "a\u0323\u0301\u0301\u0323b\u0345\u0334 \u0958\u0344",
    "abc ab abcabc abba",
    "<s>The<mask>  the</s> [MASK]x <mas the_<mask>",
    "\u0001\u007f\u00ad\ufffd\ufeffx",
    "A-b.c?d 'll I'LL",
    "\u216b\u00b2\u0663 ½",
]

CASES = [
    ("bytes", dict(pre_tokenizer=BYTES, decoder=BYTES)),
    (
        "bytes",
        dict(
            pre_tokenizer={**BYTES, "add_prefix_space": True},
            decoder=BYTES,
            added_tokens=[token("<s>", special=True), token("  ", normalized=True)],
        ),
    ),
    (
        "bytes",
        dict(
            normalizer={"type": "NFC"},
            pre_tokenizer=seq("pretokenizers", split({"Regex": QWEN}), {**BYTES, "use_regex": False}),
            decoder=BYTES,
        ),
    ),
    (
        "bytes",
        dict(
            pre_tokenizer=seq(
                "pretokenizers", {"type": "Digits", "individual_digits": True}, BYTES, {"type": "Digits", "individual_digits": False}
            ),
            decoder=BYTES,
        ),
    ),
    (
        "bytes",
        dict(
            normalizer={"type": "ByteLevel"},
            decoder=BYTES,
            post_processor={
                "type": "RobertaProcessing",
                "sep": ["</s>", 2],
                "cls": ["<s>", 0],
                "trim_offsets": True,
                "add_prefix_space": False,
            },
        ),
    ),
    (
        "spm",
        dict(
            normalizer=SPM,
            decoder=SPM_BACK,
            post_processor=template(1, 2),
            added_tokens=[token("<s>", special=True), token("</s>", special=True)],
        ),
    ),
    (
        "spm",
        dict(
            pre_tokenizer={"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False},
            decoder=SPM_BACK,
            added_tokens=[token("<s>", special=True), token("</s>", special=True, normalized=True)],
        ),
    ),
    (
        "spm",
        dict(
            pre_tokenizer={"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
            decoder={"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
            added_tokens=[token("<s>")],
        ),
    ),
    (
        "spm",
        dict(
            pre_tokenizer={"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": True},
            decoder={"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": True},
        ),
    ),
    (
        "pieces",
        dict(
            normalizer=BERT,
            pre_tokenizer={"type": "BertPreTokenizer"},
            decoder={"type": "WordPiece", "prefix": "##", "cleanup": True},
            post_processor={"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
            added_tokens=[token("[MASK]", special=True)],
        ),
    ),
    (
        "pieces",
        dict(
            normalizer={**BERT, "lowercase": False, "strip_accents": True, "clean_text": False},
            pre_tokenizer={"type": "Whitespace"},
            decoder={"type": "WordPiece", "prefix": "##", "cleanup": False},
            post_processor=template(2, 3),
        ),
    ),
    ("pieces", dict(normalizer={**BERT, "handle_chinese_chars": False, "strip_accents": False}, pre_tokenizer={"type": "WhitespaceSplit"})),
    ("whole", dict(pre_tokenizer={"type": "WhitespaceSplit"})),
    ("affixes", dict(pre_tokenizer={"type": "WhitespaceSplit"})),
    ("silent", dict(pre_tokenizer=None)),
    ("letters", dict(added_tokens=[token("<mask>", lstrip=True, special=True), token("the", single_word=True), token("x", rstrip=True)])),
    (
        "letters",
        dict(
            normalizer={"type": "Lowercase"},
            added_tokens=[token("<mask>", lstrip=True, rstrip=True, special=True), token("the", normalized=True)],
        ),
    ),
    ("letters", dict(pre_tokenizer=seq("pretokenizers"), post_processor=seq("processors", BYTES, template(3, 4)))),
]
CASES += [
    ("letters", dict(normalizer=n))
    for n in (
        {"type": "NFC"},
        {"type": "NFD"},
        {"type": "NFKC"},
        {"type": "NFKD"},
        {"type": "StripAccents"},
        seq("normalizers", {"type": "NFD"}, {"type": "StripAccents"}),
        {"type": "Strip", "strip_left": True, "strip_right": False},
        {"type": "Strip", "strip_left": False, "strip_right": True},
        {"type": "Replace", "pattern": {"Regex": "\\s+|$"}, "content": "_"},
        {"type": "Replace", "pattern": {"String": "th"}, "content": "a"},
    )
]
CASES += [
    ("letters", dict(pre_tokenizer=p))
    for p in (
        *(
            split({"Regex": "[a-c]|\\d+"}, b, i)
            for b in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")
            for i in (False, True)
        ),
        split({"String": "a"}, "MergedWithNext"),
        split({"Regex": "\\w+|[^\\w\\s]+"}, "Removed", True),
        split({"Regex": "\\b"}, "Isolated"),
        split({"Regex": "x*"}),
        split({"Regex": "[\\p{Lu}\\p{M}]\\h?|\\p{Han}+|\\P{L}"}),
        {"type": "Punctuation", "behavior": "Contiguous"},
        {"type": "Digits", "individual_digits": False},
    )
]
CASES += [
    ("letters", dict(decoder=d))
    for d in (
        {"type": "Fuse"},
        {"type": "Strip", "content": "a", "start": 2, "stop": 0},
        {"type": "Replace", "pattern": {"Regex": "[aeiou]"}, "content": "*"},
    )
]


def measure(model, parts):
    root = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": None,
        **parts,
        "model": {"fuse_unk": False, "byte_fallback": False, "dropout": None, **MODELS[model]},
    }
    hf = Tokenizer.from_str(json.dumps(root))
    answers = []
    for text in TEXTS:
        try:
            ids, plain = hf.encode(text).ids, hf.encode(text, add_special_tokens=False).ids
            answers.append([ids, plain, hf.decode(ids), hf.decode(ids, skip_special_tokens=False)])
        except BaseException as e:  # the library panics where it has defects; such texts say nothing
            print(f"{model} {parts}: {text!r}: {e}", file=sys.stderr)
            answers.append(None)
    pair = hf.encode(TEXTS[2], TEXTS[3])
    return {"model": model, "parts": parts, "answers": answers, "pair": [pair.ids, pair.type_ids]}


lines = ",\n".join(json.dumps(measure(*case), ensure_ascii=False, separators=(",", ":")) for case in CASES)
models, texts = (json.dumps(x, ensure_ascii=False, separators=(",", ":")) for x in (MODELS, TEXTS))
sys.stdout.buffer.write(f'{{"models":{models},\n"texts":{texts},\n"cases":[\n{lines}\n]}}\n'.encode())
