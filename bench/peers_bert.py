"""Sequences per second of one library on an encoder of BERT's architecture with random weights.

    peers_bert.py PEER [--shapes 1x128,16x128] [--threads 2] [--layers 12 --hidden 768 --ffn 3072 --heads 12] [--seconds 3] [--work FOLDER]

PEER: pytorch-fp32, pytorch-int8 (dynamic), onnxruntime-fp32, onnxruntime-int8 (dynamic), openvino-fp32, openvino-int8 (static ranges, calibrated),
openvino-int8-token (weights INT8, ranges of tokens on the fly). Converted models are kept in the work folder.
"""
import argparse
import os

import numpy as np
import torch
from transformers import BertConfig, BertModel

from peers_timing import rates, row

parser = argparse.ArgumentParser()
parser.add_argument("peer")
parser.add_argument("--shapes", default="1x128")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--layers", type=int, default=12)
parser.add_argument("--hidden", type=int, default=768)
parser.add_argument("--ffn", type=int, default=3072)
parser.add_argument("--heads", type=int, default=12)
parser.add_argument("--seconds", type=float, default=3)
parser.add_argument("--work", default="build/peers")
args = parser.parse_args()

torch.manual_seed(0)
torch.set_num_threads(args.threads)
os.makedirs(args.work, exist_ok=True)
name = f"bert-{args.layers}x{args.hidden}"
shapes = [tuple(int(n) for n in shape.split("x")) for shape in args.shapes.split(",")]
ids = {shape: torch.randint(0, 30000, shape) for shape in shapes}
mask = {shape: torch.ones(shape, dtype=torch.long) for shape in shapes}


def model():
    config = BertConfig(num_hidden_layers=args.layers, hidden_size=args.hidden, intermediate_size=args.ffn, num_attention_heads=args.heads)
    return BertModel(config, add_pooling_layer=False).eval()


class Written(torch.nn.Module):
    """The same network in plain operations: every exporter follows them, and every optimizer of the peers knows the pattern."""

    def __init__(self):
        super().__init__()
        self.bert = model()

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


def exported():
    path = os.path.join(args.work, name + ".onnx")
    if not os.path.exists(path):
        axes = {0: "batch", 1: "length"}
        sample = (torch.zeros((1, 16), dtype=torch.long), torch.ones((1, 16), dtype=torch.long))
        torch.onnx.export(Written().eval(), sample, path + ".new", input_names=["ids", "mask"], output_names=["hidden"], opset_version=17,
                          dynamo=False, dynamic_axes={"ids": axes, "mask": axes})
        os.rename(path + ".new", path)
    return path


def pytorch(int8):
    bert = model()
    if int8:
        bert = torch.ao.quantization.quantize_dynamic(bert, {torch.nn.Linear}, dtype=torch.qint8)
    return lambda shape: bert(ids[shape], mask[shape])


def onnxruntime_session(int8):
    import onnx
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers import optimizer

    fused, small = (os.path.join(args.work, name + suffix) for suffix in ("-fused.onnx", "-int8.onnx"))
    if not os.path.exists(small):
        optimizer.optimize_model(exported(), model_type="bert", num_heads=args.heads, hidden_size=args.hidden).save_model_to_file(fused)
        quantize_dynamic(fused, small, weight_type=QuantType.QInt8, per_channel=True, extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    session = onnxruntime.InferenceSession(small if int8 else fused, options, providers=["CPUExecutionProvider"])
    return lambda shape: session.run(None, {"ids": ids[shape].numpy(), "mask": mask[shape].numpy()})


def openvino_request(kind):
    import nncf
    import openvino

    core = openvino.Core()
    network = core.read_model(exported())
    options = {"INFERENCE_NUM_THREADS": args.threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    if kind == "int8":
        samples = [[np.random.randint(0, 30000, (1, 128)), np.ones((1, 128), dtype=np.int64)] for _ in range(32)]
        network = nncf.quantize(network, nncf.Dataset(samples), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(samples))
    elif kind == "token":
        network = nncf.compress_weights(network, mode=nncf.CompressWeightsMode.INT8_SYM)
        options["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = str(args.hidden)
    compiled, requests = core.compile_model(network, "CPU", options), {}
    return lambda shape: requests.setdefault(shape, compiled.create_infer_request()).infer([ids[shape].numpy(), mask[shape].numpy()])


peers = {
    "pytorch-fp32": lambda: pytorch(False),
    "pytorch-int8": lambda: pytorch(True),
    "onnxruntime-fp32": lambda: onnxruntime_session(False),
    "onnxruntime-int8": lambda: onnxruntime_session(True),
    "openvino-fp32": lambda: openvino_request("fp32"),
    "openvino-int8": lambda: openvino_request("int8"),
    "openvino-int8-token": lambda: openvino_request("token"),
}
with torch.inference_mode():
    run = peers[args.peer]()
    for shape in shapes:
        row(args.peer, f"{shape[0]}x{shape[1]}", "sequences/s", *rates(lambda: run(shape), shape[0], args.seconds))
