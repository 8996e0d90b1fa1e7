"""Which pretrained body to take for a task, and how to adapt it: asked of the data, answered in minutes.

    python recipes/choose_backbone.py

Needs no download: two small MobileNets learn other tasks first, one to tell the ten handwritten digits apart and one
whether a digit is upside down; with one that has learnt nothing they are the candidates for a new task, whether a line
closes on itself as it does in 0, 6, 8 and 9. It has 160 digits to learn from that no body has seen.

    python recipes/choose_backbone.py --data tf_flowers --backbones MobileNetV2 EfficientNetV2B0 ResNet50V2

is the real thing: ImageNet weights, any TFDS name or folder of pictures.
"""

import keras
import numpy as np
import tyro

import keras_transfer as kt

SIZE = 48  # pixels; the digits have 8 by 8, which a MobileNet halves five times
WITH_A_LOOP, EXAMPLES = ("0", "6", "8", "9"), 160


def main(
    data: str = "digits",
    backbones: tuple[str, ...] = ("MobileNetV2", "EfficientNetV2B0"),
    minutes: float = 5.0,
    batch_size: int = 32,
    seed: int = 0,
    plots: str | None = None,
) -> None:
    """Compares `backbones` on `data`, and says which to take and what to run.

    Args:
        data: "digits", a TFDS name or a folder of pictures.
        backbones: models of keras.applications; the digits have candidates of their own.
        minutes: what it may take.
        batch_size: pictures per step.
        seed: of everything random.
        plots: a folder for the pictures of near-duplicates and of labels that look wrong.
    """
    if data == "digits":
        digits = kt.data.digits(batch_size=64, seed=seed)
        found = kt.advise(loops(digits, seed), digit_bodies(digits, seed), minutes=minutes, seed=seed)
    else:
        splits = kt.data.images(data, batch_size=batch_size, seed=seed)
        found = kt.advise(splits, list(backbones), minutes=minutes, seed=seed)
    print(f"\n{found}")
    if plots and found.pitfalls:  # where the minutes allowed to look for them
        print("pictures:", *found.pitfalls.plot(plots))


def pictures_of(split) -> np.ndarray:
    """All pictures of a split in one array."""
    return np.array([split.examples.picture(number) for number in range(len(split))])


def loops(digits, seed: int):
    """Whether a digit has a loop, asked of the pictures that the bodies have not learnt from."""
    pictures = pictures_of(digits.test)
    names = [digits.classes[label] for label in digits.test.labels]
    labels = ["loop" if name in WITH_A_LOOP else "no loop" for name in names]
    parts = {"train": slice(0, EXAMPLES), "test": slice(EXAMPLES, None)}
    return kt.data.images(
        {name: (pictures[part], labels[part]) for name, part in parts.items()},
        batch_size=16,
        augment="none",
        seed=seed,
    )


def digit_bodies(digits, seed: int) -> dict:
    """Three bodies of one kind that have learnt different things, as functions from splits to a model."""
    pictures = pictures_of(digits.train)
    turned = np.arange(len(pictures)) % 2
    pictures = np.where(turned[:, None, None, None] == 1, pictures[:, ::-1], pictures)
    sources = {
        "ten digits": digits,
        "upside down": kt.data.images((pictures, turned), batch_size=64, augment="none", seed=seed),
        "nothing": None,
    }
    return {name: carried(learnt(source, seed)) for name, source in sources.items()}


def learnt(source, seed: int) -> keras.Model:
    """A small MobileNet that has been trained from scratch on a source, or not at all."""
    keras.utils.set_random_seed(seed)
    classes = source.classes if source else 2
    teacher = kt.image_classifier("MobileNet", classes, weights=None, image_size=SIZE, alpha=0.25)
    if source:
        plan = kt.from_scratch(teacher, epochs=12, learning_rate=3e-3)
        run = kt.fit(teacher, source, plan, seed=seed, verbose=False)
        print(f"a body has learnt {len(classes)} classes, accuracy {run.report.accuracy:.3f}", flush=True)
    return teacher.get_layer("MobileNet")


def carried(body: keras.Model):
    """From splits to a model on this body, its weights as they were learnt."""
    weights = body.get_weights()

    def model(splits) -> keras.Model:
        body.set_weights(weights)
        return kt.image_classifier(body, splits.classes, preprocessing="tf")

    return model


if __name__ == "__main__":
    tyro.cli(main)
