"""What llama.cpp's quantization costs a GPT-2 model: KL divergence to its own float run, over the windows that `zq compare` takes.

    gguf_accuracy.py MODEL --text FILE [--type q4_k_m] [--limit 32768] [--window 256] [--threads 2] [--work FOLDER]

MODEL: a Hugging Face directory of the GPT-2 architecture whose width is a multiple of 256 (blocks of Q4_K). Types: q4_0, q4_k_m, q5_k_m, q8_0.
Embeddings keep their 16 bits, as in our own rows; keys and values are F32. Prints one JSON object: kl (nats per token), perplexity, that of the float run,
bits_per_weight (of the blocks' matrices), seconds, processor_seconds and memory_bytes (of quantizing, Python included), tokens (of data: none).
"""
import argparse
import ctypes
import json
import os
import resource
import time

import gguf
import llama_cpp as llama
import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

TYPES = {
    "q4_0": llama.LLAMA_FTYPE_MOSTLY_Q4_0,
    "q4_k_m": llama.LLAMA_FTYPE_MOSTLY_Q4_K_M,
    "q5_k_m": llama.LLAMA_FTYPE_MOSTLY_Q5_K_M,
    "q8_0": llama.LLAMA_FTYPE_MOSTLY_Q8_0,
}
parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("--text", required=True)
parser.add_argument("--type", choices=TYPES, default="q4_k_m")
parser.add_argument("--limit", type=int, default=32768)
parser.add_argument("--window", type=int, default=256)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--work", default="build/accuracy")
args = parser.parse_args()
config = json.load(open(os.path.join(args.model, "config.json")))
F16 = gguf.GGMLQuantizationType.F16
NAMES = {"attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down", "ln_1": "attn_norm", "ln_2": "ffn_norm"}


def gguf_name(name):
    parts = name.removeprefix("transformer.").split(".")
    if parts[0] != "h":
        return {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm"}[parts[0]] + "." + parts[-1]
    return f"blk.{parts[1]}.{NAMES['.'.join(parts[2:-1])]}.{parts[-1]}"


def write_float(path):
    """The model's own 16 bits; vectors are F32, as llama.cpp wants them."""
    file = gguf.GGUFWriter(path, "gpt2")
    file.add_context_length(config["n_positions"])
    file.add_embedding_length(config["n_embd"])
    file.add_block_count(config["n_layer"])
    file.add_feed_forward_length(config["n_inner"] or 4 * config["n_embd"])
    file.add_head_count(config["n_head"])
    file.add_head_count_kv(config["n_head"])
    file.add_layer_norm_eps(config["layer_norm_epsilon"])
    file.add_vocab_size(config["vocab_size"])
    file.add_tokenizer_model("none")
    for name, tensor in load_file(os.path.join(args.model, "model.safetensors")).items():
        if name.endswith(".attn.bias") or name.startswith("lm_head"):
            continue
        transposed = ".c_" in name and tensor.ndim == 2
        to = gguf_name(name)
        dtype = torch.float16 if tensor.ndim == 2 and not to.startswith("position") else torch.float32
        file.add_tensor(to, (tensor.T if transposed else tensor).to(dtype).contiguous().numpy())
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


def quantize(source, path):
    options = llama.llama_model_quantize_default_params()
    options.nthread = args.threads
    options.ftype = TYPES[args.type]
    options.token_embedding_type = options.output_tensor_type = llama.GGML_TYPE_F16
    if llama.llama_model_quantize(source.encode(), path.encode(), ctypes.byref(options)):
        raise SystemExit("llama.cpp cannot quantize this model")


def bits_per_weight(path):
    bits = values = 0
    for tensor in gguf.GGUFReader(path).tensors:
        if tensor.name.startswith("blk.") and len(tensor.shape) == 2:
            bits += 8 * int(tensor.n_bytes)
            values += int(np.prod(tensor.shape))
    return bits / values


class Runner:
    def __init__(self, path):
        options = llama.llama_context_default_params()
        options.n_ctx = options.n_batch = options.n_ubatch = args.window
        options.n_threads = options.n_threads_batch = args.threads
        options.type_k = options.type_v = llama.GGML_TYPE_F32
        self.model = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
        self.context = llama.llama_init_from_model(self.model, options)
        self.batch = llama.llama_batch_init(args.window, 0, 1)

    def log_probabilities(self, ids):
        """[window, vocabulary]"""
        self.batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            self.batch.token[i], self.batch.pos[i], self.batch.logits[i] = token, i, 1
            self.batch.n_seq_id[i], self.batch.seq_id[i][0] = 1, 0
        llama.llama_memory_clear(llama.llama_get_memory(self.context), True)
        if llama.llama_decode(self.context, self.batch):
            raise SystemExit("llama_decode failed")
        logits = np.ctypeslib.as_array(llama.llama_get_logits(self.context), (len(ids), config["vocab_size"]))
        return torch.log_softmax(torch.from_numpy(logits.copy()).double(), -1)


os.makedirs(args.work, exist_ok=True)
float_path, path = (os.path.join(args.work, f"{os.path.basename(os.path.normpath(args.model))}-{kind}.gguf") for kind in ("f16", args.type))
silence = llama.llama_log_callback(lambda level, text, user: None)  # as long as the library may call it
llama.llama_log_set(silence, None)
write_float(float_path)
before, processor_before = time.monotonic(), time.process_time()
quantize(float_path, path)
seconds, processor_seconds = time.monotonic() - before, time.process_time() - processor_before
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

ids = Tokenizer.from_file(os.path.join(args.model, "tokenizer.json")).encode(open(args.text, encoding="utf-8").read(), add_special_tokens=False).ids
ids = ids[:args.limit]
original, quantized = Runner(float_path), Runner(path)
kl, nll, float_nll, n, n_next = 0.0, 0.0, 0.0, 0, 0
for begin in range(0, len(ids) - args.window + 1, args.window):
    window = ids[begin:begin + args.window]
    p, q = original.log_probabilities(window), quantized.log_probabilities(window)
    kl += float((p.exp() * (p - q)).sum())
    n += len(window)
    following = torch.tensor(window[1:])[:, None]
    float_nll -= float(p[:-1].gather(1, following).sum())
    nll -= float(q[:-1].gather(1, following).sum())
    n_next += len(window) - 1
print(json.dumps({
    "type": args.type, "version": llama.__version__, "kl": kl / n, "perplexity": float(np.exp(nll / n_next)), "float_perplexity": float(np.exp(float_nll / n_next)),
    "bits_per_weight": bits_per_weight(path), "seconds": seconds, "processor_seconds": processor_seconds, "memory_bytes": memory, "tokens": 0,
}))
