"""Training on both domains at once: the labels of the source, and a penalty on how the target's features differ."""

import itertools
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_transfer import state
from keras_transfer.backbones import hub
from keras_transfer.backbones.blocks import Block, blocks
from keras_transfer.backbones.cut import catching
from keras_transfer.builders.outputs import compile_as_classifier, gives_logits
from keras_transfer.data.splits import Splits
from keras_transfer.errors import explain
from keras_transfer.plans.fates import Fate, fates
from keras_transfer.plans.plan import Stage
from keras_transfer.study.adaptation.coral import coral_distance
from keras_transfer.training import compilation
from keras_transfer.training.callbacks import History, LossGuard
from keras_transfer.training.sharpness import sharpness_aware
from keras_transfer.training.stages import augmented_for, wake

# Batches of each domain that tell how far apart they are.
MEASURED = 8


class Paired(keras.Model):
    """A classifier on a labelled batch and an unlabelled one.

    Args:
        model: the classifier.
        penalty: a layer from the features of both, each of shape (batch, features), to a scalar. The features are what
            enters the head.
    """

    def __init__(self, model: keras.Model, penalty: keras.layers.Layer) -> None:
        super().__init__(name=f"{model.name}_on_two_domains")
        self.whole, self.penalty = model, penalty
        self._entry = entry_of_head(model)
        penalty.build(*[self._entry.input.shape] * 2)

    def call(self, inputs, training=None):
        with catching(self._entry, "inputs") as seen:
            logits = self.whole(inputs["source"], training=training)
            self.whole(inputs["target"], training=training)
        penalty = self.penalty(*seen, training=training)
        return {"logits": logits, "penalty": keras.ops.broadcast_to(penalty, keras.ops.shape(logits)[:1])}


def entry_of_head(model: keras.Model) -> keras.layers.Layer:
    """The lowest layer of the head that has weights or drops: what enters it are the features.

    Raises:
        ValueError: where the model has no head, or one that is called on more than a vector for each example.
    """
    head = blocks(model).head
    own = [] if head is None else [layer for layer in head.layers if layer.weights or _drops(layer)]
    if not own or len(own[0].input.shape) != 2:
        raise ValueError(
            explain(
                f"{model.name} has no features to adapt.",
                given=f"its head is called on {own[0].input.shape}" if own else "no head",
                expected="a classifier whose head is called on one vector for each example",
            )
        )
    return own[0]


def _drops(layer: keras.Layer) -> bool:
    return isinstance(layer, keras.layers.Dropout)


def train(
    model: keras.Model,
    penalty: keras.layers.Layer,
    source: Splits,
    target: Splits,
    stage: Stage,
    *,
    pretrained: Mapping[int, np.ndarray],
    seed: int,
    verbose: bool,
) -> list[dict[str, Any]]:
    """Trains a classifier for one stage on labelled batches of the source, each beside one of the target.

    Args:
        model: it is trained in place, and left as the stage has it, compiled with stock parts.
        penalty: what is added to the loss, from the features of both.
        source: with labels; its epochs are counted. What is left of one, less than a batch, is left out, and as many
            steps are taken as if it had not been.
        target: without; its batches go round as long as they are needed.
        stage: what trains, how fast and for how long. (Seen twice a step, batch norms that adapt normalise each domain
            by itself while training.)
        pretrained: from `l2_sp.pretrained`, what a stage that pulls pulls to.
        seed: of order, augmentation and dropout.
        verbose: whether to print a line for each epoch.

    Returns:
        One row per epoch: loss, its two parts, accuracy on the source's training examples.
    """
    stage_fates = fates(model, stage)
    wake(model, stage, stage_fates)
    state.seed(model, seed)
    pairs = Paired(model, penalty)
    steps = source.steps_per_epoch(model)
    pairs.compile(
        optimizer=compilation.optimizer(
            stage, [*stage_fates, *_fate_of(penalty)], steps * stage.epochs, pretrained=pretrained
        ),
        loss={"logits": keras.losses.SparseCategoricalCrossentropy(from_logits=gives_logits(model)), "penalty": _mean},
        metrics={"logits": [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]},
    )
    # Built within a traced step, the values that it pulls to would be left at zero.
    pairs.optimizer.build(pairs.trainable_variables)
    # The averages of both losses are created at the first call; by a traced step, which is traced once more for it.
    nothing = {"logits": np.zeros((1, *model.output_shape[1:]), "float32"), "penalty": np.zeros(1, "float32")}
    pairs.compute_loss(y={"logits": np.zeros(1, "int32"), "penalty": np.zeros(1, "float32")}, y_pred=nothing)
    history = History(None)
    history.stage = stage.name
    with (
        compilation.averaging_over(model, stage, 2 * steps * stage.epochs),
        sharpness_aware(pairs, stage.sam),
        hub.taking_packed_inputs(model),
    ):
        pairs.fit(
            _together(augmented_for(stage, source), augmented_for(stage, target), model, seed),
            epochs=stage.epochs,
            steps_per_epoch=steps,
            callbacks=[history, LossGuard(stage), *([_Said(stage)] if verbose else [])],
            shuffle=False,
            verbose=0,
        )
    compile_as_classifier(model)
    return history.rows


