"""`adapt`: labels in one domain, none in the other."""

import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np

from keras_transfer import state
from keras_transfer.arguments import check_seed, is_number
from keras_transfer.backbones.cut import InputsOf
from keras_transfer.backbones.freezing import batch_norms
from keras_transfer.data.splits import Splits
from keras_transfer.errors import explain, nearest
from keras_transfer.evaluation.prediction import outputs_of_split
from keras_transfer.formatting import counted
from keras_transfer.plans.fates import fates
from keras_transfer.plans.plan import Plan, Stage
from keras_transfer.study.adaptation import adaptation, pairs
from keras_transfer.study.adaptation.adaptation import Adaptation
from keras_transfer.study.adaptation.adversarial import DomainAdversary
from keras_transfer.study.adaptation.alignment import alignment, fold, lowest_of_head
from keras_transfer.study.adaptation.coral import Coral
from keras_transfer.study.adaptation.domains import without_labels
from keras_transfer.study.adaptation.measures import Gap, gap, halves, mean_gap
from keras_transfer.training.batch_statistics import Passes, inputs_of, moving_statistics
from keras_transfer.training.l2_sp import pretrained
from keras_transfer.training.linear_probe import start_from_probe
from keras_transfer.training.objectives import Classification

Method = Literal["statistics", "coral", "adversarial"]
Align = Literal["auto", "batch_norm", "features", "both"]
Head = Literal["probe", "kept"]


def adapt(
    model: keras.Model,
    source: Splits,
    target_unlabelled: Any,
    method: Method = "statistics",
    *,
    align: Align = "auto",
    stage: Stage | None = None,
    weight: float = 1.0,
    head: Head = "probe",
    seed: int = 0,
    verbose: bool = True,
) -> Adaptation:
    """Carries a classifier from a domain with labels to one without (transductive transfer).

    - `"statistics"` trains nothing but the head. Batch norms get the statistics of the source, the head is fitted, and
      they get those of the target (AdaBN, Li et al. 2016, arXiv:1603.04779). Where there are none, or after them, the
      target's features get the mean and spread that they have in the source, by the head's own kernel and bias.
    - `"coral"` trains on the source's labels and on the distance of the two domains' covariances (Deep CORAL, Sun and
      Saenko 2016, arXiv:1607.01719).
    - `"adversarial"` trains on the source's labels and against a classifier that tells the domains apart (DANN, Ganin
      et al. 2016, arXiv:1505.07818). The least steady of the three: where the domains are told apart as well as before
      it has not done what it is for, which a note of the result then says.

    No label of the target is read. So nothing is selected by them either: the schedule is fixed beforehand, and the
    last weights are kept.

    Not for: a target whose classes have other shares than the source's. All three bring the domains to one
    distribution, and would bring one class to another.

    Args:
        model: a classifier with the source's classes; it is changed in place, and is for the target then.
        source: the domain with labels.
        target_unlabelled: the other: splits, whose training examples are taken and whose labels are not; or pictures
            or texts as `kt.predict` takes them.
        method: how.
        align: for `"statistics"`: `"batch_norm"`, `"features"`, `"both"`, or `"auto"`: batch norms where there are
            some, else features.
        stage: for the methods that train: what trains, how fast and for how long, its pull and augmentation as in
            `kt.fit`. If not given, the whole model at a low rate; batch norms adapt where there are some, each domain
            then normalised by its own statistics.
        weight: of the penalty: `"coral"` counts the distance of two batches in units of what it is before the first
            step, or of what two batches of the source are apart by chance, if that is more; `"adversarial"` hands back
            so much of the domain classifier's gradient in the end.
        head: `"probe"` begins with logistic regression on the source's features; `"kept"` with the head there is, for a
            model that was trained on the source, statistics of batch norms included.
        seed: of everything random.
        verbose: whether to say what is going on.

    Returns:
        The `kt.Adaptation`: the model, what was done, and what can be measured without labels.

    Raises:
        ValueError: if model and data do not fit together, or an argument has no use for the method.

    Example:

    >>> import keras_transfer as kt
    >>> digits = kt.data.digits(classes=[0, 1], per_class=20)
    >>> model = kt.image_classifier("MobileNet", digits.classes, weights=None, image_size=32, alpha=0.25)
    >>> inverted = 255 - digits.peek(digits.train, range(32), model)
    >>> adapt(model, digits, inverted, verbose=False).steps[-1]
    'the statistics of 27 batch norms are those of 32 examples of the target'
    """
    check_seed(seed)
    stage = _checked(model, source, method, align=align, stage=stage, weight=weight, head=head)
    target = without_labels(model, target_unlabelled, like=source)
    together = [getattr(domain, "texts_per_row", 1) for domain in (source, target)]
    _check(
        "target_unlabelled", f"{together[1]} texts in a row", together[0] == together[1], f"{together[0]}, as in source"
    )
    _check("target_unlabelled", f"{len(target.train)} example", len(target.train) > 1, "2 or more: one does not vary")
    for domain in (source, target):
        inputs_of(model, domain, np.arange(1))  # or the reason why the model cannot read it, before anything is changed
    job = _Job(model, source, target, head == "probe", seed, verbose)
    follows, folds = _what_is_aligned(model, align, stage)
    if folds:
        lowest_of_head(model)  # or the reason why nothing can be folded into it, before anything is changed
    pulled_to = pretrained(model) if stage and stage.l2_sp else {}
    job.fit_head("the head is fitted to the source's features")
    features = job.features("source"), job.features("target")
    accuracy, between = adaptation.accuracy(model, source), job.gap(features, follows=False, folds=False)
    before = adaptation.look(model, target, features, between, accuracy, seed=seed)
    if follows and job.fits_head:
        job.take_statistics("source")
        job.fit_head("the head is fitted to them")
    history = job.train(stage, _penalty(model, source, target, method, stage, weight, seed), pulled_to)
    if follows and history:
        job.take_statistics("source", say=False)
    accuracy, on_source = adaptation.accuracy(model, source), job.features("source")
    if follows:
        job.take_statistics("target")
    features = on_source, job.features("target")
    between = job.gap(features, follows=follows, folds=folds)
    if folds:
        features = on_source, job.fold(*features)
    after = adaptation.look(model, target, features, between, accuracy, seed=seed)
    labels, classes = source.train.labels, source.classes
    notes = adaptation.notes(adaptation.shares(labels, len(classes)), after.shares, classes, len(target.train))
    notes += adaptation.still_apart(before.gap, after.gap)
    notes += adaptation.fall(before.source_accuracy, after.source_accuracy, method)
    return Adaptation(method, model, tuple(job.steps), before, after, labels, classes, seed, history, notes)


