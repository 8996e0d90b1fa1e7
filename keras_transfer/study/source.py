"""What a pretrained body could do before it was carried over, and how much of it is left (forgetting).

Accuracy on the source task before and after, as in McCloskey and Cohen 1989, "Catastrophic interference in
connectionist networks".
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping

import keras
import numpy as np

from keras_transfer import digests, state
from keras_transfer.adapters import attach
from keras_transfer.adapters.switch import merge_adapter
from keras_transfer.backbones.blocks import blocks
from keras_transfer.builders.outputs import check_classes
from keras_transfer.data.splits import Split, Splits
from keras_transfer.errors import explain, nearest
from keras_transfer.evaluation.prediction import predict_split
from keras_transfer.study.comparison import SourceTask
from keras_transfer.study.embedding import features_of
from keras_transfer.study.stored import Beginning
from keras_transfer.training.linear_probe import MOST_EXAMPLES, predictions, some_of_each


@dataclasses.dataclass(frozen=True)
class Source:
    """The task that a body was pretrained on, to measure what each method forgets of it.

    With a `model`, the body with its source head, the tuned body's weights are put under that head. Without one, a
    linear probe is fitted on the source's training examples anew, before and after: what is lost then is lost from the
    features, not merely moved to where the old head does not find it.

    LoRA is measured with its adapter counting. Taken off (`kt.set_adapter(model, None)`), the body is the pretrained
    one to the last bit.

    Args:
        splits: data of the source task; its test split is measured, or validation, or, by a head that was there before,
            train where there is neither.
        model: the body with the head of the source task, its weights as they were pretrained. It is left as it is.
        outputs: for each class of `splits` its number among the model's outputs, where it has more: for pictures of
            ants and bees under the 1000 classes of ImageNet, `{"ants": 310, "bees": 309}`.

    Raises:
        ValueError: if model and data do not belong together.

    Example:

    >>> import keras_transfer as kt
    >>> digits = kt.data.digits(classes=[0, 1], per_class=20)
    >>> teacher = kt.image_classifier("MobileNet", digits.classes, weights=None, image_size=32, alpha=0.25)
    >>> before = kt.Source(digits, teacher).task(teacher)
    >>> before.judged_by, before.examples, before.chance
    ('its own head', 108, 0.5)
    """

    splits: Splits
    model: keras.Model | None = None
    outputs: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        if self.model is None:
            self._check_held_out()
            return
        if self.outputs is None:
            check_classes(self.model, self.splits.classes)
            return
        unknown = [name for name in self.outputs if name not in self.splits.classes]
        missing = [name for name in self.splits.classes if name not in self.outputs]
        width = self.model.output_shape[-1]
        outside = {name: number for name, number in self.outputs.items() if not 0 <= number < width}
        if unknown or missing or outside:
            raise ValueError(
                explain(
                    "`outputs` does not give every class of the source data its place among the model's outputs.",
                    given=dict(self.outputs),
                    nearest=nearest(unknown[0], self.splits.classes) if unknown else None,
                    expected=f"a number from 0 to {width - 1} for each of {', '.join(self.splits.classes)}",
                )
            )

    def _check_held_out(self) -> None:
        if self.split is self.splits.train:
            raise ValueError(
                explain(
                    "A linear probe cannot be judged on the examples of the source that it is fitted to.",
                    given=f"{len(self.split):,} examples to train on, no test and no validation split",
                    expected="examples of the source that are held out, or a model with the source's head",
                    to_mend="kt.data.images(…, validation=0.2); or kt.Source(splits, model)",
                )
            )

    @property
    def split(self) -> Split:
        """What is measured."""
        return self.splits.reported

    @property
    def digest(self) -> str:
        """The SHA-256 of all that a figure measured with it depends on: data, outputs, and the weights of the model."""
        weights = None if self.model is None else Beginning(self.model).digest
        outputs = None if self.outputs is None else dict(self.outputs)
        judge = "standardised probe" if self.model is None else "its own head"
        return digests.of_json(
            {"data": self.splits.fingerprint, "outputs": outputs, "weights": weights, "judge": judge}
        )

    def task(self, model: keras.Model) -> SourceTask:
        """How good a classifier with the pretrained body is at the source task.

        Raises:
            ValueError: if its body is not that of the source model.
        """
        width = len(self.splits.classes) if self.model is None else self.model.output_shape[-1]
        judged_by = "a linear probe" if self.model is None else "its own head"
        return SourceTask(self.accuracy(model), 1 / width, self.split.name, len(self.split), judged_by)

    def accuracy(self, model: keras.Model) -> float:
        """The accuracy at the source task with the body of `model` as it is now; its adapter is merged for that.

        Raises:
            ValueError: if its body is not that of the source model.
        """
        if attach.active(model) is not None:
            merge_adapter(model, keep_base=False)
        if self.model is None:
            said = self._said_by_probe(model)
        else:
            with _body_of(model, self.model) as judge:
                said = predict_split(judge, self.splits, self.split)
        places = [self.outputs[name] for name in self.splits.classes] if self.outputs and self.model else None
        labels = self.split.labels if places is None else np.array(places)[self.split.labels]
        return float(np.mean(said.argmax(axis=1) == labels))

    def _said_by_probe(self, model: keras.Model) -> np.ndarray:
        """What a linear probe on the features of a classifier's body says of the split that is measured."""
        train, classes = self.splits.train, len(self.splits.classes)
        chosen = np.arange(len(train))
        if len(train) > MOST_EXAMPLES:
            chosen = some_of_each(train.labels, MOST_EXAMPLES, 0)
        fitted = features_of(model, self.splits, train, cache="memory")[chosen]
        others = features_of(model, self.splits, self.split, cache="memory")
        return predictions(fitted, train.labels[chosen], others, classes=classes, seed=0)


@contextlib.contextmanager
def _body_of(model: keras.Model, source: keras.Model) -> Iterator[keras.Model]:
    """Lends the source model with the body of another; its own weights come back afterwards."""
    body = [variable for block in blocks(model).body for variable in _weights_of(block.layers)]
    places = [variable for block in blocks(source) for variable in _weights_of(block.layers)][: len(body)]
    given, expected = ([tuple(variable.shape) for variable in each] for each in (body, places))
    if given != expected:
        differ = next((n for n, pair in enumerate(zip(given, expected, strict=False)) if pair[0] != pair[1]), None)
        raise ValueError(
            explain(
                "The body of the source model is another than that of the model that is compared.",
                given=f"{len(body)} weights, {len(places)} in the source model"
                if differ is None
                else f"weight {differ}, {body[differ].path}, of shape {given[differ]}",
                expected="the same layers in the same order, with the source's head on top"
                if differ is None
                else f"{expected[differ]}, as {places[differ].path} of the source model",
                to_mend="Source(splits), without a model, which fits a linear probe",
            )
        )
    held = state.values_of(places)
    try:
        state.assign_to(places, state.values_of(body), noun="the source model")
        yield source
    finally:
        state.assign_to(places, held, noun="the source model")


def _weights_of(layers: tuple[keras.Layer, ...]) -> list[keras.Variable]:
    return [variable for layer in layers for variable in state.own_variables(layer) if not state.is_seed(variable)]
