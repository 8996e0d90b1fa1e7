"""The flow chart that courses end with, as rules that say what they go by: where a study begins, not where it ends."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from keras_transfer.formatting import counted

Confidence = Literal["low", "medium"]
METHODS = ("feature_extraction", "staged_fine_tuning", "lora")

# Labelled examples for each class: fewer than the first are little data, more than the second are much. Courses give no
# numbers. With 13 a class (folds of the training sketches, benchmarks/fine_tuning_folds.py) fine-tuning gains four
# points over the fitted head, so that little is less than that; much is where it gains whatever is done.
LITTLE, MUCH = 10, 500
# How far from chance to perfect nearest neighbours get on features that were never trained on the task.
FAR, NEAR = 0.5, 0.85
# Parameters of a body for which full fine-tuning is a burden.
LARGE = 50e6
# Epochs that fine-tuning needs to gain anything.
FEW_EPOCHS = 2


@dataclasses.dataclass(frozen=True)
class Rule:
    """A branch of the flow chart, on one task.

    Attributes:
        about: what it goes by.
        found: what that is here.
        says: the method that it points to, or `None` where it points to none.
        because: the chart's reason.
        confidence: how far to believe it. None is ever high: courses contradict each other.
    """

    about: str
    found: str
    says: str | None
    because: str
    confidence: Confidence

    def __str__(self) -> str:
        says = f"says {self.says}" if self.says else "says nothing for or against"
        return f"{self.about}: {self.found}: {says} ({self.confidence} confidence): {self.because}"


def rules(
    *, per_class: float, nearness: float, parameters: int, is_transformer: bool, epochs_in_time: float
) -> list[Rule]:
    """What the flow chart says of a task.

    Args:
        per_class: labelled training examples in a class, on average.
        nearness: how near the task is to what the body knows: how far from chance (0) to perfect (1) the vote of the
            nearest neighbours gets on the untouched features.
        parameters: of the body.
        is_transformer: whether it has attention that LoRA can be put on.
        epochs_in_time: how many epochs of full fine-tuning the minutes allow.

    Example:

    >>> found = rules(per_class=80, nearness=0.6, parameters=410_208, is_transformer=False, epochs_in_time=8)
    >>> print(found[2])
    body: 0.4 million parameters: says nothing for or against (low confidence): small enough to train whole
    """
    return [
        _of_data(per_class),
        _of_similarity(nearness, per_class),
        _of_body(parameters, is_transformer),
        _of_budget(epochs_in_time),
    ]


def leaning(found: Sequence[Rule]) -> str:
    """The method that most rules point to, of equals the one that trains less."""
    said = [rule.says for rule in found if rule.says]
    return max(METHODS, key=said.count) if said else METHODS[0]


def _of_data(per_class: float) -> Rule:
    found = f"{per_class:.0f} training examples a class"
    if per_class < LITTLE:
        return Rule("data", found, METHODS[0], "a body that trains overfits so few", "medium")
    if per_class >= MUCH:
        return Rule("data", found, METHODS[1], "enough to move the body without overfitting", "medium")
    return Rule("data", found, METHODS[1], "enough to move a body that is held near to where it was", "low")


def _of_similarity(nearness: float, per_class: float) -> Rule:
    found = f"nearest neighbours on its features get {nearness:.0%} of the way from chance to perfect"
    if nearness >= NEAR:
        return Rule("similarity", found, METHODS[0], "the features tell the classes apart already", "low")
    if nearness < FAR and per_class < LITTLE:
        because = "far from the source with little data: courses contradict each other here"
        return Rule("similarity", found, None, because, "low")
    because = "the features miss part of what matters" if nearness >= FAR else "far from the source: features must move"
    return Rule("similarity", found, METHODS[1], because, "medium" if nearness < FAR else "low")


def _of_body(parameters: int, is_transformer: bool) -> Rule:
    found = f"{parameters / 1e6:.1f} million parameters" + (", a transformer" if is_transformer else "")
    if is_transformer and parameters >= LARGE:
        return Rule("body", found, METHODS[2], "a large transformer: a thousandth of its numbers will do", "medium")
    if is_transformer:
        return Rule("body", found, METHODS[2], "low-rank updates forget less, and its files are small", "low")
    if parameters >= LARGE:
        return Rule("body", found, METHODS[0], "large, and not a transformer: dear to train whole", "low")
    return Rule("body", found, None, "small enough to train whole", "low")


def _of_budget(epochs: float) -> Rule:
    found = f"{counted(round(epochs), 'epoch')} of the whole body would fit into the minutes"
    if epochs < FEW_EPOCHS:
        return Rule("budget", found, METHODS[0], "too few for fine-tuning to gain anything", "medium")
    return Rule("budget", found, None, "enough to try fine-tuning", "low")
