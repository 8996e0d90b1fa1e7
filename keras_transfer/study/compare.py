"""`compare`: the same task by several methods, with several seeds, on the same budget."""

import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_transfer import digests
from keras_transfer.data.splits import Splits
from keras_transfer.errors import explain
from keras_transfer.formatting import counted, duration
from keras_transfer.plans.plan import Plan
from keras_transfer.study import arguments, first_seen, rehearsal
from keras_transfer.study.budget import with_epochs
from keras_transfer.study.comparison import Comparison, Data, SourceTask
from keras_transfer.study.domain_shift import Shift, shifts_among
from keras_transfer.study.embedding import features_of, why_no_features
from keras_transfer.study.memory import watched
from keras_transfer.study.several_models import one_after_another
from keras_transfer.study.source import Source
from keras_transfer.study.trial import FAILED, LEFT_OUT, Method, Trial
from keras_transfer.study.ways import Build, Freshness, PlanOf, Way, planned, ways
from keras_transfer.training import cache as caches
from keras_transfer.training.arguments import check_features, checked_fates
from keras_transfer.training.audit import AuditError
from keras_transfer.training.callbacks import NonFiniteLossError
from keras_transfer.training.files import write_whole
from keras_transfer.training.fit import fit

# Failures that belong into the table. Any other error is a mistake, and ends the comparison.
_FAILURES = (NonFiniteLossError, AuditError)


