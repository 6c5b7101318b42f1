"""Operations per second of one library in a linear map by itself, random weights, floats in and floats out.

    peers_product.py PEER [--products 512x4096x4096,8x4096x4096] [--threads 2] [--seconds 1] [--work FOLDER] [--prepare]

PEER: pytorch-fp32, pytorch-bf16, pytorch-int8 (dynamic: one range for all tokens), onnxruntime-int8 (the same), openvino-int8-token (ranges of
tokens on the fly). Products are tokens x inputs x outputs. Maps of the same size are used in turn, so many that INT8 weights are at least 128 MiB and
twice the last-level cache.
"""
import argparse
import glob
import itertools
import os

import numpy as np

from peers_timing import rates, row

parser = argparse.ArgumentParser()
parser.add_argument("peer")
parser.add_argument("--products", default="512x4096x4096")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--seconds", type=float, default=1)
parser.add_argument("--work", default="build/peers")
parser.add_argument("--prepare", action="store_true")
args = parser.parse_args()

products = [tuple(int(n) for n in product.split("x")) for product in args.products.split(",")]
random = np.random.default_rng(0)


def cache_bytes():
    sizes = [open(path).read().strip() for path in glob.glob("/sys/devices/system/cpu/cpu0/cache/index*/size")]
    return max((int(size.rstrip("K")) << 10 for size in sizes), default=0)


def n_maps(n_cols, n_rows):
    return 1 + max(128 << 20, 2 * cache_bytes()) // (n_cols * n_rows)


def linear(n_cols, n_rows):
    import torch

    torch.set_num_threads(args.threads)
    return torch.nn.Sequential(torch.nn.Linear(n_cols, n_rows)).eval()


def pytorch(kind, n_cols, n_rows):
    import torch

    def convert(model):
        if kind == "int8":
            return torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
        return model.bfloat16() if kind == "bf16" else model

    def call(model):
        def run(x):
            with torch.inference_mode():
                return model(x)
        return run

    return [call(convert(linear(n_cols, n_rows))) for _ in range(n_maps(n_cols, n_rows))]


def pytorch_input(kind, x):
    import torch

    return torch.from_numpy(x).to(torch.bfloat16 if kind == "bf16" else torch.float32)


def exported(n_cols, n_rows):
    """A map as ONNX."""
    path = os.path.join(args.work, f"product-{n_cols}x{n_rows}.onnx")
    if not os.path.exists(path):
        import torch

        os.makedirs(args.work, exist_ok=True)
        torch.onnx.export(linear(n_cols, n_rows), (torch.zeros(1, n_cols),), path + ".new", input_names=["x"], output_names=["y"], opset_version=17,
                          dynamo=False, dynamic_axes={"x": {0: "tokens"}, "y": {0: "tokens"}})
        os.rename(path + ".new", path)
    return path


def onnxruntime(n_cols, n_rows):
    path = exported(n_cols, n_rows).replace(".onnx", "-int8.onnx")
    if not os.path.exists(path):
        from onnxruntime.quantization import QuantType, quantize_dynamic
        quantize_dynamic(exported(n_cols, n_rows), path + ".new", weight_type=QuantType.QInt8, per_channel=True)
        os.rename(path + ".new", path)
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    sessions = [onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]) for _ in range(n_maps(n_cols, n_rows))]
    return [lambda x, session=session: session.run(None, {"x": x}) for session in sessions]


def openvino(n_cols, n_rows):
    import nncf
    import openvino

    core = openvino.Core()
    path = exported(n_cols, n_rows).replace(".onnx", "-int8.xml")
    if not os.path.exists(path):
        network = nncf.compress_weights(core.read_model(exported(n_cols, n_rows)), mode=nncf.CompressWeightsMode.INT8_SYM)
        openvino.save_model(network, path.replace("-int8.xml", "-int8-new.xml"))
        os.rename(path.replace("-int8.xml", "-int8-new.bin"), path.replace(".xml", ".bin"))
        os.rename(path.replace("-int8.xml", "-int8-new.xml"), path)
    options = {"INFERENCE_NUM_THREADS": args.threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32",
               "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(n_cols)}
    requests = [core.compile_model(path, "CPU", options).create_infer_request() for _ in range(n_maps(n_cols, n_rows))]
    return [lambda x, request=request: request.infer([x], share_inputs=True, share_outputs=True) for request in requests]


library, kind = args.peer.split("-", 1)
for n_tokens, n_cols, n_rows in products:
    if args.prepare and library == "pytorch":
        continue
    calls = pytorch(kind, n_cols, n_rows) if library == "pytorch" else onnxruntime(n_cols, n_rows) if library == "onnxruntime" else openvino(n_cols, n_rows)
    if args.prepare:
        continue
    x = random.standard_normal((n_tokens, n_cols), dtype=np.float32)
    x = pytorch_input(kind, x) if library == "pytorch" else x
    turns = itertools.cycle(calls)
    median, best = rates(lambda: next(turns)(x), 2e-9 * n_tokens * n_cols * n_rows, args.seconds)
    row(f"{n_tokens}x{n_cols}x{n_rows}", "GOP/s", median, best)