class _Job:
    """One adaptation under way, and what it has done so far."""

    def __init__(
        self, model: keras.Model, source: Splits, target: Splits, fits_head: bool, seed: int, verbose: bool
    ) -> None:
        self.model, self.domains = model, {"source": source, "target": target}
        self.fits_head, self._seed, self._verbose = fits_head, seed, verbose
        self.steps: list[str] = []
        # One of each for all that is done: they are traced once.
        self._read_by_head, self._passes = InputsOf(model, pairs.entry_of_head(model)), Passes(model)

    def say(self, step: str) -> None:
        self.steps.append(step)
        if self._verbose:
            print(step)

    def fit_head(self, step: str) -> None:
        if self.fits_head:
            start_from_probe(self.model, self.domains["source"], seed=self._seed)
            self.say(step)

    def features(self, domain: str, rows: np.ndarray | None = None) -> np.ndarray:
        """What the head reads of training examples, of all or some, shape (examples, features), in their order."""
        splits = self.domains[domain]
        read = splits.train if rows is None else splits.train.select(rows)
        return outputs_of_split(self._read_by_head, splits, read, whole=self.model).astype("float32")

    def take_statistics(self, domain: str, *, say: bool = True) -> None:
        splits = self.domains[domain]
        self._passes.re_estimate(splits, seed=self._seed)
        if say:
            count = len(batch_norms(self.model))
            self.say(f"the statistics of {count} batch norms are those of {len(splits.train)} examples of the {domain}")

    def train(
        self, stage: Stage | None, penalty: keras.layers.Layer | None, pulled_to: Mapping[int, np.ndarray]
    ) -> list[dict[str, Any]]:
        if stage is None:
            return []
        source, target = self.domains["source"], self.domains["target"]
        self.say(f"{counted(stage.epochs, 'epoch')} of stage {stage.name!r} on both domains")
        options = {"pretrained": pulled_to, "seed": self._seed, "verbose": self._verbose}
        return pairs.train(self.model, penalty, source, target, stage, **options)

    def gap(self, features: tuple[np.ndarray, np.ndarray], *, follows: bool, folds: bool) -> Gap:
        """What lies between the domains, each half of the examples under statistics that were taken of the others.

        Where a part is judged by statistics that it had a part in, the rest differs from it the other way round, and a
        classifier that was fitted to the rest is wrong more often than a guess: that would be no distance at all.

        Args:
            features: all that the head reads of source and target, as the model is.
            follows: whether batch norms take each domain's statistics.
            folds: whether the target's features are given those of the source.
        """
        found = []
        for parts in zip(*(halves(len(domain.train), self._seed) for domain in self.domains.values()), strict=True):
            seen = []
            for name, of, judged in zip(self.domains, features, parts, strict=True):
                others = np.setdiff1d(np.arange(len(of)), judged)
                lots = [judged, others] if folds else [judged]
                seen.append(self._under_statistics_of(name, others, lots) if follows else [of[rows] for rows in lots])
            (source, *source_others), (target, *target_others) = seen
            if folds:
                scale, shift = alignment(*source_others, *target_others)
                target = target * scale + shift
            found.append(gap(source, target, seed=self._seed))
        return mean_gap(found)

    def _under_statistics_of(self, domain: str, taken: np.ndarray, lots: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The features of several lots of a domain's examples, under the statistics of those that are taken. The
        model's own statistics stay."""
        statistics = moving_statistics(self.model)
        before = state.values_of(statistics)
        try:
            self._passes.re_estimate(self.domains[domain], rows=taken, seed=self._seed)
            return [self.features(domain, rows) for rows in lots]
        finally:
            state.assign_to(statistics, before, noun="statistics")

    def fold(self, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """The target's features as the head reads them from now on."""
        scale, shift = alignment(source, target)
        fold(self.model, scale, shift)
        self.say(f"the target's {len(scale)} features have the source's mean and spread, by the head's kernel and bias")
        return target * scale + shift


def _penalty(
    model: keras.Model, source: Splits, target: Splits, method: Method, stage: Stage | None, weight: float, seed: int
) -> keras.layers.Layer | None:
    if method == "coral":
        # In units of what the stage itself sees at first: under the old statistics domains may lie far apart, or not at
        # all, that lie otherwise in batches normalised by their own. What is chance alone is no distance to speak of.
        return Coral(weight / max(*pairs.distances(model, source, target, stage, seed=seed), 1e-12))
    if method == "adversarial":
        return DomainAdversary(source.steps_per_epoch(model) * stage.epochs, weight)
    return None


def _what_is_aligned(model: keras.Model, align: Align, stage: Stage | None) -> tuple[bool, bool]:
    """Whether batch norms take each domain's statistics, and whether features do."""
    has_batch_norms = bool(batch_norms(model))
    if stage is not None:
        return has_batch_norms and stage.batch_norm == "adapt", False
    if align == "auto":
        return has_batch_norms, not has_batch_norms
    if align in ("batch_norm", "both") and not has_batch_norms:
        raise ValueError(
            explain(
                f"{model.name} has no batch norms whose statistics could be the target's.",
                given=f"align={align!r}",
                to_mend='align="features"',
            )
        )
    return align in ("batch_norm", "both"), align in ("features", "both")


def default_stage(model: keras.Model) -> Stage:
    """What trains where nothing else is asked for: all of it, its lower blocks slower, and each domain normalised by
    its own statistics."""
    if any(tensor.name == "token_ids" for tensor in model.inputs):  # a transformer takes a tenth of a CNN's rate
        return Stage("all", epochs=4, learning_rate=1e-4, layer_decay=0.85)
    batch_norm = "adapt" if batch_norms(model) else "frozen"
    return Stage("all", epochs=10, learning_rate=1e-3, layer_decay=0.85, batch_norm=batch_norm)


def _checked(
    model: keras.Model, source: Splits, method: Method, *, align: Align, stage: Stage | None, weight: float, head: Head
) -> Stage | None:
    """The stage of a method that trains, once everything has been found to fit together."""
    for name, given, choices in (("method", method, Method), ("align", align, Align), ("head", head, Head)):
        _check_choice(name, given, typing.get_args(choices))
    if not isinstance(model, keras.Model) or not isinstance(source, Splits):
        raise ValueError(
            explain(
                "What is to be adapted is a model, and from labelled splits.",
                given=f"{type(model).__name__}, {type(source).__name__}",
                expected="a keras.Model, and what kt.data.images or kt.data.texts returns",
            )
        )
    Classification().check(model, source)
    trains = method != "statistics"
    _check("stage", stage, stage is None or isinstance(stage, Stage), "None, or a kt.Stage; a plan has several")
    _check("stage", stage, stage is None or trains, f"None: {method!r} trains nothing but the head")
    _check("align", align, align == "auto" or not trains, f"'auto': {method!r} has no such choice")
    _check("weight", weight, is_number(weight) and weight > 0, "a positive number", "weight=1.0")
    _check("weight", weight, weight == 1.0 or trains, f"1.0: {method!r} has no penalty")
    if not trains:
        return None
    stage = Plan([stage or default_stage(model)]).over(source.steps_per_epoch(model)).stages[0]
    fates(model, stage)
    _check("stage.adapters", stage.adapters, stage.adapters is None, "none")
    _check("stage.patience", stage.patience, stage.patience is None, "None: nothing is chosen, for want of labels")
    _check("stage.statistics", stage.statistics, stage.statistics == "kept", "'kept': what they are is the method's")
    _check("stage.safeguard", stage.safeguard, not stage.safeguard, "False: nothing is chosen, for want of labels")
    _check("stage.start", stage.start, stage.start == "pretrained", "'pretrained': how it starts, `head` says")
    return stage


def _check_choice(name: str, given: object, choices: tuple[str, ...]) -> None:
    if given not in choices:
        raise ValueError(
            explain(
                f"`{name}` of adapt names no choice.",
                given=repr(given),
                nearest=nearest(str(given), choices),
                expected=", ".join(map(repr, choices)),
            )
        )


def _check(name: str, given: object, fine: bool, expected: str, to_mend: str | None = None) -> None:
    if not fine:
        said = f"`{name}` of adapt is out of place."
        raise ValueError(explain(said, given=repr(given), expected=expected, to_mend=to_mend))
