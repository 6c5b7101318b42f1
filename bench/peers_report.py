"""Writes docs/performance.md and a chart per table from the turns that bench/peers.py kept. A section belongs to a processor: those of other processors
stay as they are."""
import collections
import glob
import importlib.metadata
import json
import os
import re
import statistics
import subprocess

import peers_chart

FAR = 2.0  # times what a line of cache takes to another core and back at the least
PACKAGES = ["torch", "onnxruntime", "openvino", "nncf", "optimum-intel", "ctranslate2", "llama-cpp-python"]
N_LAYERS = {"gpt-j-6b": 28, "gpt-neox-20b": 44}
TITLES = {
    "product": ("A linear map by itself, GOP/s", "Columns: tokens x inputs x outputs, with a pass that makes INT8 tokens from floats; and from tokens as the operator "
                "before leaves them. Weights are far larger than the caches. PyTorch and ONNX Runtime take one range for all tokens."),
    "bert": ("BERT-base, sequences per second", "Columns: sequences x tokens."),
    "minilm": ("MiniLM-L6 (6 layers of width 384), sequences per second", "Columns: sequences x tokens."),
    "bert-large": ("BERT-large, sequences per second", "Columns: sequences x tokens."),
    "gpt": ("GPT-2 architecture, 24 layers of width 1024 (350M), tokens per second",
            "A prompt of 512 tokens, then one token after another behind it. Everybody computes the logits of a prompt's last token only. Our head and "
            "embedding are INT8, those of the BF16 row BF16."),
    "llama": ("LLaMA architecture, TinyLlama's shape (1.1B), tokens per second",
              "A prompt of 512 tokens, then one token after another behind it; logits of the last token only, our head and embedding INT8. llama.cpp quantizes "
              "activations in blocks of 32 or 256 and keeps the head of its 4-bit files in Q6_K."),
    "first": ("50 tokens after a prompt of 128, tokens per second", "The prompt's time is included. Rows are of the 350M shape unless they say 1.3B. The other columns: our parts of it."),
}


