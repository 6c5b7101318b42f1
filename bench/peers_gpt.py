"""Tokens per second of one library on a decoder of GPT-2's architecture with random weights: a prompt, and one token after another behind it.

    peers_gpt.py PEER [--prompt 512] [--first N] [--threads 2] [--layers 24 --hidden 1024 --heads 16 | --model gpt-j-6b --layers 1] [--seconds 1] [--work FOLDER] [--prepare]

PEER: pytorch-fp32, pytorch-bf16, ctranslate2-fp32, ctranslate2-int8, openvino-int8, openvino-int4 (groups of 128). The default shape is the paper's
GPT-3 style model of 350M parameters. --first N measures the prompt and N tokens after it as one thing. A prompt gives the logits of its last token
only, as zq's does. --model: PyTorch has the blocks of GPT-J 6B and GPT-NeoX 20B, too. Converted models are kept in the work folder; --prepare converts and measures nothing.
"""
import argparse
import json
import os
import subprocess
import sys

import numpy as np

from peers_timing import rates, report_decoder, row, seconds_of

parser = argparse.ArgumentParser()
parser.add_argument("peer")
parser.add_argument("--prompt", type=int, default=512)
parser.add_argument("--first", type=int, default=0)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--model", choices=["gpt2", "gpt-j-6b", "gpt-neox-20b"], default="gpt2")
parser.add_argument("--layers", type=int, default=24)
parser.add_argument("--hidden", type=int, default=1024)
parser.add_argument("--heads", type=int, default=16)
parser.add_argument("--seconds", type=float, default=1)
parser.add_argument("--work", default="build/peers")
parser.add_argument("--prepare", action="store_true")
args = parser.parse_args()

source = os.path.join(args.work, f"gpt2-{args.layers}x{args.hidden}")
N_IDS = 50257
ids = np.random.default_rng(0).integers(0, 50000, (1, args.prompt))


def empty_model():
    if args.model == "gpt-j-6b":
        from transformers import GPTJConfig, GPTJForCausalLM
        return GPTJForCausalLM(GPTJConfig(n_layer=args.layers))
    if args.model == "gpt-neox-20b":
        from transformers import GPTNeoXConfig, GPTNeoXForCausalLM
        return GPTNeoXForCausalLM(GPTNeoXConfig(num_hidden_layers=args.layers))
    from transformers import GPT2Config, GPT2LMHeadModel
    return GPT2LMHeadModel(GPT2Config(n_layer=args.layers, n_embd=args.hidden, n_head=args.heads))


def random_model():
    """Weights that repeat a million random numbers: they are there at once, and time does not depend on them."""
    import torch
    from transformers.modeling_utils import no_init_weights

    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    with no_init_weights():
        model = empty_model().eval()
    pattern = 0.02 * torch.randn(1 << 20)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.dim() == 1:
                weights.fill_(1.0 if name.endswith("weight") else 0.0)
                continue
            for part in weights.view(-1).split(pattern.numel()):
                part.copy_(pattern[: part.numel()])
    return model


def checkpoint():
    """A directory of Hugging Face's with a made-up vocabulary of the right size: no text is ever tokenized here."""
    if not os.path.exists(os.path.join(source, "done")):
        random_model().save_pretrained(source)
        vocabulary = {f"t{i}": i for i in range(N_IDS - 1)} | {"<|endoftext|>": N_IDS - 1}
        for name, content in (("vocab.json", vocabulary), ("tokenizer_config.json", {"tokenizer_class": "GPT2Tokenizer", "model_max_length": 1024})):
            with open(os.path.join(source, name), "w") as file:
                json.dump(content, file)
        with open(os.path.join(source, "merges.txt"), "w") as file:
            file.write("#version: 0.2\n")
        open(os.path.join(source, "done"), "w").close()
    return source