def distances(model: keras.Model, source: Splits, target: Splits, stage: Stage, *, seed: int) -> tuple[float, float]:
    """The CORAL distance of batches as a stage sees them before its first step, with batch norms as it has them.

    Args:
        model: left as it is, but for what is awake.
        source: the labelled domain.
        target: the other.
        stage: what trains.
        seed: of order, augmentation and dropout.

    Returns:
        The mean distance of a batch of the source from one of the target, and that of two batches of the source, which
        is chance alone.
    """
    wake(model, stage, fates(model, stage))
    entry, before = entry_of_head(model), state.values(model)
    batches = _together(augmented_for(stage, source), augmented_for(stage, target), model, seed)
    apart, by_chance = [], []
    with hub.taking_packed_inputs(model):
        for inputs, _ in itertools.islice(batches, MEASURED):
            with catching(entry, "inputs") as seen:
                for domain in ("source", "target"):
                    model(inputs[domain], training=True)
            one, other = seen
            apart.append(float(coral_distance(one, other)))
            # Two batches of half the size are twice as far apart by chance. Halves of one share no example, which two
            # batches of a small source do.
            half = len(one) // 2
            by_chance.append(float(coral_distance(one[:half], one[half:])) / 2)
    state.assign(model, before)
    return float(np.mean(apart)), float(np.mean(by_chance))


def _fate_of(penalty: keras.layers.Layer) -> list[Fate]:
    """What the penalty has to learn, it learns at the stage's full rate."""
    if not penalty.trainable_variables:
        return []
    block = Block(penalty.name, (penalty,), tuple(penalty.variables), output_shape=(), cut=(), ratio=None)
    return [Fate(block, 1.0)]


def _together(source: Splits, target: Splits, model: keras.Model, seed: int):
    from keras_transfer.data import pipeline

    def batches(domain: Splits, seed: int):
        # The rest of an epoch says little of how its domain varies, and a single example nothing: beside a whole batch
        # of the other domain that would be taken for a difference of the domains.
        size = min(domain.batch_size, len(domain.train))
        return pipeline.whole_batches(domain.training_batches(model, seed=seed), size)

    # Another seed for the order of the target: two halves of one folder would come in pairs else.
    return pipeline.side_by_side(batches(source, seed), batches(target, seed + 1))


def _mean(zeros, penalty):
    del zeros
    return penalty


class _Said(keras.callbacks.Callback):
    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self._epochs = stage.epochs

    def on_epoch_end(self, epoch, logs=None):
        print(
            f"  epoch {epoch + 1} of {self._epochs}: source loss {logs['logits_loss']:.3f}, "
            f"accuracy {logs['logits_accuracy']:.3f}, penalty {logs['penalty_loss']:.3f}"
        )
