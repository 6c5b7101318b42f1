"""Writes docs/performance.md and a chart per table from the rows that bench/peers.sh measured.

    peers_report.py WORK DOCS THREADS ROUNDS

A section belongs to a processor: those of other processors stay as they are.
"""
import collections
import glob
import importlib.metadata
import json
import os
import re
import statistics
import sys

work, docs, threads, rounds = sys.argv[1:]
TITLES = {"bert": "BERT-base, sequences per second", "minilm": "MiniLM-L6 (6 layers of width 384), sequences per second",
          "gpt": "GPT-2 architecture, 24 layers of width 1024 (350M), tokens per second"}
PACKAGES = ["torch", "onnxruntime", "openvino", "ctranslate2"]
OURS = {"exact": "zq {}, exact", "fast": "zq {}, fast"}


def processor():
    names = {line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")}
    flags = next(line for line in open("/proc/cpuinfo") if line.startswith("flags")).split()
    level = next((name for flag, name in (("amx_int8", "AMX"), ("avx512_vnni", "AVX-512 VNNI"), ("avx_vnni", "AVX-VNNI")) if flag in flags), "AVX2 only")
    return f"{', '.join(sorted(names))}, {level}"


def read(path):
    """{who: {work: (median of medians, best)}} of one stage; a peer that could not run has the work "failed"."""
    found = collections.defaultdict(lambda: collections.defaultdict(list))
    for line in open(path):
        row = json.loads(line)
        if "failed" in row:
            found[row["who"]]["failed"].append((0, 0))
        elif "who" in row:
            found[row["who"]][row["work"]].append((row["median"], row["best"]))
        elif row["name"].startswith(("encode.", "prompt", "decode")):
            who = OURS[row["math"]].format((row["scheme"] or "w8a8").upper())
            name = row["name"].removeprefix("encode.")
            name = "decode" if name.startswith("decode") else f"prompt {row['length']}" if name.startswith("prompt") else name
            found[who][name].append((row["median"], row["best"]))
    return {who: {name: (statistics.median(m for m, _ in values), max(b for _, b in values)) for name, values in rows.items()}
            for who, rows in found.items()}


def columns(stage):
    return [name for name in max(stage.values(), key=len) if name != "failed"]


def best_peer(stage, name):
    return max((rows[name][0], who) for who, rows in stage.items() if name in rows and not who.startswith("zq"))


def table(stage):
    names = columns(stage)
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for who, rows in stage.items():
        if "failed" in rows:
            continue
        cells = []
        for name in names:
            if name not in rows:
                cells.append("")
                continue
            median, best = rows[name]
            ratio = f", {median / best_peer(stage, name)[0]:.2f}x" if who.startswith("zq") else ""
            cells.append(f"{median:.3g} ({best:.3g}){ratio}")
        lines.append(f"| {who} | " + " | ".join(cells) + " |")
    failed = [who for who, rows in stage.items() if "failed" in rows]
    lines.append("| best peer | " + " | ".join(best_peer(stage, name)[1] for name in names) + " |")
    if failed:
        lines += ["", f"Could not run here: {', '.join(failed)}."]
    return lines


def chart(stage, title, path):
    """Bars of the medians, a group for each column, each scaled to its own largest value."""
    names = columns(stage)
    bar, gap, left, width = 15, 26, 190, 420
    height = 34 + len(names) * (len(stage) * bar + gap)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 80} {height}" font-family="sans-serif" font-size="11">',
           f'<rect width="100%" height="100%" fill="#fff"/><text x="8" y="18" font-size="13" font-weight="bold" fill="#222">{title}</text>']
    y = 34
    for name in names:
        top = max(rows[name][0] for rows in stage.values() if name in rows)
        out.append(f'<text x="8" y="{y + 12}" font-weight="bold" fill="#222">{name}</text>')
        y += 16
        for who, rows in stage.items():
            if name in rows:
                value = rows[name][0]
                color = "#c4501b" if who.startswith("zq") else "#8a94a6"
                out.append(f'<text x="{left - 6}" y="{y + 11}" text-anchor="end" fill="#222">{who}</text>'
                           f'<rect x="{left}" y="{y + 2}" width="{width * value / top:.1f}" height="{bar - 4}" fill="{color}"/>'
                           f'<text x="{left + width * value / top + 5:.1f}" y="{y + 11}" fill="#222">{value:.3g}</text>')
            y += bar
        y += gap - 16
    with open(path, "w") as file:
        file.write("\n".join(out) + "\n</svg>\n")


def section(name):
    key = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            pass
    lines = [f"## {name}", "", f"{threads} threads each, {rounds} rounds in which everybody had a turn; median of the rounds' medians, the best of all in",
             f"brackets, and for us the ratio to the best peer. Load of the machine at the end: {os.getloadavg()[2]:.1f} over 15 minutes. {', '.join(versions)}."]
    for path in sorted(glob.glob(os.path.join(work, "*.rows"))):
        stage_name = os.path.basename(path).removesuffix(".rows")
        stage = read(path)
        picture = f"performance-{key}-{stage_name}.svg"
        chart(stage, f"{TITLES[stage_name]}: {name}", os.path.join(docs, picture))
        lines += ["", f"### {TITLES[stage_name]}", "", *table(stage), "", f"![{TITLES[stage_name]}]({picture})"]
    return "\n".join(lines) + "\n"


HEAD = """# Performance

Written by `bench/peers.sh`, which installs the other libraries, runs them and `zq bench` alternately on the same shapes with random weights, and
keeps the sections of processors other than the one it runs on. Only ratios within a section mean anything. `exact` and `fast` are `--math`.
"""
target = os.path.join(docs, "performance.md")
old = open(target).read() if os.path.exists(target) else ""
sections = {part.split("\n", 1)[0]: "## " + part.rstrip() + "\n" for part in old.split("\n## ")[1:]}
sections[processor()] = section(processor())
with open(target + ".new", "w") as file:
    file.write(HEAD + "".join("\n" + text for text in sections.values()))
os.rename(target + ".new", target)
print(target)
