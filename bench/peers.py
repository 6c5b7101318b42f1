"""Gives everybody turns: bench/peers.sh describes the options. What a turn measured is kept in WORK/rows/STAGE/ROUND-WHO.json.

A turn is one process. Peers whose first turn stayed below KEEP of the best peer everywhere have no further one, so that the time goes to those that
matter; PyTorch FP32 and our own floats, which the paper's ratios are against, have one turn, too, but where layers are inferred.
"""
import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time
from typing import NamedTuple

import peers_report

KEEP = 0.7
QUIET = 0.1  # a turn during which other programs took a larger share of the processor is repeated when the run is called again
TURN_S = 300  # a turn that takes longer is given up
WORK = os.environ.get("ZQ_WORK", "build/peers")
DOCS = os.environ.get("ZQ_DOCS", "docs")
ROUNDS = int(os.environ.get("ZQ_ROUNDS", 3))
SECONDS = os.environ.get("ZQ_SECONDS", "1")
THREADS = os.environ.get("ZQ_THREADS", str(len(os.sched_getaffinity(0))))
ROWS = os.path.join(WORK, "rows")
SCHEMES = ("w8a8", "w4/8a8", "w4a8")


class Competitor(NamedTuple):
    who: str
    commands: list
    kind: str  # "zq", "float" (ours, too), "peer" or "yardstick"
    env: dict = {}  # beside ours


def flags():
    for line in open("/proc/cpuinfo"):
        if line.startswith(("flags", "Features")):
            return set(line.split())
    return set()


BF16 = bool(flags() & {"avx512_bf16", "amx_bf16", "bf16"})  # without them the peers' BF16 is far slower than their FP32


def cap():
    """What holds peers to our level, where that is below what they would use: (its name, environment), or None."""
    names = {"avx2": ("AVX2", "avx2", "AVX2"), "avxvnni": ("AVX2_VNNI", "avx2", "AVX2"), "avx512vnni": ("AVX512_CORE_VNNI", "avx512", "AVX512"),
             "avx512bf16": ("AVX512_CORE_BF16", "avx512", "AVX512")}
    level = os.environ.get("ZQ_ISA") or ("avx2" if {"avx512f"} <= flags() and "avx512_vnni" not in flags() else None)
    if level not in names:
        return None
    onednn, aten, ctranslate2 = names[level]
    return onednn, {"ONEDNN_MAX_CPU_ISA": onednn, "ATEN_CPU_CAPABILITY": aten, "CT2_FORCE_CPU_ISA": ctranslate2}


def capped(competitors):
    """With a cap: besides, those peers that can be held to it. ONNX Runtime and llama.cpp cannot."""
    if not cap():
        return competitors
    level, env = cap()
    held = [c for c in competitors if c.who.startswith(("pytorch", "openvino", "ctranslate2")) and ("bf16" not in c.who or "BF16" in level)]
    return competitors + [c._replace(who=f"{c.who}, at most {level}", env=env) for c in held]


def zq(shape, scheme, math, *options, threads=THREADS):
    return ["build/zq", "bench", "--shape", shape, "--scheme", scheme, "--math", math, "--threads", threads, "--seconds", SECONDS, "--json", *options]


def unquantized(shape, options):
    """Our own floats; their embedding and head are BF16, too."""
    return zq(shape, "bf16", "fast", *(o for o in options if o not in ("--embeddings", "int8")))


def python(script, peer, *options, threads=THREADS):
    return [sys.executable, f"bench/{script}.py", peer, "--threads", threads, "--seconds", SECONDS, "--work", WORK, *options]


def ours(shape, options, schemes=SCHEMES, maths=("exact", "fast"), suffix=""):
    """Each element of options is a command."""
    found = [Competitor(f"zq {scheme.upper()}, {math}{suffix}", [zq(shape, scheme, math, *o) for o in options], "zq") for math in maths for scheme in schemes]
    return found + [Competitor(f"zq BF16, fast{suffix}", [unquantized(shape, o) for o in options], "float")]


def peers(script, names, *options):
    return [Competitor(name, [python(script, name, *options)], "yardstick" if name == "pytorch-fp32" else "peer") for name in names]


def encoder(shape, layers, hidden, ffn, heads, works):
    names = ["pytorch-fp32", "pytorch-int8", "onnxruntime-fp32", "onnxruntime-int8", "openvino-fp32", "openvino-int8", "openvino-int8-token"]
    names += ["pytorch-bf16", "openvino-bf16", "openvino-int8-bf16"] if BF16 else []
    lengths = {}
    for work in works:
        lengths.setdefault(work.split("x")[0], []).append(work.split("x")[1])
    return (peers("peers_bert", names, "--shapes", ",".join(works), "--layers", layers, "--hidden", hidden, "--ffn", ffn, "--heads", heads)
            + ours(shape, [["--batch", batch, "--prompt", ",".join(some)] for batch, some in lengths.items()]))


