"""`compare`: the same task by several methods, with several seeds, on the same budget."""

import dataclasses
import inspect
import json
import os
import pathlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_transfer import digests
from keras_transfer.data.splits import Splits
from keras_transfer.errors import explain, nearest
from keras_transfer.plans.plan import Plan
from keras_transfer.study.budget import with_epochs
from keras_transfer.study.comparison import Comparison, Data
from keras_transfer.study.memory import watched
from keras_transfer.study.source import Source
from keras_transfer.study.stored import Beginning
from keras_transfer.study.trial import FAILED, LEFT_OUT, Method, Trial
from keras_transfer.training import cache as caches
from keras_transfer.training.audit import AuditError
from keras_transfer.training.callbacks import NonFiniteLossError
from keras_transfer.training.files import write_whole
from keras_transfer.training.fit import fit
from keras_transfer.training.run import Run

Build = Callable[[], keras.Model]
PlanOf = Callable[[keras.Model], Plan]
# What `compare` says itself to `fit`.
_OWN = ("model", "splits", "plan", "workdir", "seed", "verbose")


def compare(
    build: Build,
    splits: Splits,
    plans: Mapping[str, PlanOf],
    *,
    seeds: int | Sequence[int] = 3,
    epochs: int | None = None,
    minutes: float | None = None,
    workdir: str | os.PathLike | None = None,
    source: Source | None = None,
    verbose: bool = True,
    **fit_options: Any,
) -> Comparison:
    """Carries several methods out on the same data with the same seeds, and says what differs beyond the noise.

    Before each run `keras.utils.set_random_seed(seed)` is called and a model is built, so that with one seed all
    methods start from the same head and see the examples in the same order, and with another seed from another. Each
    method has its turn with the first seed, then each with the second. What frozen layers make of the data is computed
    once and shared (`kt.cache`).

    A run whose loss becomes NaN or whose audit fails is kept in the table with its reason. Any other error ends the
    comparison; with a `workdir` the same line then goes on where it stopped.

    Args:
        build: makes a fresh model; called once for each run. It is to give the same model whenever it is called after
            the same `set_random_seed`.
        splits: the data; methods are compared on test, or on validation where there is no test split.
        plans: for each method, by its name, a function from a model to its `kt.Plan`. One whose first stage begins with
            random weights (`kt.from_scratch`) shows what transfer was worth.
        seeds: how many, counted from 0, or which. From three on, the noise between seeds is known well enough to speak
            of; with one, it is not counted.
        epochs: of each method in all, its stages scaled to it; `None` leaves each plan as it is.
        minutes: of training, over all runs, those counted that were carried out earlier in this workdir. A run that was
            begun is finished; one that was not begun in time is left out, which the table says.
        workdir: a folder for the runs, `<method>/seed_<seed>` each, and for `comparison.json`. A finished run is read
            and not trained again, one that was killed goes on.
        source: the task that the body was pretrained on, to measure how much of it each method forgets.
        verbose: whether to say how each run came out.
        **fit_options: further arguments of `kt.fit`, the same for every run: `class_weight`, `precision`, `cache`, ….

    Returns:
        The `kt.Comparison`: print it, or write it with `to_html`.

    Raises:
        ValueError: if nothing is to be compared, a plan does not fit the model or the budget, `build` gives two
            different models for one seed, or the workdir holds other runs. Plans are checked before anything is
            trained.

    Example:

    >>> import keras_transfer as kt
    >>> digits = kt.data.digits(classes=[0, 1], per_class=10, test=0.1)
    >>> comparison = kt.compare(
    ...     lambda: kt.image_classifier("MobileNetV2", digits.classes, weights=None, image_size=32, alpha=0.35),
    ...     digits,
    ...     {"head": kt.feature_extraction},
    ...     seeds=1,
    ...     epochs=1,
    ...     verbose=False,
    ... )
    >>> [(trial.method, trial.seed) for trial in comparison.trials], comparison.rows[0].trainable_parameters
    ([('head', 0)], 2562)
    """
    chosen = _checked_seeds(seeds)
    _check(splits, plans, epochs=epochs, minutes=minutes, fit_options=fit_options)
    study = _Study(build, splits, plans, epochs, workdir and pathlib.Path(workdir), source, verbose, fit_options)
    folders = study.folders()
    methods, task = _planned(study, chosen[0])
    trials: list[Trial] = []
    for seed in chosen:
        beginnings: dict[str, str] = {}
        for name in plans:
            spent = sum(trial.seconds for trial in trials)
            if minutes is not None and spent >= 60 * minutes:
                trials.append(Trial(name, seed, problem=f"{LEFT_OUT}: not begun within {minutes:g} minutes"))
                continue
            trials.append(_tried(study, name, seed, folders[name], beginnings))
            study.say(trials[-1])
    found = Comparison(methods, trials, _facts(splits), task)
    if study.workdir is not None:
        write_whole(study.workdir / "comparison.json", found.to_json())
    return found


