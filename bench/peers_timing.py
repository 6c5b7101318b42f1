"""Rows of a peer's measurement: the median and the best of repeated calls, one JSON object a line."""
import json
import statistics
import time


def rates(call, items, seconds):
    """items per second of call() (median, best), after one call that warms up."""
    call()
    times, start = [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - start < seconds:
        t = time.perf_counter()
        call()
        times.append(time.perf_counter() - t)
    return items / statistics.median(times), items / min(times)


def row(peer, work, unit, median, best):
    print(json.dumps({"who": peer, "work": work, "unit": unit, "median": median, "best": best}), flush=True)
