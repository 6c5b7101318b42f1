"""Sequences per second of one library on an encoder of BERT's architecture with random weights.

    peers_bert.py PEER [--shapes 1x128,16x128] [--threads 2] [--layers 12 --hidden 768 --ffn 3072 --heads 12] [--seconds 1] [--work FOLDER] [--prepare]

PEER: pytorch-fp32, pytorch-bf16, pytorch-int8 (dynamic), onnxruntime-fp32, onnxruntime-int8 (dynamic), openvino-fp32, openvino-bf16, openvino-int8
(static ranges, calibrated), openvino-int8-bf16 (the same, the rest in BF16), openvino-int8-token (weights INT8, ranges of tokens on the fly).
Converted models are kept in the work folder; --prepare converts and measures nothing.
"""
import argparse
import os

import numpy as np

from peers_timing import rates, row

parser = argparse.ArgumentParser()
parser.add_argument("peer")
parser.add_argument("--shapes", default="1x128")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--layers", type=int, default=12)
parser.add_argument("--hidden", type=int, default=768)
parser.add_argument("--ffn", type=int, default=3072)
parser.add_argument("--heads", type=int, default=12)
parser.add_argument("--seconds", type=float, default=1)
parser.add_argument("--work", default="build/peers")
parser.add_argument("--prepare", action="store_true")
args = parser.parse_args()

base = os.path.join(args.work, f"bert-{args.layers}x{args.hidden}")
shapes = [tuple(int(n) for n in shape.split("x")) for shape in args.shapes.split(",")]
random = np.random.default_rng(0)
ids = {shape: random.integers(0, 30000, shape) for shape in shapes}
mask = {shape: np.ones(shape, dtype=np.int64) for shape in shapes}


def once(path, make):
    """path, made by make(new path) when it is not there yet."""
    if not os.path.exists(path):
        os.makedirs(args.work, exist_ok=True)
        new = path.replace(base, base + "-new")
        make(new)
        for suffix in (".bin",) if path.endswith(".xml") else ():
            os.rename(new[:-4] + suffix, path[:-4] + suffix)
        os.rename(new, path)
    return path


def bert():
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    config = BertConfig(num_hidden_layers=args.layers, hidden_size=args.hidden, intermediate_size=args.ffn, num_attention_heads=args.heads)
    return BertModel(config, add_pooling_layer=False).eval()


def export(path):
    """The same network in plain operations: every exporter follows them, and every optimizer of the peers knows the pattern."""
    import torch

    class Written(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bert = bert()

        def heads(self, x):
            return x.view(x.shape[0], x.shape[1], args.heads, args.hidden // args.heads).permute(0, 2, 1, 3)

        def forward(self, tokens, keep):
            e = self.bert.embeddings
            x = e.word_embeddings(tokens) + e.token_type_embeddings(torch.zeros_like(tokens))
            x = e.LayerNorm(x + e.position_embeddings(torch.arange(tokens.shape[1])[None]))
            hide = (1.0 - keep[:, None, None, :].float()) * -10000.0
            for layer in self.bert.encoder.layer:
                s = layer.attention.self
                q, k, v = self.heads(s.query(x)), self.heads(s.key(x)), self.heads(s.value(x))
                p = torch.softmax(q @ k.transpose(-1, -2) / (args.hidden // args.heads) ** 0.5 + hide, -1)
                mixed = (p @ v).permute(0, 2, 1, 3).reshape(x.shape)
                x = layer.attention.output.LayerNorm(layer.attention.output.dense(mixed) + x)
                x = layer.output.LayerNorm(layer.output.dense(torch.nn.functional.gelu(layer.intermediate.dense(x))) + x)
            return x

    axes = {0: "batch", 1: "length"}
    sample = (torch.zeros((1, 16), dtype=torch.long), torch.ones((1, 16), dtype=torch.long))
    torch.onnx.export(Written().eval(), sample, path, input_names=["ids", "mask"], output_names=["hidden"], opset_version=17, dynamo=False,
                      dynamic_axes={"ids": axes, "mask": axes})


def exported():
    return once(base + ".onnx", export)


def pytorch(kind):
    if args.prepare:
        return None
    import torch

    model = bert()
    if kind == "int8":
        model = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    if kind == "bf16":
        model = model.bfloat16()
    tensors = {shape: (torch.from_numpy(ids[shape]), torch.from_numpy(mask[shape])) for shape in shapes}

    def run(shape):
        with torch.inference_mode():
            return model(*tensors[shape])
    return run


def onnxruntime_session(kind):
    def fuse(path):
        from onnxruntime.transformers import optimizer
        optimizer.optimize_model(exported(), model_type="bert", num_heads=args.heads, hidden_size=args.hidden).save_model_to_file(path)

    def quantize(path):
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic
        quantize_dynamic(once(base + "-fused.onnx", fuse), path, weight_type=QuantType.QInt8, per_channel=True,
                         extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT})

    path = once(base + "-int8.onnx", quantize) if kind == "int8" else once(base + "-fused.onnx", fuse)
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda shape: session.run(None, {"ids": ids[shape], "mask": mask[shape]})


def openvino_request(kind):
    import openvino

    core = openvino.Core()
    options = {"INFERENCE_NUM_THREADS": args.threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "bf16" if "bf16" in kind else "f32"}

    def static(path):
        import nncf
        samples = [[random.integers(0, 30000, (1, 128)), np.ones((1, 128), dtype=np.int64)] for _ in range(32)]
        network = core.read_model(exported())
        openvino.save_model(nncf.quantize(network, nncf.Dataset(samples), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(samples)), path)

    def weights(path):
        import nncf
        openvino.save_model(nncf.compress_weights(core.read_model(exported()), mode=nncf.CompressWeightsMode.INT8_SYM), path)

    if kind in ("fp32", "bf16"):
        path = exported()
    elif kind == "int8-token":
        path = once(base + "-openvino-weights.xml", weights)
        options["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = str(args.hidden)
    else:
        path = once(base + "-openvino-static.xml", static)
    compiled, requests = core.compile_model(core.read_model(path), "CPU", options), {}
    return lambda shape: requests.setdefault(shape, compiled.create_infer_request()).infer([ids[shape], mask[shape]])


library, kind = args.peer.split("-", 1)
run = {"pytorch": pytorch, "onnxruntime": onnxruntime_session, "openvino": openvino_request}[library](kind)
for shape in [] if args.prepare else shapes:
    row(f"{shape[0]}x{shape[1]}", "sequences/s", *rates(lambda: run(shape), shape[0], args.seconds))