@dataclasses.dataclass(frozen=True)
class _Study:
    """One call of `compare`: what is to be tried on what."""

    build: Build
    splits: Splits
    plans: Mapping[str, PlanOf]
    epochs: int | None
    workdir: pathlib.Path | None
    source: Source | None
    verbose: bool
    fit_options: Mapping[str, Any]

    def built(self, seed: int) -> keras.Model:
        """A fresh model."""
        keras.utils.set_random_seed(seed)
        model = self.build()
        if not isinstance(model, keras.Model):
            raise ValueError(
                explain(
                    "`build` makes no model.",
                    given=type(model).__name__,
                    expected="a keras.Model, as from kt.image_classifier",
                )
            )
        return model

    def plan(self, name: str, model: keras.Model) -> Plan:
        """The plan of a method for a model, within the budget."""
        plan = self.plans[name](model)
        if not isinstance(plan, Plan):
            raise ValueError(
                explain(
                    f"{name!r} makes no plan.",
                    given=type(plan).__name__,
                    expected="a function from a model to a kt.Plan: kt.feature_extraction, or"
                    " lambda model: kt.lora(model, rank=4)",
                )
            )
        return plan if self.epochs is None else with_epochs(plan, self.epochs, name=name)

    def folders(self) -> dict[str, pathlib.Path | None]:
        """Where the runs of each method go."""
        if self.workdir is None:
            return dict.fromkeys(self.plans)
        folders = {name: self.workdir / re.sub(r"[^\w\- ]", "_", name) for name in self.plans}
        if len(set(folders.values())) < len(folders):
            raise ValueError(
                explain(
                    "Two methods would have one folder.",
                    given=", ".join(map(repr, folders)),
                    expected="names that differ in letters and digits",
                )
            )
        self.workdir.mkdir(parents=True, exist_ok=True)
        return folders

    def say(self, trial: Trial) -> None:
        """One line on a run."""
        if not self.verbose:
            return
        reported = self.splits.test or self.splits.validation or self.splits.train
        outcome = trial.problem
        if trial.is_done:
            accuracy = np.mean(trial.predicted == reported.labels)
            outcome = f"accuracy {accuracy:.3f} on {reported.name}, {trial.seconds:.1f} s"
        width = max(map(len, self.plans))
        print(f"seed {trial.seed}  {trial.method:<{width}}  {outcome}", flush=True)


def _planned(study: _Study, seed: int) -> tuple[list[Method], Any]:
    """What each method is going to do, and how the source task is done now; before anything is trained."""
    model = study.built(seed)
    methods = [Method(name, study.plan(name, model)) for name in study.plans]
    return methods, study.source.task(model) if study.source else None


def _tried(study: _Study, name: str, seed: int, folder: pathlib.Path | None, beginnings: dict[str, str]) -> Trial:
    """Carries a method out with one seed, or reads what came of it."""
    workdir = folder and folder / f"seed_{seed}"
    kept_before, started = _kept(), time.perf_counter()
    with watched() as memory:
        model = study.built(seed)
        beginning = Beginning(model)
        _check_same(beginning.digest, beginnings, name, seed)
        try:
            run = fit(
                model,
                study.splits,
                study.plan(name, model),
                workdir=workdir,
                seed=seed,
                verbose=False,
                **study.fit_options,
            )
        except (NonFiniteLossError, AuditError) as error:
            reason = " ".join(str(error).split())
            return Trial(name, seed, seconds=time.perf_counter() - started, problem=f"{FAILED}: {reason}")
    trial = Trial(
        name,
        seed,
        predicted=run.probabilities.argmax(axis=1),
        history=run.history,
        seconds=run.report.cost.total_seconds,
        trainable_parameters=max(stage.trainable_parameters for stage in run.report.cost.stages),
        stored_bytes=beginning.bytes_since(model),
        memory_bytes=memory.added,
        made_features=bool(_kept() - kept_before),
    )
    if workdir is not None:
        trial = _as_first_seen(trial, run, workdir)
    if study.source is not None and trial.source_accuracy is None and run.plan.stages[0].start != "random":
        trial = dataclasses.replace(trial, source_accuracy=study.source.accuracy(model))
    if workdir is not None:
        write_whole(workdir / "trial.json", json.dumps({"of": _digest(run), **_seen(trial)}))
    return trial