def pytorch(kind):
    if args.prepare:
        return
    import torch

    model, state = random_model(), {}
    if kind == "bf16":
        model = model.bfloat16()
    tokens = torch.from_numpy(ids)

    def prefill():
        with torch.inference_mode():
            state["cache"] = model(tokens, use_cache=True, logits_to_keep=1).past_key_values

    def step():
        with torch.inference_mode():
            state["cache"] = model(tokens[:, :1], past_key_values=state["cache"], use_cache=True).past_key_values
    report_decoder(args, prefill, step)


def ctranslate2(kind):
    """generate_batch takes the prompt in one pass without logits, but for its last token."""
    import ctranslate2
    import ctranslate2.converters.transformers as converters

    kind = {"fp32": "float32"}.get(kind, kind)
    converted = f"{source}-ctranslate2-{kind}"
    if not os.path.exists(os.path.join(converted, "model.bin")):
        converters.TransformersConverter(checkpoint()).convert(converted, quantization=kind, force=True)
    if args.prepare:
        return
    generator = ctranslate2.Generator(converted, device="cpu", intra_threads=args.threads, inter_threads=1, compute_type=kind)
    prompt = [f"t{i}" for i in ids[0]]

    def generate(n):
        generator.generate_batch([prompt], max_length=n, min_length=n, include_prompt_in_result=False, sampling_topk=1)

    if args.first:
        row(f"{args.first} after {args.prompt}", "tokens/s", *rates(lambda: generate(args.first + 1), args.first, args.seconds))
        return
    row(f"prompt {args.prompt}", "tokens/s", *rates(lambda: generate(1), args.prompt, args.seconds))
    tokens = sorted((seconds_of(lambda: generate(29)) - seconds_of(lambda: generate(5))) / 24 for _ in range(3))
    row(f"decode {args.prompt}", "tokens/s", 1 / tokens[1], 1 / tokens[1])  # the smallest of differences is no best


def keep_last_logits(network):
    """The exported graph computes the logits of every token; this leaves the last one's, as OpenVINO's own pipelines do."""
    from openvino import opset13 as op

    product = network.output("logits").node.input_value(0).get_node()
    while product.get_type_name() != "MatMul":
        product = product.input_value(0).get_node()
    last = op.slice(product.input_value(0), np.array([-1]), np.array([np.iinfo(np.int32).max]), np.array([1]), np.array([1]))
    product.input(0).replace_source_output(last.output(0))
    network.validate_nodes_and_infer_types()


def openvino(kind):
    converted = f"{source}-openvino-{kind}"
    if not os.path.exists(os.path.join(converted, "openvino_model.bin")):
        options = {"int8": ["int8"], "int4": ["int4", "--sym", "--group-size", "128", "--ratio", "1.0"]}[kind]
        subprocess.run([sys.executable, "-m", "optimum.commands.optimum_cli", "export", "openvino", "-m", checkpoint(), "--task",
                        "text-generation-with-past", "--disable-convert-tokenizer", "--weight-format", *options, converted], check=True, stdout=sys.stderr)
    if args.prepare:
        return
    import openvino

    core = openvino.Core()
    network = core.read_model(os.path.join(converted, "openvino_model.xml"))
    keep_last_logits(network)
    compiled = core.compile_model(network, "CPU", {"INFERENCE_NUM_THREADS": args.threads, "PERFORMANCE_HINT": "LATENCY"})
    names = {name for port in compiled.inputs for name in port.names}
    request, position = compiled.create_infer_request(), 0

    def run(tokens):
        nonlocal position
        n = tokens.shape[1]
        inputs = {"input_ids": tokens, "attention_mask": np.ones((1, position + n), np.int64)}
        if "position_ids" in names:
            inputs["position_ids"] = np.arange(position, position + n)[None]
        if "beam_idx" in names:
            inputs["beam_idx"] = np.zeros(1, np.int32)
        request.infer(inputs)
        position += n

    def prefill():
        nonlocal position
        request.reset_state()
        position = 0
        run(ids)
    report_decoder(args, prefill, lambda: run(ids[:, :1]))
    assert request.get_tensor("logits").shape[1] == 1


library, kind = args.peer.split("-", 1)
{"pytorch": pytorch, "ctranslate2": ctranslate2, "openvino": openvino}[library](kind)
