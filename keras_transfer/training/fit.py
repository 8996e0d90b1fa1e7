"""`fit`: a plan carried out on a model, stage by stage, and audited."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from keras_transfer import state
from keras_transfer.arguments import check_seed
from keras_transfer.data.splits import Batches, Splits
from keras_transfer.evaluation.cost import Cost, peak_memory
from keras_transfer.evaluation.language_report import LanguageReport
from keras_transfer.evaluation.report import Report
from keras_transfer.plans.fates import Fate
from keras_transfer.plans.plan import Plan
from keras_transfer.training import arguments
from keras_transfer.training.callbacks import History
from keras_transfer.training.compilation import check_precision
from keras_transfer.training.features import Cache, Keeping
from keras_transfer.training.job import Done, Job, Settings, at_stage
from keras_transfer.training.keeper import Keeper
from keras_transfer.training.l2_sp import pretrained
from keras_transfer.training.objectives import objective_of
from keras_transfer.training.run import Run
from keras_transfer.training.sharpness import check_sharpness_aware
from keras_transfer.training.snapshot import Result, Snapshot
from keras_transfer.training.stages import StageInTraining, prepare
from keras_transfer.training.workdir import Workdir, identify


def fit(
    model: keras.Model,
    splits: Splits,
    plan: Plan,
    *,
    workdir: str | os.PathLike | None = None,
    seed: int = 0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    class_weight: str | Mapping[str, float] | None = None,
    precision: str | None = None,
    jit_compile: bool | str = "auto",
    restart: bool = False,
    checkpoint_seconds: float = 30.0,
    checkpoint_steps: int | None = None,
    cache: Cache = "auto",
    cache_views: int | None = None,
    verbose: bool = True,
) -> Run:
    """Carries a plan out: each stage is prepared, trained and audited, then the model is evaluated once.

    The order of the pictures, their augmentation and every dropout follow from `seed`. The model is left trained, as
    its last stage had it (what is awake, what is frozen), and compiled with stock parts.

    With a `workdir` the run can be killed at any moment. The same line started again, with the model built again as it
    was at first, goes on from the last checkpoint and ends in the very weights, history and report of an unbroken run:
    bit for bit on the same machine, versions and threads; where these have changed, it says so. On SIGTERM and Ctrl-C
    a checkpoint is written before the process ends. A finished run is not trained again: its results are read. Whatever
    `callbacks` of your own keep to themselves is outside this promise, and they see the steps since the last checkpoint
    twice.

    Args:
        model: a classifier; it is trained in place.
        splits: the data, from `kt.data`.
        plan: what to do, from `kt.staged_fine_tuning` and its like or made by hand.
        workdir: a folder for the run's files: history.csv, plan, audit and report, TensorBoard logs, the model, and the
            last two checkpoints. `None` writes nothing.
        seed: of everything random.
        callbacks: Keras callbacks of your own, called in every stage with epochs counted on from stage to stage.
        class_weight: `"balanced"` weighs every class by its rarity, a mapping gives each class name its weight.
        precision: `"mixed_bfloat16"` or `"mixed_float16"` lets the body compute in half precision while it trains.
        jit_compile: whether steps go through XLA; `"auto"` does on accelerators.
        restart: discard what `workdir` holds of a run, and start afresh.
        checkpoint_seconds: at least so long from one checkpoint to the next; longer where writing them is slow, so that
            they take less than 2 % of the time.
        checkpoint_steps: a checkpoint every so many steps instead, whatever it costs.
        cache: where what the frozen part makes of each example is kept, so that it is computed once and not in every
            epoch: `"disk"` (found again by later runs, see `kt.cache`), `"memory"`, nowhere (`"off"`), or where it
            fits and pays (`"auto"`). Without augmentation the weights are then the same to rounding.
        cache_views: how many augmented versions of each picture are then kept, for the epochs to take in turn: those of
            the first epochs. As many as there are epochs is what `"off"` comes to; 0 keeps the picture as it is, not
            augmented. If not given, 0 where the head trains alone under `augment="light"`, else 4: what more would buy
            was within the noise.
        verbose: whether to say what is going on.

    Returns:
        The `kt.Run`: history, audits, report, and where the files are.

    Raises:
        ValueError: if model, data and plan do not fit together; if the workdir holds another run, is in use by a live
            process or cannot be written to. Before anything is trained.
        OSError: if the disk is full; the last checkpoint is then still there.
        NonFiniteLossError: if the loss becomes NaN or infinite; the model then holds its last good weights.
        AuditError: if a stage moved what it was to leave alone, or did not move what it was to train.

    Example:

    >>> import keras_transfer as kt
    >>> digits = kt.data.digits(classes=[0, 1], per_class=20)
    >>> model = kt.image_classifier("MobileNet", digits.classes, weights=None, image_size=32, alpha=0.25)
    >>> run = kt.fit(model, digits, kt.feature_extraction(model, epochs=1), verbose=False)
    >>> run.audits[0].moved[-1].block
    'head'
    """
    arguments.check_kinds(model, splits, plan, callbacks)
    per_stage = arguments.checked_fates(model, splits, plan)
    plan = plan.over(splits.steps_per_epoch(model))
    # Before the workdir is claimed: a line that is mended would else be another run.
    check_seed(seed)
    check_precision(precision)
    arguments.check_compiling(jit_compile)
    arguments.check_keeping(workdir, restart, checkpoint_seconds, checkpoint_steps)
    weights = arguments.class_weights(class_weight, splits)
    keeping = Keeping(cache, cache_views)
    arguments.check_features(cache, per_stage)
    if any(stage.sam for stage in plan):
        check_sharpness_aware(model)
    settings = Settings(seed, callbacks, weights, precision, jit_compile, keeping, verbose, objective_of(splits))
    # A run that goes on is given the very model that it was given first, so these are the same.
    start = pretrained(model) if any(stage.l2_sp for stage in plan) else {}
    job = Job(model, splits, plan, settings, start)
    if workdir is None:
        return _carry_out(job, per_stage)
    choices = {"seed": seed, "class_weight": weights, "precision": precision, "jit_compile": jit_compile}
    choices |= {"cache": cache, "cache_views": cache_views}
    with Workdir.opened(workdir, identify(model, splits, plan, choices), restart=restart) as home:
        keeper = Keeper(
            home.checkpoints,
            seconds=checkpoint_seconds,
            steps=checkpoint_steps,
            expected_bytes=_CHECKPOINT_TO_MODEL * sum(value.nbytes for value in state.values(model)),
        )
        with keeper.listening():
            return _carry_out(dataclasses.replace(job, home=home, keeper=keeper), per_stage)


# A checkpoint holds the weights, two slots of the optimizer for each, and the last good weights.
_CHECKPOINT_TO_MODEL = 4


def _carry_out(job: Job, per_stage: Sequence[Sequence[Fate]]) -> Run:
    """Carries out what is left of the plan: all of it, or what comes after the last checkpoint."""
    model, plan, settings, home = job.model, job.plan, job.settings, job.home
    if settings.verbose:
        print(plan)
    state.seed(model, settings.seed)
    done = Done(History(home.folder / "history.csv" if home else None))
    begun = job.keeper.last()
    if begun is not None:
        _go_back_to(begun, job, per_stage, done)
    first = begun.position.stage if begun else 0
    batches: Batches = job.splits
    for number in range(first, len(plan)):
        in_training = begun if begun and begun.training and number == first else None
        stage = StageInTraining(job, number, per_stage[number], done, in_training)
        stage.run()
        batches = stage.batches
        done.audits.append(stage.audit)
        done.costs.append(stage.cost)
        position = at_stage(plan, number + 1)
        job.keeper.keep_at_rest(lambda at=position: done.snapshot(at, state.values(model)))
    settings.objective.leave_compiled(model)
    if begun and begun.result:
        run = _run_of(job, done, settings.objective.read_report(begun.result.report), begun.result.probabilities)
    else:
        if begun and first == len(plan):  # killed before the report: it is measured as it would have been
            batches = StageInTraining(job, first - 1, per_stage[-1], done).choose_batches()
        cost = Cost(done.costs, sum(stage.seconds for stage in done.costs), peak_memory())
        # What half precision made of the frozen part is not what the model makes of it now.
        measured_on = batches if settings.precision is None else job.splits
        with measured_on.in_use():
            run = _run_of(job, done, *settings.objective.report(model, measured_on, job.splits.reported, cost))
        if home:
            _write_results(home, run, model)
        result = Result(run.report.to_json(), run.probabilities)
        job.keeper.write(
            lambda: done.snapshot(at_stage(plan, len(plan)), state.values(model), result=result),
            kept=1,  # a finished run needs no way back
        )
    if settings.verbose:
        print(f"\n{run.report}")
    return run


def _go_back_to(begun: Snapshot, job: Job, per_stage: Sequence[Sequence[Fate]], done: Done) -> None:
    """Puts the model where the snapshot was taken, but for what the stage in training does itself."""
    model, plan, position = job.model, job.plan, begun.position
    if job.settings.verbose:
        print(f"\n{_said_of(begun, plan)}")
    # The stages that are done have left adapters on the model, and blocks awake or frozen.
    for stage, stage_fates in zip(plan.stages[: position.stage], per_stage[: position.stage], strict=True):
        prepare(model, stage, stage_fates, seed=job.settings.seed, verbose=False)
    done.take_back(begun)
    if begun.training is None:
        state.assign(model, begun.weights)


def _said_of(begun: Snapshot, plan: Plan) -> str:
    position = begun.position
    if begun.result:
        return "This run is finished: its results are read, and nothing is trained."
    if begun.training is None:
        return f"Goes on after {position.stage} of {len(plan)} stages."
    epoch = position.epoch - at_stage(plan, position.stage).epoch + 1
    return f"Goes on in {plan.stages[position.stage].name}: epoch {epoch}, after {position.step} of its steps."


def _run_of(job: Job, done: Done, result: Report | LanguageReport, probabilities: np.ndarray | None) -> Run:
    folder = job.home.folder if job.home else None
    split = job.splits.reported
    return Run(job.plan, done.history.rows, done.audits, result, probabilities, folder, job.splits, split, job.model)


def _write_results(home: Workdir, run: Run, model: keras.Model) -> None:
    home.write("audit.json", json.dumps([dataclasses.asdict(row) for row in run.audits], indent=2))
    home.write("report.json", run.report.to_json())
    home.write("report.txt", str(run))
    home.save_model(model)
