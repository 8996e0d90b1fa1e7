"""What a model's outputs are held against: one class for each example, or the next token at each place."""

import abc

import keras
import numpy as np

from keras_transfer.builders.outputs import check_classes, check_outputs, compile_as_classifier, gives_logits
from keras_transfer.data.images import ImageSplits
from keras_transfer.data.splits import Batches, Split, Splits
from keras_transfer.errors import explain, nearest
from keras_transfer.evaluation.cost import Cost
from keras_transfer.evaluation.language_report import LanguageReport
from keras_transfer.evaluation.prediction import predict_split, predict_split_in_ten_crops
from keras_transfer.evaluation.report import Report, report
from keras_transfer.training.token_metrics import TokenAccuracy, TokenCrossEntropy


class Objective(abc.ABC):
    """What `fit` has to know of a task beside model, data and plan.

    Attributes:
        monitored: the measure on validation by which a stage with patience stops; the lower the better.
    """

    monitored = "val_loss"

    @abc.abstractmethod
    def check(self, model: keras.Model, splits: Splits) -> None:
        """Raises a `ValueError` where model and data do not belong together."""

    @abc.abstractmethod
    def compile(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        jit_compile: bool | str,
        *,
        steps_at_once: int = 1,
    ) -> None:
        """Compiles the model for a stage, to take so many steps before Python is asked what comes next."""

    @abc.abstractmethod
    def leave_compiled(self, model: keras.Model) -> None:
        """Compiles the model with stock parts, for whoever trains on with plain Keras."""

    @abc.abstractmethod
    def report(
        self, model: keras.Model, splits: Batches, split: Split, cost: Cost | None
    ) -> tuple[Report | LanguageReport, np.ndarray | None]:
        """The report on one split, and the class probabilities that it was made from, where there are any."""

    @abc.abstractmethod
    def read_report(self, text: str) -> Report | LanguageReport:
        """The report that was written as JSON."""


class Classification(Objective):
    """One class for each example."""

    def check(self, model, splits):
        if len(model.outputs) != 1 or len(model.outputs[0].shape) != 2:
            raise ValueError(
                explain(
                    "The data have labels, so they are for a classifier.",
                    given=f"{model.name}, with outputs {[tuple(output.shape) for output in model.outputs]}",
                    expected="logits of shape (batch, classes), as from kt.image_classifier or kt.text_classifier",
                    to_mend="kt.image_classifier(model, splits.classes), for a body without a head"
                    if len(model.outputs) == 1 and len(model.outputs[0].shape) == 4
                    else "kt.data.texts(…, label=False) or kt.data.prompts(…), for a language model",
                )
            )
        check_classes(model, splits.classes)
        check_outputs(model)

    def compile(self, model, optimizer, jit_compile, *, steps_at_once=1):
        model.compile(
            optimizer=optimizer,
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=gives_logits(model)),
            metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
            jit_compile=jit_compile,
            steps_per_execution=steps_at_once,
        )

    def leave_compiled(self, model):
        compile_as_classifier(model)

    def report(self, model, splits, split, cost):
        probabilities = predict_split(model, splits, split)
        return report(split.labels, probabilities, splits.classes, split=split.name, cost=cost), probabilities

    def read_report(self, text):
        return Report.from_json(text)


class NextToken(Objective):
    """The next token at each place, where its weight is not 0 (padding and prompts have none).

    The loss is the mean over the tokens that count. Keras' own reduction divides by all places, padding included, so
    that a batch of short texts would teach less per token than one of long ones.
    """

    # The loss that Keras reports is the mean of batches, in which a token of a short text counts for more.
    monitored = "val_cross_entropy"

    def check(self, model, splits):
        if len(model.outputs) != 1 or len(model.outputs[0].shape) != 3:
            raise ValueError(
                explain(
                    "The data have no labels, so they are for a language model.",
                    given=f"{model.name}, with outputs {[tuple(output.shape) for output in model.outputs]}",
                    expected="logits of shape (batch, length, vocabulary), as from kt.causal_lm",
                )
            )

    def compile(self, model, optimizer, jit_compile, *, steps_at_once=1):
        metrics = [TokenCrossEntropy(name="cross_entropy", from_logits=True), TokenAccuracy(name="accuracy")]
        self._compile(model, optimizer, jit_compile, steps_at_once, metrics)

    def _compile(self, model, optimizer, jit_compile, steps_at_once, metrics):
        # KerasHub's tasks also take how they sample, and fall back on their own choice where they are not told.
        sampler = {"sampler": model.sampler} if getattr(model, "sampler", None) is not None else {}
        model.compile(
            optimizer=optimizer,
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="mean_with_sample_weight"),
            weighted_metrics=metrics,
            jit_compile=jit_compile,
            steps_per_execution=steps_at_once,
            **sampler,
        )

    def leave_compiled(self, model):
        stock = [
            keras.metrics.SparseCategoricalCrossentropy(name="cross_entropy", from_logits=True),
            keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
        ]
        self._compile(model, keras.optimizers.Adam(1e-4), "auto", 1, stock)

    def report(self, model, splits, split, cost):
        # The same layers under another model: how the user's own is compiled, optimizer and all, is left alone.
        measured = keras.Model(model.input, model.output)
        self.compile(measured, keras.optimizers.SGD(), "auto")
        batches = splits.whole.evaluation_batches(split, model, in_order=False)
        found = measured.evaluate(batches, verbose=0, return_dict=True)
        return LanguageReport(split.name, found["cross_entropy"], found["accuracy"], len(split), cost), None

    def read_report(self, text):
        return LanguageReport.from_json(text)


def objective_of(splits: Splits) -> Objective:
    """What data of this kind are for."""
    return Classification() if splits.classes else NextToken()


def evaluate(
    model: keras.Model, splits: Splits, split: str = "test", *, ten_crop: bool = False
) -> Report | LanguageReport:
    """How good a model is on one split, trained by `fit` or not.

    Args:
        model: a classifier, or a language model for data without labels.
        splits: the data.
        split: `"train"`, `"validation"` or `"test"`.
        ten_crop: whether pictures are looked at in ten parts, as by `kt.predict`.

    Returns:
        What `run.report` is after `fit`, without cost.

    Raises:
        ValueError: where the data have no such split, or model and data do not belong together; for ten crops of what
            are not labelled pictures.

    Example:

    >>> import keras_transfer as kt
    >>> digits = kt.data.digits(classes=[0, 1], per_class=20)
    >>> model = kt.image_classifier("MobileNet", digits.classes, weights=None, image_size=32, alpha=0.25)
    >>> evaluate(model, digits, "validation").split
    'validation'
    """
    named = {each.name: each for each in splits.all}
    if split not in named:
        raise ValueError(
            explain(
                "The data have no split of that name.",
                given=repr(split),
                nearest=nearest(str(split), named),
                expected=" or ".join(map(repr, named)),
            )
        )
    objective = objective_of(splits)
    objective.check(model, splits)
    if not ten_crop:
        return objective.report(model, splits, named[split], None)[0]
    if not isinstance(splits, ImageSplits):
        raise ValueError(
            explain(
                "Ten crops are of pictures.",
                given=f"ten_crop=True with {type(splits).__name__}",
                expected="pictures, from kt.data.images",
                to_mend="leave it out",
            )
        )
    probabilities = predict_split_in_ten_crops(model, splits, named[split])
    return report(named[split].labels, probabilities, splits.classes, split=split)
