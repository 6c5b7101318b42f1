"""Rows of a peer's measurement: the median and the best of repeated calls, one JSON object a line."""
import json
import statistics
import time


def seconds_of(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def rates(call, items, seconds):
    """items per second of call() (median, best), after one call that warms up; a call that alone takes longer than `seconds` is made once more only."""
    warm, times, start = seconds_of(call), [], time.perf_counter()
    while len(times) < (1 if warm > seconds else 3) or time.perf_counter() - start < seconds:
        times.append(seconds_of(call))
    return items / statistics.median(times), items / min(times)


def rates_of_steps(step, seconds, most):
    """Calls of step() per second (median, best), after two that warm up; at least 8 and at most `most`."""
    for _ in range(2):
        step()
    times, start = [], time.perf_counter()
    while len(times) < 8 or (time.perf_counter() - start < seconds and len(times) < most):
        times.append(seconds_of(step))
    return 1 / statistics.median(times), 1 / min(times)


def row(work, unit, median, best):
    print(json.dumps({"work": work, "unit": unit, "median": median, "best": best}), flush=True)


def report_decoder(args, prefill, step):
    """Rows of a decoder: prefill() takes the prompt and gives the last token's logits, step() takes one more token."""
    if args.first:
        def text():
            prefill()
            for _ in range(args.first):
                step()
        row(f"{args.first} after {args.prompt}", "tokens/s", *rates(text, args.first, args.seconds))
        return
    row(f"prompt {args.prompt}", "tokens/s", *rates(prefill, args.prompt, args.seconds))
    row(f"decode {args.prompt}", "tokens/s", *rates_of_steps(step, args.seconds, 100))
