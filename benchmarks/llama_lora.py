"""A really trained tiny Llama, carried from children's stories to the Python documentation by LoRA.

    python benchmarks/llama_lora.py --shared ../shared

What does it learn, and what does it forget? The model (260,000 numbers, TinyStories) is in the shared folder. Its
source text is not: stories that it tells itself, drawn from its own distribution, stand for it. Prints the perplexity
of held-out text of both, before, after, and with the adapter off again; and what it makes of a prompt.
"""

import argparse
import pathlib
from pydoc_data.topics import topics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=pathlib.Path, default=pathlib.Path("../shared"))
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--stories", type=int, default=48)
    options = parser.parse_args()

    import keras
    import keras_hub

    import keras_transfer as kt

    for seed in range(options.seeds):
        keras.utils.set_random_seed(seed)
        model = kt.causal_lm(options.shared / "weights" / "stories260K_llama_kerashub_preset", max_length=128)
        model.compile(sampler=keras_hub.samplers.RandomSampler(seed=seed))
        told = [model.generate("Once upon a time", max_length=128) for _ in range(options.stories)]
        stories = kt.data.texts(told, label=False, batch_size=16, seed=seed)
        reference = kt.data.texts([text[:3000] for text in topics.values()], label=False, batch_size=16, seed=seed)

        def perplexities(model=model, stories=stories, reference=reference):
            return [kt.evaluate(model, splits, "validation").perplexity for splits in (stories, reference)]

        before = perplexities()
        sample = model.generate("The value of", max_length=48)
        plan = kt.lora(model, 8, 16, "all-linear", epochs=options.epochs, learning_rate=5e-3)
        kt.fit(model, reference, plan, seed=seed, verbose=False)
        after = perplexities()
        print(f"seed {seed}      stories  documentation")
        print(f"  before    {before[0]:7.2f}  {before[1]:13.2f}   {sample!r}")
        print(f"  after     {after[0]:7.2f}  {after[1]:13.2f}   {model.generate('The value of', max_length=48)!r}")
        kt.set_adapter(model, None)
        base = perplexities()
        print(f"  adapter off {base[0]:5.2f}  {base[1]:13.2f}   the same as before: {base == before}", flush=True)


if __name__ == "__main__":
    main()