def processor():
    text = open("/proc/cpuinfo").read()
    names = sorted({line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")})
    flags = set(text.split())
    level = next((name for flag, name in (("amx_int8", "AMX"), ("avx512_vnni", "AVX-512 VNNI"), ("avx_vnni", "AVX-VNNI"), ("avx2", "AVX2 only"))
                  if flag in flags), "no AVX2")
    held = f", ZQ_ISA={os.environ['ZQ_ISA']}" if os.environ.get("ZQ_ISA") else ""
    return f"{', '.join(names) or os.uname().machine}, {level}{held}"


def share_of(rows):
    """Of the limit that each round measured for itself."""
    shares = [row["share"] for row in rows if row.get("share")]
    return statistics.median(shares) if shares else None


class Stage:
    """Turns of one stage by competitor: rows[who][work] = (median of the rounds' medians, best, share of the limit or None)."""

    def __init__(self, rows_folder, name):
        self.name, self.kinds, self.failed, self.peaks, self.rows, self.rounds = name, {}, [], {}, {}, {}
        turns = [json.load(open(path)) for path in glob.glob(os.path.join(rows_folder, name, "*.json"))]
        self.turns = sorted(turns, key=lambda turn: (turn["started"], turn["who"]))
        values = collections.defaultdict(list)
        for turn in self.turns:
            if "failed" in turn:
                self.failed.append(turn["who"])
                continue
            self.kinds[turn["who"]] = turn["kind"]
            self.rounds[turn["who"]] = self.rounds.get(turn["who"], 0) + 1
            self.peaks[turn["who"]] = max(turn["peak_bytes"], self.peaks.get(turn["who"], 0))
            for row in turn["rows"]:
                values[turn["who"], row["work"], row.get("model"), row.get("layers")].append(row)
        self.all = {key: (statistics.median(row["median"] for row in rows), max(row["best"] for row in rows), share_of(rows))
                    for key, rows in values.items()}
        for (who, work, _, _), value in self.all.items():
            self.rows.setdefault(who, {})[work] = value
        self.rows = dict(sorted(self.rows.items(), key=lambda item: self.place(item[0])))

    def place(self, who):
        """Peers' FP32, peers, our floats, our schemes; what belongs to the larger model, after all of the smaller."""
        scheme, *rest = who.removeprefix("zq ").split(",")
        return (who.endswith("1.3B"), ["yardstick", "peer", "float", "zq"].index(self.kinds[who]), rest, -len(self.rows[who]),
                ["W8A8", "W4/8A8", "W4A8"].index(scheme) if scheme in ("W8A8", "W4/8A8", "W4A8") else 0, who)

    def works(self):
        found = dict.fromkeys(work for rows in self.rows.values() for work in rows)
        return [work for work in found if self.name == "first" or not re.match(r"\d+ after", work)]

    def best_peer(self, work, suffix=""):
        found = [(rows[work][0], who) for who, rows in self.rows.items()
                 if work in rows and self.kinds[who] in ("peer", "yardstick") and who.endswith(suffix)]
        return max(found, default=(None, ""))


def number(value):
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def cell(value, ratio_to=None):
    median, best, share = value
    text = f"{number(median)} ({number(best)})"
    if ratio_to:
        text += f" {median / ratio_to:.2f}x"
    return text + (f", {100 * share:.0f} %" if share else "")


def head(columns):
    return ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]


def race(stage):
    """Everybody's rates; ours with the ratio to the best peer of the column."""
    works = sorted(stage.works(), key=lambda work: stage.name == "first" and not work.startswith("50"))
    lines = head(["", *works, "rounds", "peak memory"])
    for who, rows in stage.rows.items():
        own = stage.kinds[who] in ("zq", "float")
        suffix = ", 1.3B" if who.endswith("1.3B") else ""
        cells = [cell(rows[work], own and (stage.best_peer(work, suffix) if suffix else best_plain(stage, work))[0]) if work in rows else "" for work in works]
        lines.append(f"| {who} | " + " | ".join(cells) + f" | {stage.rounds[who]} | {stage.peaks[who] / 1e6:,.0f} MB |")
    if stage.failed:
        lines += ["", f"Could not run here: {', '.join(sorted(set(stage.failed)))}."]
    return lines


def best_plain(stage, work):
    found = [(rows[work][0], who) for who, rows in stage.rows.items()
             if work in rows and stage.kinds[who] in ("peer", "yardstick") and not who.endswith("1.3B")]
    return max(found, default=(None, ""))


def race_chart(stage):
    """Groups of bars for peers_chart: (title, [(label, value, kind)])."""
    groups = []
    for work in stage.works():
        if stage.name == "first" and not work.startswith("50"):
            continue
        for suffix in ("", ", 1.3B") if stage.name == "first" else ("",):
            bars = [(who.removesuffix(suffix), rows[work][0], peers_chart.colour(who, stage.kinds[who])) for who, rows in stage.rows.items()
                    if work in rows and who.endswith("1.3B") == bool(suffix)]
            groups.append((work + suffix, bars))
    return groups


def machine_table(stage):
    lines, groups = head(["limit", "median", "best", ""]), collections.defaultdict(list)
    for turn in stage.turns:
        for row in turn["rows"]:
            name = row["work"].removeprefix("machine.")
            lines.append(f"| {name} | {number(row['median'])} | {number(row['best'])} | {row['unit']} |")
            groups[row["unit"]].append((name, row["median"], peers_chart.OURS))
    return lines, list(groups.items())


def fusion_table(stage):
    lines = head(["", "batch x length", "BF16 weights, float products", "INT8, passes of their own", "INT8, fused", "fused / float", "fused / passes"])
    groups = []
    for who, rows in stage.rows.items():
        for work in [work for work in rows if re.fullmatch(r"\d+x\d+", work)]:
            values = [rows["float.encode." + work][0], rows["unfused.encode." + work][0], rows[work][0]]
            lines.append(f"| {who} | {work} | " + " | ".join(map(number, values)) + f" | {values[2] / values[0]:.2f}x | {values[2] / values[1]:.2f}x |")
            names = [("BF16", peers_chart.FLOAT), ("INT8, passes", peers_chart.PEER), ("INT8, fused", peers_chart.OURS)]
            groups.append((f"{who}, {work}", [(name, value, colour) for (name, colour), value in zip(names, values)]))
    return lines, groups


def granularity_table(stage):
    lines = head(["scales for", "weights", "sequences/s, 1x128", "time against channel", "rounding error of weights"])
    groups = []
    for who, rows in stage.rows.items():
        channel, bars = rows["channel.encode.1x128"][0], []
        for group in ("tensor", "rows:48", "channel", "k:128", "k:64", "k:32"):
            rate, error = rows[f"{group}.encode.1x128"][0], rows[f"{group}.error"][0]
            lines.append(f"| {group} | {who.split(',')[0]} | {number(rate)} | {channel / rate:.2f}x | {error:.3g} % |")
            bars.append((f"{group} (error {error:.2g} %)", rate, peers_chart.OURS))
        groups.append((f"{who.split(',')[0]}, sequences/s", bars))
    return lines, groups


def ops_table(stage):
    lines = head(["step", "operator", "ms", "share of the step", "limit, ms", "share of the limit", "bound by"])
    groups = collections.defaultdict(list)
    for turn in stage.turns:
        rows = [row for row in turn["rows"] if row["work"].startswith("ops.")]
        for row in rows:
            _, step, operator, size = row["work"].split(".")
            whole = next(r["median"] for r in rows if r["work"] == f"ops.{step}.step.{size}" and r["model"] == row["model"])
            limit = f"{row['limit']:.3g} | {100 * row['share']:.0f} % | {row['bound']}" if row["limit"] else " | | "
            title = f"{row['model']} {step} {size}"
            lines.append(f"| {title} | {operator} | {row['median']:.3g} | {100 * row['median'] / whole:.0f} % | {limit} |")
            if operator != "step":
                groups[title + ", ms"].append((operator, row["median"], peers_chart.OURS))
    return lines, list(groups.items())


def large_table(stage):
    """Time of the whole = time with one layer + (layers - 1) times the difference that a layer makes."""
    lines = head(["model", "", "prompt 128, tokens/s", "against our BF16", "decode, tokens/s", "ms per token", "against our BF16"])
    groups = collections.defaultdict(list)
    for model, layers in N_LAYERS.items():
        inferred = {}
        for who in stage.rows:
            for work in ("prompt 128", "decode 128"):
                few = {n: 1 / value[0] for (w, k, m, n), value in stage.all.items() if (w, k, m) == (who, work, model) and n}
                if len(few) == 2:
                    (low, high) = sorted(few)
                    inferred[who, work] = 1 / (few[low] + (layers - low) * (few[high] - few[low]) / (high - low))
        for scaled in (True, False):
            values = inferred if scaled else {(w, k): value[0] for (w, k, m, n), value in stage.all.items() if m == model and not n}
            for who in stage.rows:
                if (who, "decode 128") not in values:
                    continue
                rates = [values[who, work] for work in ("prompt 128", "decode 128")]
                base = [values.get(("zq BF16, fast", work)) for work in ("prompt 128", "decode 128")]
                ratios = [f"{rate / b:.2f}x" if b else "" for rate, b in zip(rates, base)]
                lines.append(f"| {model}, {'inferred from 1 and 3 layers' if scaled else 'whole'} | {who} | {number(rates[0])} | {ratios[0]} | "
                             f"{number(rates[1])} | {1e3 / rates[1]:.0f} | {ratios[1]} |")
                kind = stage.kinds[who]
                groups[f"{model}{', inferred' if scaled else ''}, decode tokens/s"].append((who, rates[1], peers_chart.colour(who, kind)))
    return lines, list(groups.items())


def threads_table(stage):
    plain = collections.defaultdict(dict)
    for who, rows in stage.rows.items():
        match = re.fullmatch(r"(.*), (\d+) threads?", who)
        for work, value in rows.items():
            if not re.match(r"\d+ after", work):
                plain[match[1], work][int(match[2])] = value[0]
    most = max(max(values) for values in plain.values())
    lines = head(["", "", "1 thread", f"{most} threads", "ratio"])
    groups = []
    for (who, work), values in plain.items():
        if len(values) == 2:
            lines.append(f"| {who} | {work} | {number(values[1])} | {number(values[most])} | {values[most] / values[1]:.2f}x |")
            groups.append((f"{who}, {work}", [("1 thread", values[1], peers_chart.FLOAT), (f"{most} threads", values[most],
                                                                                          peers_chart.OURS if who.startswith("zq") else peers_chart.PEER)]))
    return lines, groups


OTHERS = {
    "machine": ("What the machine can do", "`zq bench --machine`. `exchange`: what a line of cache takes to another core and back.", machine_table),
    "fusion": ("What fusing pays, sequences per second", "`zq bench --unfused`: the same step with a pass of its own for every quantization and dequantization. "
               "Float weights are BF16, their products are computed in what `fast` has here. All threads share every operator here; a batch "
               "otherwise goes through the blocks apart, a thread to a group of sequences.", fusion_table),
    "granularity": ("The price of granularity, BERT-base", "`zq bench --granularity`; the error is that of `models/novels`, as a share of the weights' norm.",
                    granularity_table),
    "ops": ("Where the time of a step goes, W8A8, fast", "`zq bench --ops`. No line is a pass that only quantizes: codes and scales are made inside the operators before.",
            ops_table),
    "threads": ("Scaling with threads", "Sequences or tokens per second of BERT-base 1x128 and the 350M decoder (prompt 128, and behind it).", threads_table),
    "large": ("Models that fill the memory, per token", "BF16 of 20 billion parameters is 41 GB: rows called inferred are measured with 1 and with 3 layers, and the "
              "difference between them counts for every further layer.", large_table),
}


def nearest(rows_folder):
    """The least that a line of cache took to another core and back in any turn, ns; None: one core."""
    turns = (json.load(open(path)) for path in glob.glob(os.path.join(rows_folder, "*", "*.json")))
    return min((turn["exchange_ns"] for turn in turns if turn.get("exchange_ns")), default=None)


def is_far(turn, nearest_ns):
    """Whether the cores did not share a cache after a turn, as they did after others: virtual cores are moved while they run."""
    return bool(nearest_ns) and (turn.get("exchange_ns") or 0) > FAR * nearest_ns


def distances(turns, nearest_ns):
    if not nearest_ns:
        return ""
    turns = [turn for turn in turns if turn.get("exchange_ns")]
    far = [turn["exchange_ns"] for turn in turns if is_far(turn, nearest_ns)]
    near = statistics.median(turn["exchange_ns"] for turn in turns if not is_far(turn, nearest_ns))
    text = f" A line of cache took {near:.0f} ns to another core and back after {len(turns) - len(far)} turns"
    return text + (f" and {statistics.median(far):.0f} ns after {len(far)}." if far else ".")


def version(package):
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return None


def section(rows_folder, docs, name, threads):
    key = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    stages = {stage: Stage(rows_folder, stage) for stage in dict.fromkeys(("machine", *TITLES, *OTHERS)) if glob.glob(os.path.join(rows_folder, stage, "*.json"))}
    turns = sorted((turn for stage in stages.values() for turn in stage.turns), key=lambda turn: turn["started"])
    others = sorted(turn["others"] for turn in turns)
    zq = subprocess.run(["build/zq", "--version"], capture_output=True, text=True).stdout.strip()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    lines = [f"## {name}", "",
             f"{turns[0]['started']} to {turns[-1]['started']}, {threads} threads each. {zq} ({commit or 'no commit'}), "
             f"{', '.join(filter(None, map(version, PACKAGES)))}. {len(turns)} turns, in which other programs took {100 * statistics.median(others):.1f} % of the processor's "
             f"time (median; at most {100 * others[-1]:.1f} %, more than 5 % in {sum(o > 0.05 for o in others)} turns).{distances(turns, nearest(rows_folder))}"]
    for stage_name, stage in stages.items():
        if "zq" not in stage.kinds.values():
            continue
        if stage_name in TITLES:
            title, text = TITLES[stage_name]
            table, groups = race(stage), race_chart(stage)
        else:
            title, text, make = OTHERS[stage_name]
            table, groups = make(stage)
        picture = f"performance-{key}-{stage_name}.svg"
        peers_chart.write(os.path.join(docs, picture), title, name, groups)
        lines += ["", f"### {title}", "", text, "", *table, "", f"![{title}]({picture})"]
    return "\n".join(lines) + "\n"


HEAD = """# Performance

Written by `bench/peers.sh`, which installs the other libraries, runs them and `zq bench` alternately on the same shapes with random weights, and
keeps the sections of processors other than the one it runs on. Only ratios within a section mean anything. `exact` and `fast` are `--math`.

A cell reads: median of the rounds' medians, (the best call of all), and for us the ratio to the best peer of the column and the share of what the
machine could do at best. A peer that stayed below 0.7 of the best peer everywhere had one round only. Memory is the peak of the process: of a peer it
includes Python and, for PyTorch, making the model.
"""


BY_HAND = "\n### What is not reached, and why\n"


def kept(old):
    """The part of a section that people wrote, which ends where the next one begins."""
    _, begin, rest = old.partition(BY_HAND)
    return begin + rest.split("\n### ")[0].rstrip() + "\n" if begin else ""


def write(rows_folder, docs, threads):
    target = os.path.join(docs, "performance.md")
    os.makedirs(docs, exist_ok=True)
    old = open(target).read() if os.path.exists(target) else ""
    sections = {part.split("\n", 1)[0]: "## " + part.rstrip() + "\n" for part in old.split("\n## ")[1:]}
    sections[processor()] = section(rows_folder, docs, processor(), threads) + kept(sections.get(processor(), ""))
    with open(target + ".new", "w") as file:
        file.write(HEAD + "".join("\n" + text for text in sections.values()))
    os.rename(target + ".new", target)
    return target
