"""Adapts a language model to other text with LoRA, and shows what it learned and what it forgot.

    python recipes/language_model_lora.py

Needs no download: a small GPT-2 learns the reference of the Python language (every Python carries it) from scratch,
then LoRA carries it to the docstrings of the standard library. The table gives the perplexity of held-out text of both,
before and after: what is learned, what is forgotten. Without its adapter the model is the one before, to the last bit.

    python recipes/language_model_lora.py --data my_texts/ --backbone gpt2_base_en

is the real thing: a KerasHub preset, or a folder with one, and a folder of .txt files.
"""

import importlib
import inspect
import json
from pydoc_data.topics import topics

import keras
import keras_hub
import tokenizers
import tyro

import keras_transfer as kt

MODULES = [
    "argparse",
    "asyncio",
    "decimal",
    "email.message",
    "inspect",
    "logging",
    "os",
    "pathlib",
    "random",
    "socket",
    "ssl",
    "tkinter",
    "turtle",
]
VOCABULARY = 512


def main(
    data: str = "docstrings",
    backbone: str = "gpt2_base_en",
    prompt: str = "Return the",
    rank: int = 8,
    targets: str = "all-linear",
    epochs: int = 3,
    learning_rate: float = 3e-3,
    batch_size: int = 16,
    max_length: int = 128,
    seed: int = 0,
    adapter: str | None = None,
) -> None:
    """Adapts `backbone` to `data` with LoRA.

    Args:
        data: "docstrings", or a folder of .txt files.
        backbone: a KerasHub preset, or a local folder with one.
        prompt: what the samples go on from.
        rank: columns of the thin matrices.
        targets: "attention", "all-linear", or a pattern over layer paths.
        epochs: passes over the data.
        learning_rate: peak rate; 3e-4 and less for large bodies.
        batch_size: rows per step.
        max_length: tokens per row.
        seed: of everything random.
        adapter: a folder for the adapter.
    """
    keras.utils.set_random_seed(seed)
    options = {"label": False, "batch_size": batch_size, "seed": seed}
    if data == "docstrings":
        reference = list(topics.values())
        model = kt.causal_lm(small_gpt2(max_length), preprocessor=byte_pairs(reference, max_length))
        source = kt.data.texts(reference, **options)
        target = kt.data.texts(docstrings(), **options)
        plan = kt.from_scratch(model, epochs=6, learning_rate=3e-3)
        print(kt.fit(model, source, plan, seed=seed, verbose=False).report, end="\n\n")
    else:
        model = kt.causal_lm(backbone, max_length=max_length)
        source, target = None, kt.data.texts(data, **options)
    print(target)
    before = perplexities(model, source, target)
    print(f"before: {sample(model, prompt)}")

    plan = kt.lora(model, rank, targets=targets, epochs=epochs, learning_rate=learning_rate)
    run = kt.fit(model, target, plan, seed=seed)
    print(run.audits[-1])
    after = perplexities(model, source, target)
    print(f"after:  {sample(model, prompt)}\n\nperplexity of held-out text   before    after")
    for name in before:
        print(f"  {name:<26} {before[name]:8.2f} {after[name]:8.2f}")
    if adapter:
        kt.save_adapter(model, adapter)


def perplexities(model: keras.Model, source: kt.data.Splits | None, target: kt.data.Splits) -> dict[str, float]:
    """Of the validation split of what the model knew, and of what it is to learn."""
    found = {"target": kt.evaluate(model, target, "validation").perplexity}
    return found if source is None else {"source": kt.evaluate(model, source, "validation").perplexity} | found


def sample(model: keras.Model, prompt: str) -> str:
    """A continuation, on one line, drawn among the five likeliest tokens at each place."""
    model.compile(sampler=keras_hub.samplers.TopKSampler(k=5, seed=0))
    return repr(model.generate(prompt, max_length=60, stop_token_ids=None))


def docstrings() -> list[str]:
    """What each class and each module says of what it defines, one text for each."""
    found = []
    for module in map(importlib.import_module, MODULES):
        for owner in [module, *(each for each in vars(module).values() if inspect.isclass(each))]:
            said = {inspect.getdoc(thing) for thing in vars(owner).values() if callable(thing)} - {None}
            found.append("\n\n".join(sorted(text for text in said if len(text) > 40)))
    return sorted({text[:4000] for text in found if text})


def small_gpt2(max_length: int) -> keras.Model:
    """A GPT-2 of half a million numbers, untrained."""
    return keras_hub.models.GPT2Backbone(
        vocabulary_size=VOCABULARY,
        num_layers=2,
        num_heads=4,
        hidden_dim=96,
        intermediate_dim=384,
        dropout=0.1,
        max_sequence_length=max_length,
    )


def byte_pairs(texts: list[str], max_length: int) -> keras_hub.models.GPT2CausalLMPreprocessor:
    """Pieces of words that are common in `texts`, as GPT-2 reads them."""
    pieces = tokenizers.Tokenizer(tokenizers.models.BPE())
    pieces.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    pieces.train_from_iterator(
        texts,
        tokenizers.trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    found = json.loads(pieces.to_str())["model"]
    tokenizer = keras_hub.models.GPT2Tokenizer(found["vocab"], [" ".join(pair) for pair in found["merges"]])
    return keras_hub.models.GPT2CausalLMPreprocessor(tokenizer, sequence_length=max_length)


if __name__ == "__main__":
    tyro.cli(main)