def gpt_peers(*options):
    return peers("peers_gpt", ["pytorch-fp32", *(["pytorch-bf16"] if BF16 else []), "ctranslate2-fp32", "ctranslate2-int8", "openvino-int8",
                               "openvino-int4"], *options)


def llama_peers(shape, *options):
    return peers("peers_llama", ["llamacpp-q8_0", "llamacpp-q4_0", "llamacpp-q4_k", *(["llamacpp-bf16"] if BF16 else [])], "--shape", shape, *options)


def decoder_options(prompt, decode):
    return [["--prompt", prompt, "--decode", decode, "--embeddings", "int8"]]


def first():
    """50 tokens after a prompt of 128."""
    found = gpt_peers("--prompt", "128", "--first", "50") + llama_peers("gpt-350m", "--prompt", "128", "--first", "50")
    large = ["--prompt", "128", "--first", "50", "--layers", "24", "--hidden", "2048", "--heads", "16"]
    found += ours("gpt-350m", decoder_options("128", "50"))
    found += [Competitor(f"{who}, 1.3B", [python("peers_gpt", who, *large)], "yardstick" if who.endswith("fp32") else "peer")
              for who in ("pytorch-fp32", *(["pytorch-bf16"] if BF16 else []))]
    return found + ours("gpt-1.3b", decoder_options("128", "50"), maths=["fast"], suffix=", 1.3B")


def product():
    """A linear map by itself."""
    sizes = "512x4096x4096,8x4096x4096,1x4096x32768"
    found = peers("peers_product", ["pytorch-fp32", *(["pytorch-bf16"] if BF16 else []), "pytorch-int8", "onnxruntime-int8", "openvino-int8-token"], "--products", sizes)
    for scheme, group, label in (("w8a8", "channel", "W8A8"), ("w4a8", "channel", "W4A8"), ("w4a8", "k:64", "W4A8 k:64")):
        command = ["build/zq", "bench", "--product", sizes, "--scheme", scheme, "--group", group, "--threads", THREADS, "--seconds", SECONDS, "--json"]
        found.append(Competitor(f"zq {label}", [command], "zq"))
    return found


def threads():
    """The same with one thread and with all."""
    found = []
    for n in dict.fromkeys(("1", THREADS)):
        label = f", {n} thread" + "s" * (n != "1")
        for math in ("exact", "fast"):
            commands = [zq("bert-base", "w8a8", math, "--prompt", "128", threads=n), zq("gpt-350m", "w8a8", math, "--prompt", "128", "--decode", "16", threads=n)]
            found.append(Competitor(f"zq W8A8, {math}{label}", commands, "zq"))
        found += [Competitor(f"onnxruntime-int8{label}", [python("peers_bert", "onnxruntime-int8", threads=n)], "peer"),
                  Competitor(f"ctranslate2-int8{label}", [python("peers_gpt", "ctranslate2-int8", "--prompt", "128", threads=n)], "peer")]
    return found


def fusion(everything):
    batches = "1,2,4,8,16,32,64" if everything else "1,4,16"
    return [Competitor(f"{shape}, {math}", [zq(shape, "w8a8", math, "--unfused", "--prompt", "128", "--batch", batches)], "zq")
            for shape in (["bert-base", "bert-large"] if everything else ["bert-base"]) for math in ("exact", "fast")]


def granularity():
    options = ["--granularity", "--weights", "models/novels", "--prompt", "128"]
    return [Competitor(f"{scheme.upper()}, fast", [zq("bert-base", scheme, "fast", *options)], "zq") for scheme in ("w8a8", "w4a8")]


def ops():
    commands = [zq("bert-base", "w8a8", "fast", "--ops", "--prompt", "128"), zq("gpt-350m", "w8a8", "fast", "--ops", "--prompt", "128", "--decode", "8")]
    return [Competitor("W8A8, fast", commands, "zq")]


def large(everything):
    """Models that fill the memory. NeoX (and GPT-J, unless everything is wanted) with few layers, from which the report infers the whole."""
    found, options = [], decoder_options("128", "8")[0]
    for scheme in ("bf16", "w8a8", "w4/8a8", "w4a8"):
        commands = []
        make = unquantized if scheme == "bf16" else lambda shape, o, scheme=scheme: zq(shape, scheme, "fast", *o)
        for shape, counts in (("gpt-j-6b", ["1", "3"]), ("gpt-neox-20b", ["1", "3"])):
            for n in counts:
                commands.append(make(shape, ["--layers", n, *options]))
        if everything:
            commands.append(make("gpt-j-6b", options))
        if everything and scheme == "w4a8":
            commands.append(make("gpt-neox-20b", options))
        found.append(Competitor(f"zq {scheme.upper()}, fast", commands, "float" if scheme == "bf16" else "zq"))
    for who in ("pytorch-fp32", *(["pytorch-bf16"] if BF16 else [])):
        commands = [python("peers_gpt", who, "--model", model, "--layers", n, "--prompt", "128") for model in ("gpt-j-6b", "gpt-neox-20b") for n in ("1", "3")]
        found.append(Competitor(who, commands, "yardstick" if who.endswith("fp32") else "peer"))
    return found


