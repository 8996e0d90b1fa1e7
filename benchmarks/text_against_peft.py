"""LoRA on MiniLM here and with PEFT on transformers: CPU time of a step, time of an epoch over sst2, memory, loss.

    python benchmarks/text_against_peft.py --shared ../shared --peft-python /path/to/venv/bin/python

The other interpreter is a virtual environment of its own, as for `peft_interchange.py`. Rank 8 on queries and values,
batches of 16, AdamW, the same rows, as many threads as the machine has cores, each side in a process of its own, in
turns. Dropout is off on both sides: which of its places fire beside a frozen body is a choice in which they differ.

    step    rows that are all padded to 128 tokens: seconds of CPU time, and of the clock, per step
    epoch   all of sst2 as each side would batch it: length buckets here; there the usual way, batches drawn at random
            and padded to their longest row, and as well `group_by_length` (batches of similar length) of the trainer

The first epoch, in which TensorFlow traces and both warm up, is not counted. Memory is the most that the process held.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from text_lora import minilm, rows

KINDS = {"step": ("ours", "peft"), "epoch": ("ours", "peft", "peft by length")}

# Runs in the other interpreter.
OTHER_SIDE = """
import json, random, resource, sys, time, warnings
warnings.filterwarnings("ignore")
import torch, transformers
from peft import LoraConfig, get_peft_model
transformers.logging.set_verbosity_error()
task = json.loads(sys.stdin.read())
torch.manual_seed(0)
tokenizer = transformers.AutoTokenizer.from_pretrained(task["folder"])
model = transformers.AutoModelForSequenceClassification.from_pretrained(
    task["folder"], num_labels=2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, classifier_dropout=0.0)
model = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=8, target_modules=["query", "value"]))
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-3)
equal = task["kind"] == "step"
ids = tokenizer(task["texts"], truncation=True, max_length=128, padding="max_length" if equal else False)["input_ids"]
draw = random.Random(0)

def batches():
    order = list(range(len(ids)))
    draw.shuffle(order)
    if task["by_length"]:  # as the trainer of transformers does: sorted within stretches of fifty batches
        for start in range(0, len(order), 800):
            order[start:start + 800] = sorted(order[start:start + 800], key=lambda n: -len(ids[n]))
    found = [order[start:start + 16] for start in range(0, len(order), 16)]
    if task["by_length"]:
        draw.shuffle(found)
    return found

model.train()
for epoch in range(2):
    clock, processor, losses = time.perf_counter(), time.process_time(), []
    for numbers in batches():
        batch = tokenizer.pad({"input_ids": [ids[n] for n in numbers]}, return_tensors="pt")
        loss = model(**batch, labels=torch.tensor([task["labels"][n] for n in numbers])).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    seconds, processor = time.perf_counter() - clock, time.process_time() - processor
print(json.dumps({"seconds": seconds, "processor": processor, "steps": len(losses), "loss": sum(losses) / len(losses),
                  "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                  "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad)}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=pathlib.Path, default=pathlib.Path("../shared"))
    parser.add_argument("--peft-python", required=True, help="an interpreter with torch, transformers and peft")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)  # the kind; what a child process does
    options = parser.parse_args()
    if options.one:
        print(json.dumps(here(json.loads(sys.stdin.read()))))
        return
    texts, labels = rows(options.shared / "text" / "sst2" / "train.tsv")
    task = {"folder": str(minilm()), "texts": texts, "labels": [sorted(set(labels)).index(label) for label in labels]}
    for kind, sides in KINDS.items():
        count = 640 if kind == "step" else len(texts)
        found = {side: [] for side in sides}
        for _ in range(options.rounds):
            for side in sides:
                given = {**task, "kind": kind, "by_length": side == "peft by length"}
                given |= {"texts": task["texts"][:count], "labels": task["labels"][:count]}
                found[side].append(child(side, given, options))
                print(kind, side, found[side][-1], flush=True)
        print(summary(kind, found), flush=True)


def child(side: str, given: dict, options: argparse.Namespace) -> dict[str, float]:
    """One side in a process of its own."""
    theirs = [options.peft_python, "-c", OTHER_SIDE]
    command = [sys.executable, __file__, "--peft-python", "", "--one", given["kind"]] if side == "ours" else theirs
    printed = subprocess.run(command, input=json.dumps(given), check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(printed.splitlines()[-1])


def here(task: dict) -> dict[str, float]:
    """The second epoch of `kt.fit`."""
    import resource
    import time

    import keras

    import keras_transfer as kt

    keras.utils.set_random_seed(0)
    buckets = {"buckets": (128,)} if task["kind"] == "step" else {}
    splits = kt.data.texts((task["texts"], task["labels"]), batch_size=16, validation=0.0, max_length=128, **buckets)
    model = kt.text_classifier(task["folder"], splits.classes, max_length=128, dropout=0.0)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    plan = kt.lora(model, rank=8, epochs=2, start="pretrained", weight_decay=0.01)
    processor = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: processor.append(time.process_time()),
        on_epoch_end=lambda epoch, logs: processor.append(time.process_time()),
    )
    run = kt.fit(model, splits, plan, cache="off", verbose=False, callbacks=[watch])
    return {
        "seconds": run.history[-1]["seconds"],
        "processor": processor[-1] - processor[-2],
        "steps": splits.steps_per_epoch(),
        "loss": run.history[-1]["loss"],
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "trainable": run.report.cost.stages[-1].trainable_parameters,
    }


def summary(kind: str, found: dict[str, list[dict[str, float]]]) -> str:
    """Medians, and those of ours as shares of the others'."""
    median = {
        side: {name: statistics.median(each[name] for each in runs) for name in runs[0]} for side, runs in found.items()
    }
    lines = [
        f"{kind}, {side}: {1000 * each['processor'] / each['steps']:.0f} ms of CPU time and "
        f"{1000 * each['seconds'] / each['steps']:.0f} ms a step, {each['seconds']:.1f} s an epoch of "
        f"{each['steps']:.0f} steps, {each['memory'] / 2**20:,.0f} MiB, loss {each['loss']:.3f}, "
        f"{each['trainable']:,.0f} numbers train"
        for side, each in median.items()
    ]
    for side, each in median.items():
        if side != "ours":
            shares = {name: median["ours"][name] / each[name] for name in ("processor", "seconds", "memory")}
            lines.append(f"ours against {side}: " + ", ".join(f"{name} {share:.2f}" for name, share in shares.items()))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