def compare(
    build: Build | Mapping[str, Build],
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
        build: makes a fresh model; called once for each run and before them. It is to give the same model whenever it
            is called after the same `set_random_seed`. To compare bodies, for instance of several source tasks: a
            mapping of their names to such functions; every method is then tried with each.
        splits: the data; methods are compared on test, or on validation where there is no test split. One of them there
            must be: how well a method knows what it was trained on says nothing.
        plans: for each method, by its name, a function from a model to its `kt.Plan`. One whose first stage begins with
            random weights (`kt.from_scratch`) shows what transfer was worth.
        seeds: how many, counted from 0, or which. From three on, the noise between seeds is known well enough to speak
            of; with one, it is not counted.
        epochs: of each method in all, its stages scaled to it.
        minutes: of training in all, the same share for every run, instead of `epochs`. A few steps of each method are
            timed first; a plan that would take longer than its share is given fewer epochs, one for which that would be
            less than one a stage is left out, which the table says. None is given more epochs than it has by itself.
            With neither, each plan is carried out as it is.
        workdir: a folder for the runs, `<method>/seed_<seed>` each, and for `comparison.json`. A finished run is read
            and not trained again, one that was killed goes on.
        source: the task that the body was pretrained on, to measure how much of it each method forgets.
        verbose: whether to say how each run came out.
        **fit_options: further arguments of `kt.fit`, the same for every run: `class_weight`, `precision`, `cache`, ….

    Returns:
        The `kt.Comparison`: print it, or write it with `to_html`.

    Raises:
        ValueError: if nothing is to be compared or there is nothing to compare it on, a plan does not fit the model or
            the budget, `build` does not give a fresh model, or two different ones for one seed, or the workdir holds
            other runs. Plans are checked before anything is trained.

    Example:

    >>> import keras_transfer as kt
    >>> digits = kt.data.digits(classes=[0, 1], per_class=10, test=0.1, batch_size=8)
    >>> comparison = kt.compare(
    ...     lambda: kt.image_classifier("MobileNet", digits.classes, weights=None, image_size=32, alpha=0.25),
    ...     digits,
    ...     {"head": kt.feature_extraction},
    ...     seeds=1,
    ...     epochs=1,
    ...     verbose=False,
    ... )
    >>> [(trial.method, trial.seed) for trial in comparison.trials], comparison.rows[0].trainable_parameters
    ([('head', 0)], 514)
    """
    chosen = arguments.checked_seeds(seeds)
    arguments.check(build, splits, plans, epochs=epochs, minutes=minutes, source=source, fit_options=fit_options)
    epochs = None if epochs is None else int(epochs)  # a number of NumPy may be given, and no plan or file holds one
    builds = build if isinstance(build, Mapping) else {"": build}
    folder = None if workdir is None else pathlib.Path(workdir)
    study = _Study(splits, folder, source, verbose, fit_options, Freshness())
    with one_after_another():
        every, whole, task, no_shifts = _prepared(study, builds, plans, chosen[0])
        folders = study.folders([way.name for way in every])
        given = {name: plan if epochs is None else with_epochs(plan, epochs, name=name) for name, plan in whole.items()}
        reasons: Mapping[str, str] = {}
        if minutes is not None:
            given, reasons = _within_minutes(study, every, whole, chosen, minutes)
        trials: list[Trial] = []
        for seed, way in itertools.product(chosen, every):
            if way.name in reasons:
                trials.append(Trial(way.name, seed, problem=reasons[way.name]))
            else:
                trials.append(_tried(study, way, given[way.name].epochs, seed, folders[way.name]))
            study.say_of(trials[-1], width=max(map(len, given)))
        methods = [Method(way.name, given[way.name], way.body) for way in every]
        said = _budget_said(epochs, minutes, len(trials))
        shifts: list[Shift] = []
        if not no_shifts:
            shifts, no_shifts = _shifts(study, builds, chosen[0])
    found = Comparison(methods, trials, _facts(splits, no_shifts), task, said, shifts)
    if study.workdir is not None:
        write_whole(study.workdir / "comparison.json", found.to_json())
    return found


@dataclasses.dataclass(frozen=True)
class _Study:
    """What holds for every run of one call of `compare`."""

    splits: Splits
    workdir: pathlib.Path | None
    source: Source | None
    verbose: bool
    fit_options: Mapping[str, Any]
    freshness: Freshness

    def folders(self, names: Sequence[str]) -> dict[str, pathlib.Path | None]:
        """Where the runs of each method go."""
        if self.workdir is None:
            return dict.fromkeys(names)
        folders = {name: self.workdir / re.sub(r"[^\w\- ,]", "_", name) for name in names}
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

    def say_of(self, trial: Trial, *, width: int) -> None:
        """One line on a run."""
        reported = self.splits.reported
        outcome = trial.problem
        if trial.is_done:
            accuracy = np.mean(trial.predicted == reported.labels)
            outcome = f"accuracy {accuracy:.3f} on {reported.name}, {trial.seconds:.1f} s"
        self.say(f"seed {trial.seed}  {trial.method:<{width}}  {outcome}")

    def say(self, line: str) -> None:
        """A line, unless none is wanted."""
        if self.verbose:
            print(line, flush=True)


def _prepared(
    study: _Study, builds: Mapping[str, Build], plans: Mapping[str, PlanOf], seed: int
) -> tuple[list[Way], dict[str, Plan], SourceTask | None, str]:
    """The methods, the plan of each as it is by itself, how the source task is done now, and why features of the data
    cannot be taken (empty where they can); nothing is trained."""
    models = {body: study.freshness.built(build, body, seed)[0] for body, build in builds.items()}
    every = ways(builds, plans, models)
    task = study.source.task(next(iter(models.values()))) if study.source else None
    first = next(iter(models.values()))
    plans_as_they_are = planned(every, models)
    for way in every:
        per_stage = checked_fates(models.get(way.body, first), study.splits, plans_as_they_are[way.name])
        check_features(study.fit_options.get("cache", "auto"), per_stage)
    whole = {name: plan.over(study.splits.steps_per_epoch(first)) for name, plan in plans_as_they_are.items()}
    return every, whole, task, _said_of_shifts(why_no_features(first))


def _shifts(study: _Study, builds: Mapping[str, Build], seed: int) -> tuple[list[Shift], str]:
    """How far the data lie apart, or why that is not known: after the runs, which have made most of the features and
    counted the time of it."""
    body, build = next(iter(builds.items()))
    model, _ = study.freshness.built(build, body, seed)
    cache, source = study.fit_options.get("cache", "auto"), study.source and study.source.splits
    # A full disk, say, is no reason to lose what was trained for hours: it is said, and the results are kept.
    try:
        features = {split.name: features_of(model, study.splits, split, cache=cache) for split in study.splits.all}
        of_source = features_of(model, source, source.train, cache=cache) if source else None
        return shifts_among(features, of_source), ""
    except (OSError, ValueError) as error:
        return [], _said_of_shifts(str(error))


def _said_of_shifts(reason: str) -> str:
    """The note on a comparison without shifts."""
    return f"How far the splits lie apart was not measured: {' '.join(reason.split())}" if reason else ""


def _within_minutes(
    study: _Study, every: Sequence[Way], whole: Mapping[str, Plan], seeds: Sequence[int], minutes: float
) -> tuple[dict[str, Plan], dict[str, str]]:
    """The plans with as many of their epochs as fit into the time of a run; and why some methods are left out."""
    asked = {"plans": {name: plan.to_dict() for name, plan in whole.items()}, "of": study.splits.fingerprint}
    digest = digests.of_json(asked | {"minutes": minutes, "seeds": len(seeds)})
    file = study.workdir and study.workdir / "epochs.json"
    found = _read(file, digest) if file else None
    if found is None:
        found = _timed(study, every, whole, seeds, minutes)
        if file:
            write_whole(file, json.dumps({"of": digest, "epochs": found[0], "reasons": found[1]}))
    epochs, reasons = found
    return {name: with_epochs(whole[name], count) for name, count in epochs.items()}, reasons


def _timed(
    study: _Study, every: Sequence[Way], whole: Mapping[str, Plan], seeds: Sequence[int], minutes: float
) -> tuple[dict[str, int], dict[str, str]]:
    """How many epochs of each method fit, by a few steps of each; and why some methods are left out."""
    started, paces = time.perf_counter(), {}
    for way in every:
        # One that breaks off here does so again in its run, which says so.
        with contextlib.suppress(*_FAILURES):
            paces[way.name] = _rehearsed(study, way, whole[way.name], seeds[0])
    taken = time.perf_counter() - started
    share = max(0.0, 60 * minutes - taken) / (len(every) * len(seeds))
    left = f"timing a few steps of each method took {duration(taken)}, which leaves {duration(share)} for each run"
    study.say(left)
    epochs, reasons = {name: plan.epochs for name, plan in whole.items()}, {}
    for name, found in paces.items():
        fits = rehearsal.epochs_within(whole[name], found, share)
        if fits is None:
            least = rehearsal.seconds_of(with_epochs(whole[name], len(whole[name])), found)
            reasons[name] = f"{LEFT_OUT}: an epoch of each stage takes {duration(least)}; {left}"
        epochs[name] = fits or len(whole[name])
    return epochs, reasons


def _rehearsed(study: _Study, way: Way, plan: Plan, seed: int) -> list[rehearsal.Pace]:
    """The pace of each stage; where features were computed for that, as it is when they are found."""
    for _ in range(2):
        kept_before = _kept()
        model, _ = study.freshness.built(way.build, way.body, seed)
        found = rehearsal.rehearsed(model, study.splits, plan, seed=seed, fit_options=study.fit_options)
        if not _kept() - kept_before:
            break
    return found


def _read(file: pathlib.Path, digest: str) -> tuple[dict[str, int], dict[str, str]] | None:
    """What was timed for the same comparison earlier, so that a run that was killed goes on with the same plan."""
    try:
        written = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return (written["epochs"], written["reasons"]) if written.get("of") == digest else None


def _budget_said(epochs: int | None, minutes: float | None, runs: int) -> str:
    if epochs is not None:
        return f"{counted(epochs, 'epoch')} of each method"
    if minutes is not None:
        return f"{minutes:g} minutes of training in all, the same share for each of {runs} runs"
    return "as many epochs as each plan has by itself"


def _tried(study: _Study, way: Way, epochs: int, seed: int, folder: pathlib.Path | None) -> Trial:
    """Carries a method out with one seed, or reads what came of it."""
    workdir = folder and folder / f"seed_{seed}"
    kept_before, started = _kept(), time.perf_counter()
    # What an earlier process did of the run, this one has not seen.
    goes_on = workdir is not None and workdir.exists() and not study.fit_options.get("restart")
    with watched() as memory:
        model, beginning = study.freshness.built(way.build, way.body, seed)
        whole = way.plan(model).over(study.splits.steps_per_epoch(model))
        plan = with_epochs(whole, epochs, name=way.name)
        try:
            run = fit(model, study.splits, plan, workdir=workdir, seed=seed, verbose=False, **study.fit_options)
        except _FAILURES as error:
            reason = " ".join(str(error).split())
            return Trial(way.name, seed, seconds=time.perf_counter() - started, problem=f"{FAILED}: {reason}")
    trial = Trial(
        way.name,
        seed,
        predicted=run.probabilities.argmax(axis=1),
        history=run.history,
        seconds=run.report.cost.total_seconds,
        trainable_parameters=max(stage.trainable_parameters for stage in run.report.cost.stages),
        stored_bytes=beginning.bytes_since(model),
        memory_bytes=None if goes_on else memory.added,
        made_features=None if goes_on else bool(_kept() - kept_before),
    )
    if workdir is not None:
        trial = first_seen.read(trial, run, study.source, workdir)
    if study.source is not None and trial.source_accuracy is None and run.plan.stages[0].start != "random":
        trial = dataclasses.replace(trial, source_accuracy=study.source.accuracy(model))
    if workdir is not None:
        first_seen.write(trial, run, study.source, workdir)
    return trial


def _kept() -> set[pathlib.Path]:
    return {entry.folder for entry in caches.entries()}


def _facts(splits: Splits, note: str) -> Data:
    reported, notes = splits.reported, [*splits.notes, *([note] if note else [])]
    counts = {split.name: len(split) for split in splits.all}
    return Data(reported.name, splits.classes, reported.labels, counts, splits.fingerprint, tuple(notes))