def _seen(trial: Trial) -> dict[str, Any]:
    """What is seen only while a run goes on, or takes long to find."""
    return {
        "memory_bytes": trial.memory_bytes,
        "made_features": trial.made_features,
        "source_accuracy": trial.source_accuracy,
    }


def _as_first_seen(trial: Trial, run: Run, workdir: pathlib.Path) -> Trial:
    """The trial with what was seen when the run was carried out, where that was earlier."""
    try:
        written = json.loads((workdir / "trial.json").read_text())
    except (OSError, ValueError):
        return trial
    if written.pop("of", None) != _digest(run):
        return trial
    return dataclasses.replace(trial, **written)


def _digest(run: Run) -> str:
    # The report holds the seconds of each stage, so no two runs have the same.
    return digests.of_json(run.report.to_json())


def _kept() -> set[pathlib.Path]:
    return {entry.folder for entry in caches.entries()}


def _check_same(digest: str, beginnings: dict[str, str], name: str, seed: int) -> None:
    """Raises a `ValueError` where `build` gave another model than it gave the other methods for this seed."""
    beginnings[name] = digest
    first = next(iter(beginnings))
    if beginnings[first] != digest:
        raise ValueError(
            explain(
                f"`build` gave other weights for {name!r} than for {first!r}, with the same seed {seed}.",
                expected="the same fresh model whenever it is called after keras.utils.set_random_seed(seed)",
                to_mend="build the body inside `build`; or, where one body is shared, put its weights back there:"
                " body.set_weights(pretrained)",
            )
        )


def _facts(splits: Splits) -> Data:
    reported = splits.test or splits.validation or splits.train
    counts = {split.name: len(split) for split in splits.all}
    return Data(reported.name, splits.classes, reported.labels, counts, splits.fingerprint, tuple(splits.notes))


def _checked_seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    chosen = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    if not chosen or len(set(chosen)) < len(chosen) or any(not isinstance(s, int) or s < 0 for s in chosen):
        raise ValueError(
            explain(
                "`seeds` names no seeds.",
                given=repr(seeds),
                expected="how many, at least 1, or different whole numbers from 0 up",
            )
        )
    return chosen


def _check(
    splits: Splits,
    plans: Mapping[str, PlanOf],
    *,
    epochs: int | None,
    minutes: float | None,
    fit_options: Mapping[str, Any],
) -> None:
    """Raises a `ValueError` for arguments that mean nothing, before anything is built."""
    named = isinstance(plans, Mapping) and plans and all(isinstance(name, str) and name for name in plans)
    if not named or not all(map(callable, plans.values())):
        raise ValueError(
            explain(
                "`plans` gives no methods to compare.",
                given=repr(plans)[:200],
                expected='functions from a model to a plan by name, for instance {"head only": kt.feature_extraction}',
            )
        )
    for name, given, fine, expected in (
        ("splits", splits, isinstance(splits, Splits), "what kt.data.images or kt.data.texts returns, whole"),
        ("splits", splits, bool(getattr(splits, "classes", ())), "data with classes: compare is for classifiers"),
        ("epochs", epochs, epochs is None or (isinstance(epochs, int) and epochs >= 1), "None, or 1 or more"),
        ("minutes", minutes, minutes is None or minutes > 0, "None, or a positive number"),
    ):
        if not fine:
            raise ValueError(explain(f"`{name}` of compare is out of place.", given=repr(given), expected=expected))
    known = [name for name in inspect.signature(fit).parameters if name not in _OWN]
    for name in fit_options:
        if name not in known:
            raise ValueError(
                explain(
                    "There is no such argument, neither of `compare` nor of `kt.fit` where each run has its own.",
                    given=f"{name}={fit_options[name]!r}",
                    nearest=nearest(name, [*known, *inspect.signature(compare).parameters]),
                )
            )