def stages(everything):
    """{name: (rounds, competitors)}"""
    found = {
        "machine": (1, [Competitor("machine", [["build/zq", "bench", "--machine", "--threads", THREADS, "--seconds", "2", "--json"]], "zq")]),
        "product": (ROUNDS, product()),
        "bert": (ROUNDS, encoder("bert-base", "12", "768", "3072", "12", ["1x32", "1x128", "16x128", "1x384"])),
        "minilm": (ROUNDS, encoder("minilm", "6", "384", "1536", "12", ["1x128", "16x128"])),
        "gpt": (ROUNDS, gpt_peers("--prompt", "512") + llama_peers("gpt-350m", "--prompt", "512") + ours("gpt-350m", decoder_options("512", "16"))),
        "llama": (ROUNDS, llama_peers("tinyllama-1.1b", "--prompt", "512") + ours("tinyllama-1.1b", decoder_options("512", "16"))),
        "fusion": (ROUNDS, fusion(everything)),
        "granularity": (1, granularity()),
        "ops": (1, ops()),
        "threads": (ROUNDS, threads()),
        "large": (ROUNDS, large(everything)),
        "first": (1, first()),
        "bert-large": (ROUNDS, encoder("bert-large", "24", "1024", "4096", "16", ["1x128", "8x128"] if everything else ["1x128"])),
    }
    return {name: (rounds, capped(competitors)) for name, (rounds, competitors) in found.items()}


def cpu_seconds():
    """(busy, idle) seconds of all cores since boot."""
    ticks = [int(n) for n in open("/proc/stat").readline().split()[1:9]]
    idle = ticks[3] + ticks[4]
    return (sum(ticks) - idle) / os.sysconf("SC_CLK_TCK"), idle / os.sysconf("SC_CLK_TCK")


def exchange():
    """ns that a line of cache takes to another core and back; virtual cores may be moved away from each other. None: one core."""
    output = subprocess.run(["build/zq", "bench", "--machine", "--threads", THREADS, "--seconds", "0.001", "--json"], capture_output=True, text=True).stdout
    return next((row["median"] for row in map(json.loads, output.splitlines()) if row.get("name") == "machine.exchange"), None)


def run(command, log, env):
    """(output, CPU seconds, peak resident bytes) of a command."""
    with open(log, "a") as errors:
        errors.write(" ".join(command) + "\n")
        errors.flush()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, **env})
        timer = threading.Timer(TURN_S, process.kill)
        timer.start()
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}, see {log}")
    return output, usage.ru_utime + usage.ru_stime, 1024 * usage.ru_maxrss


def work_of(name):
    """encode.1x128 -> 1x128, prompt.1x512 -> prompt 512, first50.1x128 -> 50 after 128, quantized.1x8x8 -> 1x8x8; other names stay as they are."""
    product, _, size = name.partition(".")
    if product in ("quantized", "product"):
        return size if product == "quantized" else size + ", tokens ready"
    match = re.fullmatch(r"(encode|prompt|decode|first\d+)\.(\d+)x(\d+)", name)
    if not match:
        return name
    what, batch, length = match.groups()
    return f"{batch}x{length}" if what == "encode" else f"{what[5:]} after {length}" if what.startswith("first") else f"{what} {length}"


def take_turn(competitor, log):
    turn = {"who": competitor.who, "kind": competitor.kind, "started": time.strftime("%Y-%m-%d %H:%M"), "rows": [], "peak_bytes": 0}
    start, (busy, idle), own = time.monotonic(), cpu_seconds(), 0.0
    try:
        for command in competitor.commands:
            output, used, peak = run(command, log, competitor.env)
            own += used
            for line in output.splitlines():
                if line.startswith("{"):
                    row = json.loads(line)
                    name = row.pop("name", None)
                    if name == "memory":
                        peak = 1e6 * row["median"]
                        continue
                    if name:
                        row["work"] = work_of(name)
                    elif "--model" in command:
                        row["model"] = command[command.index("--model") + 1]
                    if row.get("model"):
                        row["layers"] = int(command[command.index("--layers") + 1]) if "--layers" in command else None
                    turn["rows"].append(row)
            turn["peak_bytes"] = max(turn["peak_bytes"], peak)
    except RuntimeError as error:
        turn["failed"] = str(error)
    busy_after, idle_after = cpu_seconds()
    turn["seconds"] = time.monotonic() - start
    turn["exchange_ns"] = exchange()
    turn["others"] = max(0.0, busy_after - busy - own) / max(1e-9, busy_after - busy + idle_after - idle)
    return turn


