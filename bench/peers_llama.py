"""Tokens per second of llama.cpp on a decoder with random weights: a prompt, and one token after another behind it.

    peers_llama.py PEER [--shape tinyllama-1.1b] [--prompt 512] [--first N] [--threads 2] [--seconds 1] [--work FOLDER] [--prepare]

PEER: llamacpp-q8_0, llamacpp-q4_0, llamacpp-q4_k, llamacpp-bf16. Embedding and head of the 4-bit files are Q6_K, as llama.cpp's own quantizer has them.
Shapes: tinyllama-1.1b, gpt-350m. GGUF files are kept in the work folder; --prepare writes them and measures nothing.
"""
import argparse
import os

import gguf
import numpy as np

from peers_timing import report_decoder

SHAPES = {  # layers, width, heads, heads of keys and values, feed-forward width, vocabulary, longest context
    "tinyllama-1.1b": (22, 2048, 32, 4, 5632, 32000, 2048),
    "gpt-350m": (24, 1024, 16, 16, 4096, 50257, 2048),
}
parser = argparse.ArgumentParser()
parser.add_argument("peer")
parser.add_argument("--shape", choices=SHAPES, default="tinyllama-1.1b")
parser.add_argument("--prompt", type=int, default=512)
parser.add_argument("--first", type=int, default=0)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--seconds", type=float, default=1)
parser.add_argument("--work", default="build/peers")
parser.add_argument("--prepare", action="store_true")
args = parser.parse_args()

kind = args.peer.split("-", 1)[1].upper()
n_layers, width, n_heads, n_kv_heads, ffn, vocab, longest = SHAPES[args.shape]
random = np.random.default_rng(0)
Type = gguf.GGMLQuantizationType


def scales_at(quant):
    """Where the 16-bit scales lie in a block, in bytes (ggml-common.h)."""
    return {Type.Q8_0: [0], Type.Q4_0: [0], Type.Q4_K: [0, 2], Type.Q6_K: [208]}[quant]


def matrix(rows, columns, quant):
    """Random codes; scales such that values stay near one."""
    if quant == Type.BF16:
        values = (0.02 * random.standard_normal(rows * columns, dtype=np.float32)).view(np.uint32) >> 16
        return values.astype(np.uint16).view(np.uint8).reshape(rows, columns * 2)
    per_block, n_bytes = gguf.GGML_QUANT_SIZES[quant]
    blocks = np.frombuffer(random.bytes(rows * columns // per_block * n_bytes), np.uint8).reshape(-1, n_bytes).copy()
    scale = {Type.Q8_0: 3e-4, Type.Q4_0: 5e-3, Type.Q4_K: 1e-4, Type.Q6_K: 1e-5}[quant]
    for at in scales_at(quant):
        blocks[:, at:at + 2] = np.array([scale], np.float16).view(np.uint8)
    return blocks.reshape(rows, -1)


def write(path):
    quant = Type[kind]
    outer = quant if quant in (Type.Q8_0, Type.BF16) else Type.Q6_K
    llama = args.shape == "tinyllama-1.1b"
    file = gguf.GGUFWriter(path, "llama" if llama else "gpt2")
    file.add_context_length(longest)
    file.add_embedding_length(width)
    file.add_block_count(n_layers)
    file.add_feed_forward_length(ffn)
    file.add_head_count(n_heads)
    file.add_head_count_kv(n_kv_heads)
    file.add_vocab_size(vocab)
    file.add_tokenizer_model("none")
    if llama:
        file.add_layer_norm_rms_eps(1e-5)
        file.add_rope_dimension_count(width // n_heads)
    else:
        file.add_layer_norm_eps(1e-5)

    def weights(name, rows, columns, type_=quant):
        file.add_tensor(f"{name}.weight", matrix(rows, columns, type_), raw_dtype=type_)
        if not llama and name.startswith("blk"):
            file.add_tensor(f"{name}.bias", np.zeros(rows, np.float32))

    def norm(name):
        file.add_tensor(f"{name}.weight", np.ones(width, np.float32))
        if not llama:
            file.add_tensor(f"{name}.bias", np.zeros(width, np.float32))

    weights("token_embd", vocab, width, outer)
    if llama:
        weights("output", vocab, width, outer)
    else:
        file.add_tensor("position_embd.weight", 0.02 * random.standard_normal((longest, width), dtype=np.float32))
    norm("output_norm")
    for layer in range(n_layers):
        block = f"blk.{layer}."
        norm(block + "attn_norm")
        norm(block + "ffn_norm")
        if llama:
            for name, rows, columns in (("attn_q", width, width), ("attn_k", width // n_heads * n_kv_heads, width),
                                        ("attn_v", width // n_heads * n_kv_heads, width), ("ffn_gate", ffn, width)):
                weights(block + name, rows, columns)
        else:
            weights(block + "attn_qkv", 3 * width, width)
        weights(block + "attn_output", width, width)
        weights(block + "ffn_up", ffn, width)
        weights(block + "ffn_down", width, ffn)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


path = os.path.join(args.work, f"{args.shape}-{kind.lower()}.gguf")
if not os.path.exists(path):
    os.makedirs(args.work, exist_ok=True)
    write(path + ".new")
    os.rename(path + ".new", path)
if args.prepare:
    raise SystemExit

import llama_cpp as llama  # noqa: E402  (it initializes threads)

model_options, options = llama.llama_model_default_params(), llama.llama_context_default_params()
options.n_ctx, options.n_batch, options.n_ubatch = 1024, args.prompt, args.prompt
options.n_threads = options.n_threads_batch = args.threads
model = llama.llama_model_load_from_file(path.encode(), model_options)
context = llama.llama_init_from_model(model, options)
prompt = (llama.llama_token * args.prompt)(*random.integers(0, vocab, args.prompt).tolist())
one = (llama.llama_token * 1)(1)


def decode(tokens):
    """llama_batch_get_one asks for the logits of the last token."""
    if llama.llama_decode(context, llama.llama_batch_get_one(tokens, len(tokens))):
        raise SystemExit("llama_decode failed")


def prefill():
    llama.llama_memory_clear(llama.llama_get_memory(context), True)
    decode(prompt)


report_decoder(args, prefill, lambda: decode(one))