def falls_behind(stage, competitor):
    """Whether a peer's first turn says that further ones are not worth their time."""
    if competitor.kind == "yardstick" or (competitor.kind == "float" and stage != "large"):
        return True
    if competitor.kind == "zq":
        return False
    best, mine = {}, {}
    for path in os.listdir(os.path.join(ROWS, stage)):
        if not path.startswith("1-"):
            continue
        turn = json.load(open(os.path.join(ROWS, stage, path)))
        for row in turn["rows"] if turn["kind"] in ("peer", "yardstick") else []:
            best[row["work"]] = max(best.get(row["work"], 0), row["median"])
            if turn["who"] == competitor.who:
                mine[row["work"]] = row["median"]
    return all(value < KEEP * best[work] for work, value in mine.items())


def turn_path(stage, number, competitor):
    return os.path.join(ROWS, stage, f"{number}-{re.sub('[^a-z0-9.]+', '-', competitor.who.lower())}.json")


def prepare(chosen):
    """Converts models of the peers; a conversion that exists already is only looked at."""
    for name, (_, competitors) in chosen.items():
        for competitor in competitors:
            for command in competitor.commands:
                mark = os.path.join(WORK, "prepared-" + re.sub("[^a-z0-9.]+", "-", f"{name}-{competitor.who}".lower()))
                if "--work" not in command or os.path.exists(mark):
                    continue
                print(f"preparing {name}, {competitor.who}", file=sys.stderr, flush=True)
                log = mark + ".log"
                with open(log, "w") as file:
                    if subprocess.run([*command, "--prepare"], stdout=file, stderr=file).returncode:
                        print(f"  failed, see {log}", file=sys.stderr)
                        continue
                open(mark, "w").close()


def start_over_if_stale(fresh):
    """What was measured counts only beside the same program and settings."""
    settings = {"seconds": SECONDS, "threads": THREADS, "isa": os.environ.get("ZQ_ISA"), "zq": os.stat("build/zq").st_mtime_ns}
    path = os.path.join(ROWS, "settings")
    known = json.load(open(path)) if os.path.exists(path) else None
    if fresh or known != settings:
        if known:
            print("measuring from the start: " + ("as asked" if fresh else "the program or the settings changed"), file=sys.stderr)
        shutil.rmtree(ROWS, ignore_errors=True)
        os.makedirs(ROWS)
        with open(path, "w") as file:
            json.dump(settings, file)


def describe(turn):
    if "failed" in turn:
        return "failed: " + turn["failed"]
    values = ", ".join(f"{row['work']} {row['median']:.3g}" for row in turn["rows"][:6])
    return f"{values} ({turn['seconds']:.0f} s, others {100 * turn['others']:.0f} %, {turn['exchange_ns'] or 0:.0f} ns between cores)"


def undisturbed(path):
    """Whether what a turn measured may stay."""
    if not os.path.exists(path):
        return False
    turn = json.load(open(path))
    return turn["others"] <= QUIET and not peers_report.is_far(turn, peers_report.nearest(ROWS))


def measure(chosen, minutes):
    end = time.monotonic() + 60 * minutes
    for number in range(1, ROUNDS + 1):
        for name, (rounds, competitors) in chosen.items():
            os.makedirs(os.path.join(ROWS, name), exist_ok=True)
            for competitor in competitors if number <= rounds else []:
                path = turn_path(name, number, competitor)
                if undisturbed(path) or (number > 1 and falls_behind(name, competitor)):
                    continue
                if time.monotonic() > end:
                    print("no time is left: the rest is measured when this is called again", file=sys.stderr)
                    return
                turn = take_turn(competitor, os.path.join(ROWS, name, f"{competitor.who.replace('/', '')}.log"))
                with open(path + ".new", "w") as file:
                    json.dump(turn, file)
                os.rename(path + ".new", path)
                print(f"{name} {number}/{rounds} {competitor.who}: {describe(turn)}", file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("stages", nargs="*")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--minutes", type=float, default=1e6)
    args = parser.parse_args()
    every = stages(args.all)
    unknown = set(args.stages) - set(every)
    if unknown:
        sys.exit(f"no stage '{unknown.pop()}': {' '.join(every)}")
    chosen = {name: stage for name, stage in every.items() if not args.stages or name in args.stages or name == "machine"}
    if not args.report:
        prepare(chosen)
    if args.prepare:
        sys.exit()
    if not args.report:
        start_over_if_stale(args.fresh)
        measure(chosen, args.minutes)
    print(peers_report.write(ROWS, DOCS, THREADS))


if __name__ == "__main__":
    main()
