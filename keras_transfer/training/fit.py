"""`fit`: a plan carried out on a model, stage by stage, and audited."""

import dataclasses
import json
import os
import time
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from keras_transfer import state
from keras_transfer.adapters import attach
from keras_transfer.backbones import freezing, hub
from keras_transfer.data.splits import Batches, Split, Splits
from keras_transfer.errors import explain, nearest
from keras_transfer.evaluation.cost import Cost, StageCost, peak_memory
from keras_transfer.evaluation.language_report import LanguageReport
from keras_transfer.evaluation.report import Report
from keras_transfer.plans.fates import Fate, fates
from keras_transfer.plans.plan import Plan, Stage
from keras_transfer.training import compilation
from keras_transfer.training.audit import Audit, audit
from keras_transfer.training.averaging import Averages
from keras_transfer.training.callbacks import EarlyStopping, History, LossGuard, OneTraining, Progress
from keras_transfer.training.checkpointer import Checkpointer
from keras_transfer.training.features import Cache, Keeping, features
from keras_transfer.training.initial_weights import draw_anew
from keras_transfer.training.keeper import Keeper
from keras_transfer.training.l2_sp import pretrained
from keras_transfer.training.linear_probe import linear_head, start_from_probe
from keras_transfer.training.objectives import Objective, objective_of
from keras_transfer.training.run import Run
from keras_transfer.training.safeguard import safeguard
from keras_transfer.training.snapshot import Position, Result, Snapshot, Training
from keras_transfer.training.workdir import Workdir, identify

# Of the steps of an epoch, if their number can be divided so; not in short stages, where tracing them takes longer.
MOST_AT_ONCE, FEWEST_STEPS = 32, 500


@dataclasses.dataclass(frozen=True)
class _Settings:
    """What holds for every stage of one `fit`."""

    seed: int
    callbacks: Sequence[keras.callbacks.Callback]
    class_weight: dict[int, float] | None
    precision: str | None
    jit_compile: bool | str
    keeping: Keeping
    verbose: bool
    objective: Objective


@dataclasses.dataclass(frozen=True)
class _Job:
    """One call of `fit`: what is to be done on what, and where it is kept."""

    model: keras.Model
    splits: Splits
    plan: Plan
    settings: _Settings
    pretrained: Mapping[int, np.ndarray]
    home: Workdir | None = None
    keeper: Keeper = dataclasses.field(default_factory=lambda: Keeper(None))


@dataclasses.dataclass(frozen=True)
class _Done:
    """What has been found so far: rows of the history, and audit and cost of the stages that are done."""

    history: History
    audits: list[Audit] = dataclasses.field(default_factory=list)
    costs: list[StageCost] = dataclasses.field(default_factory=list)

    def snapshot(
        self,
        position: Position,
        weights: Sequence[np.ndarray],
        training: Training | None = None,
        result: Result | None = None,
    ) -> Snapshot:
        """The run at a position, with what has been found until then."""
        found = list(self.history.rows), list(self.audits), list(self.costs)
        return Snapshot(position, weights, *found, training, result)

    def take_back(self, begun: Snapshot) -> None:
        """What had been found when the snapshot was taken."""
        self.history.rows[:], self.audits[:], self.costs[:] = begun.history, begun.audits, begun.costs
        self.history.write()


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
    >>> model = kt.image_classifier("MobileNetV2", digits.classes, weights=None, image_size=32, alpha=0.35)
    >>> run = kt.fit(model, digits, kt.feature_extraction(model, epochs=1), verbose=False)
    >>> run.audits[0].moved[-1].block
    'head'
    """
    _check_kinds(model, splits, plan, callbacks)
    objective = objective_of(splits)
    objective.check(model, splits)
    plan = plan.over(splits.steps_per_epoch(model))
    per_stage = [fates(model, stage) for stage in plan]
    _check_patience(plan, splits)
    _check_adapters(model, plan, per_stage)
    if any(stage.start == "probe" for stage in plan):
        linear_head(model)  # or the reason why there is none, before anything is trained
    _check_keeping(workdir, restart, checkpoint_seconds, checkpoint_steps)
    weights = _class_weights(class_weight, splits)
    keeping = Keeping(cache, cache_views)
    settings = _Settings(seed, callbacks, weights, precision, jit_compile, keeping, verbose, objective)
    # A run that goes on is given the very model that it was given first, so these are the same.
    start = pretrained(model) if any(stage.l2_sp for stage in plan) else {}
    job = _Job(model, splits, plan, settings, start)
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


def _carry_out(job: _Job, per_stage: Sequence[Sequence[Fate]]) -> Run:
    """Carries out what is left of the plan: all of it, or what comes after the last checkpoint."""
    model, plan, settings, home = job.model, job.plan, job.settings, job.home
    if settings.verbose:
        print(plan)
    state.seed(model, settings.seed)
    done = _Done(History(home.folder / "history.csv" if home else None))
    begun = job.keeper.last()
    if begun is not None:
        _go_back_to(begun, job, per_stage, done)
    first = begun.position.stage if begun else 0
    batches: Batches = job.splits
    for number in range(first, len(plan)):
        in_training = begun if begun and begun.training and number == first else None
        found, cost, batches = _run_stage(job, number, per_stage[number], done, in_training)
        done.audits.append(found)
        done.costs.append(cost)
        position = _at_stage(plan, number + 1)
        job.keeper.keep_at_rest(lambda at=position: done.snapshot(at, state.values(model)))
    settings.objective.leave_compiled(model)
    if begun and begun.result:
        run = _run_of(job, done, settings.objective.read_report(begun.result.report), begun.result.probabilities)
    else:
        if begun and first == len(plan):  # killed before the report: it is measured as it would have been
            batches = _batches(job, first - 1, per_stage[-1], None)
        cost = Cost(done.costs, sum(stage.seconds for stage in done.costs), peak_memory())
        # What half precision made of the frozen part is not what the model makes of it now.
        measured_on = batches if settings.precision is None else job.splits
        with measured_on.in_use():
            run = _run_of(job, done, *settings.objective.report(model, measured_on, _reported(job.splits), cost))
        if home:
            _write_results(home, run, model)
        result = Result(run.report.to_json(), run.probabilities)
        job.keeper.write(
            lambda: done.snapshot(_at_stage(plan, len(plan)), state.values(model), result=result),
            kept=1,  # a finished run needs no way back
        )
    if settings.verbose:
        print(f"\n{run.report}")
    return run


def _go_back_to(begun: Snapshot, job: _Job, per_stage: Sequence[Sequence[Fate]], done: _Done) -> None:
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
    epoch = position.epoch - _at_stage(plan, position.stage).epoch + 1
    return f"Goes on in {plan.stages[position.stage].name}: epoch {epoch}, after {position.step} of its steps."


def _at_stage(plan: Plan, number: int) -> Position:
    """Where a stage begins: its epochs are counted on from those of the stages before it, as the plan has them."""
    return Position(number, sum(stage.epochs for stage in plan.stages[:number]))


def _reported(splits: Splits) -> Split:
    return splits.test or splits.validation or splits.train


def _run_of(job: _Job, done: _Done, result: Report | LanguageReport, probabilities: np.ndarray | None) -> Run:
    folder = job.home.folder if job.home else None
    split = _reported(job.splits)
    return Run(job.plan, done.history.rows, done.audits, result, probabilities, folder, job.splits, split, job.model)


def _run_stage(
    job: _Job, number: int, stage_fates: Sequence[Fate], done: _Done, begun: Snapshot | None
) -> tuple[Audit, StageCost, Batches]:
    """Prepares, trains and audits one stage, or the rest of it from where `begun` was taken.

    Returns:
        What moved, what it cost, and what the model was trained and measured on.
    """
    model, splits, settings, stage = job.model, job.splits, job.settings, job.plan.stages[number]
    started = time.perf_counter() - (begun.training.seconds if begun else 0.0)
    stage_fates = prepare(model, stage, stage_fates, seed=settings.seed, verbose=settings.verbose)
    if begun:
        state.assign(model, begun.weights)
    if settings.verbose:
        print(f"\n{_headline(stage, stage_fates)}")
    with (
        compilation.computing_in(model, settings.precision),
        compilation.averaging_over(model, stage, stage.epochs * splits.steps_per_epoch(model)),
        hub.taking_packed_inputs(model),
        _batches(job, number, stage_fates, begun).in_use() as batches,
    ):
        if begun is None and stage.start == "probe":
            start_from_probe(model, batches, seed=settings.seed, class_weight=settings.class_weight)
        before = begun.training.before if begun else state.values(model)
        watching = _watching(job, number, done, batches, before, begun, started)
        _train(job, number, stage_fates, batches, watching, begun)
        found = audit(model, stage, stage_fates, before)
        if stage.safeguard:
            found = dataclasses.replace(found, interpolation=safeguard(model, batches, before))
    if stage.safeguard and settings.verbose:
        print(found.interpolation)
    seconds = time.perf_counter() - started
    epochs = sum(row["stage"] == stage.name for row in done.history.rows)
    cost = StageCost(
        name=stage.name,
        epochs=epochs,
        seconds=seconds,
        examples_per_second=epochs * len(splits.train) / seconds,
        trainable_parameters=sum(int(np.prod(variable.shape)) for variable in model.trainable_variables),
        steps=epochs * splits.steps_per_epoch(model),
    )
    return found, cost, batches


def _batches(job: _Job, number: int, stage_fates: Sequence[Fate], begun: Snapshot | None) -> Batches:
    """What the model is trained and measured on within a stage: the data, or the features kept of them.

    A stage that has begun goes on as it began, whatever would be chosen now.
    """
    settings, first_epoch, stage = job.settings, _at_stage(job.plan, number).epoch, job.plan.stages[number]
    splits = augmented_for(stage, job.splits)
    keeping = settings.keeping if begun is None else settings.keeping.as_begun(begun.training.kept_in)
    found = features(
        job.model,
        splits,
        keeping.with_views(default_views(splits, stage_fates)),
        epochs=range(first_epoch, first_epoch + stage.epochs),
        seed=settings.seed,
        verbose=settings.verbose,
    )
    return found or splits


def augmented_for(stage: Stage, splits: Splits) -> Splits:
    """The data as a stage has them augmented."""
    return splits.more_strongly_augmented() if stage.augment == "stronger" else splits


def default_views(splits: Splits, stage_fates: Sequence[Fate]) -> int:
    """How many augmented versions of each example a stage keeps where nobody has said."""
    # Measured: under light augmentation a head alone is none the better for it, and four versions do for the rest.
    only_head_trains = all(fate.frozen for fate in stage_fates[:-1])
    return 0 if only_head_trains and getattr(splits, "augment", None) == "light" else 4


def _watching(
    job: _Job,
    number: int,
    done: _Done,
    batches: Batches,
    before: Sequence[np.ndarray],
    begun: Snapshot | None,
    started: float,
) -> list[keras.callbacks.Callback]:
    """Our own callbacks for a stage; what they keep from epoch to epoch is kept in checkpoints as well."""
    stage, steps = job.plan.stages[number], job.splits.steps_per_epoch(job.model)
    first_epoch = _at_stage(job.plan, number).epoch
    done.history.stage = stage.name
    keeping: dict[str, keras.callbacks.Callback] = {"history": done.history, "loss guard": LossGuard(stage)}
    if stage.patience:
        keeping["early stopping"] = EarlyStopping(stage.patience)
    watching = [Averages()] if stage.ema else []
    watching += keeping.values()
    if job.settings.verbose:
        left_after = job.plan.epochs - first_epoch - stage.epochs
        watching.append(Progress(stage, steps=steps, first_epoch=first_epoch, epochs_left_after=left_after))
    if job.home:
        watching.append(keras.callbacks.TensorBoard(job.home.folder / "tensorboard", write_graph=False))
        watching.append(
            Checkpointer(
                job.keeper,
                stage=number,
                steps=steps,
                before=before,
                kept_in=batches.kept_in,
                callbacks=keeping,
                snapshot=done.snapshot,
                begun=begun,
                started=started,
            )
        )
    return watching


def _train(
    job: _Job,
    number: int,
    stage_fates: Sequence[Fate],
    batches: Batches,
    watching: Sequence[keras.callbacks.Callback],
    begun: Snapshot | None,
) -> None:
    """Trains a prepared stage, or the rest of it from where `begun` was taken."""
    model, splits, settings, stage = job.model, job.splits, job.settings, job.plan.stages[number]
    start = _at_stage(job.plan, number)
    last_epoch = start.epoch + stage.epochs
    steps = splits.steps_per_epoch(model)
    settings.objective.compile(
        model,
        compilation.optimizer(stage, stage_fates, steps * stage.epochs, settings.precision, pretrained=job.pretrained),
        settings.jit_compile,
        steps_at_once=_steps_at_once(job, batches, steps, stage.epochs),
    )
    model.optimizer.build(model.trainable_variables)
    callbacks = OneTraining([*watching, *settings.callbacks], model=model, epochs=last_epoch, steps=steps)
    validation = batches.evaluation_batches(splits.validation, model, in_order=False) if splits.validation else None
    for left in (begun.position if begun else start).stretches(steps, last_epoch):
        callbacks.steps_before = steps - left.steps
        model.fit(
            batches.training_batches(model, seed=settings.seed, first_step=left.first_step, epochs=left.last_epoch),
            initial_epoch=left.first_epoch,
            epochs=left.last_epoch,
            steps_per_epoch=left.steps,
            validation_data=validation,
            class_weight=settings.class_weight,
            callbacks=callbacks,
            shuffle=False,  # the batches come shuffled, by a rule that a later run can repeat
            verbose=0,
        )
        if model.stop_training:
            break
    callbacks.end()


def _steps_at_once(job: _Job, batches: Batches, steps: int, epochs: int) -> int:
    """How many steps of an epoch go by between two looks of Python.

    Steps on kept features are so short that Python takes most of their time. Where callbacks of the user's or
    checkpoints may come between them they are taken one by one all the same, and on JAX, where Keras gains nothing.
    """
    is_watched = job.home is not None or job.settings.callbacks
    is_short = steps * epochs < FEWEST_STEPS
    if isinstance(batches, Splits) or is_watched or is_short or keras.backend.backend() != "tensorflow":
        return 1
    return max(number for number in range(1, MOST_AT_ONCE + 1) if steps % number == 0)


def prepare(
    model: keras.Model, stage: Stage, stage_fates: Sequence[Fate], *, seed: int, verbose: bool
) -> Sequence[Fate]:
    """Puts the model into the state in which the stage trains it: weights drawn anew or not, blocks frozen or awake,
    adapters on.

    Returns:
        The fates, of blocks that now hold the adapters as well.
    """
    if stage.start == "random":
        draw_anew(model, seed)
    if stage.adapters is None:
        wake(model, stage, stage_fates)
        return stage_fates
    table = attach.carry_out(model, stage.adapters, train=_whole(stage_fates), seed=seed)
    if verbose:
        print(f"\n{table}")
    state.seed(model, seed)  # the adapters' dropout is new
    stage_fates = fates(model, stage)
    awake_layers = [layer for fate in stage_fates if not fate.frozen for layer in fate.block.layers]
    freezing.follow_training(model, awake_layers)
    return stage_fates


def wake(model: keras.Model, stage: Stage, stage_fates: Sequence[Fate]) -> None:
    """Lets train what a stage without adapters trains, and nothing else."""
    awake = {layer: fate.part for fate in stage_fates if not fate.frozen for layer in fate.block.layers}
    freezing.wake(model, awake, batch_norm=stage.batch_norm)


def _whole(stage_fates: Sequence[Fate]) -> list[keras.Layer]:
    """The layers that train themselves, all of their weights."""
    return [layer for fate in stage_fates if fate.part == "whole" and not fate.frozen for layer in fate.block.layers]


def _check_adapters(model: keras.Model, plan: Plan, per_stage: Sequence[Sequence[Fate]]) -> None:
    """Raises a `ValueError` for a stage that would find adapters on the model that it has no use for."""
    carried = ", ".join(attach.names(model))
    first: tuple[Stage, dict] | None = None
    for stage, stage_fates in zip(plan, per_stage, strict=True):
        if carried and (stage.adapters is None or stage.start == "random"):
            does = "draws the body anew" if stage.start == "random" else "trains the body's own weights"
            raise ValueError(
                explain(
                    f"Stage {stage.name!r} {does}, and {model.name} then carries adapters beside them.",
                    given=carried,
                    to_mend="`kt.merge_adapter` or `kt.remove_adapter` before it, and a plan of its own for what comes"
                    " after; or give the stage `adapters=`",
                )
            )
        if stage.adapters is None:
            continue
        carried = carried or f"those of stage {stage.name!r}"
        if stage.adapters.factors == "keras":  # whatever their targets
            continue
        asked = attach.asked_for(model, stage.adapters, train=_whole(stage_fates))
        if first is not None and asked != first[1]:
            raise ValueError(
                explain(
                    f"Stage {stage.name!r} asks for other adapters than stage {first[0].name!r}, whose stay on.",
                    given=f"{stage.adapters} on {len(asked)} layers, after {first[0].adapters} on {len(first[1])}",
                    to_mend="the same LoRA and the same `train` in both; or two plans, with `kt.merge_adapter` between",
                )
            )
        first = first or (stage, asked)


def _headline(stage: Stage, stage_fates: Sequence[Fate]) -> str:
    awake = [fate for fate in stage_fates if not fate.frozen]
    rates = f"{stage.learning_rate * awake[-1].ratio:.2g} at {awake[-1].block.name}"
    if len(awake) > 1:
        rates += f" … {stage.learning_rate * awake[0].ratio:.2g} at {awake[0].block.name}"
    frozen = len(stage_fates) - len(awake)
    return f"{stage.name}: {len(awake)} of {len(stage_fates)} blocks train, {frozen} frozen; peak rates {rates}"


def _check_kinds(model: object, splits: object, plan: object, callbacks: object) -> None:
    for name, given, kind, to_mend in (
        ("model", model, keras.Model, None),
        ("splits", splits, Splits, "what kt.data.images or kt.data.texts returns, whole"),
        ("plan", plan, Plan, "kt.Plan([stage])" if isinstance(plan, Stage) else None),
        ("callbacks", callbacks, Sequence, "[callback]" if isinstance(callbacks, keras.callbacks.Callback) else None),
    ):
        if not isinstance(given, kind):
            raise ValueError(
                explain(
                    f"`{name}` of fit(model, splits, plan) is something else.",
                    given=type(given).__name__,
                    expected=f"a {kind.__name__}",
                    to_mend=to_mend,
                )
            )


def _check_patience(plan: Plan, splits: Splits) -> None:
    if any(stage.patience for stage in plan) and not splits.validation:
        raise ValueError(
            explain(
                "A stage is to stop early, and there is nothing to tell it when.",
                given="no validation split",
                to_mend="keep some: kt.data.images(…, validation=0.2); or leave `patience` out",
            )
        )


def _class_weights(class_weight, splits: Splits) -> dict[int, float] | None:
    if class_weight is None:
        return None
    if not splits.classes:
        raise ValueError(
            explain(
                "`class_weight` weighs classes, and these data have none.",
                given=repr(class_weight),
                expected="None for a language model",
            )
        )
    if class_weight == "balanced":
        counts = splits.train.counts
        return {index: len(splits.train) / (len(counts) * counts[name]) for index, name in enumerate(splits.classes)}
    if isinstance(class_weight, str):
        raise ValueError(
            explain("`class_weight` names no rule.", given=repr(class_weight), expected="'balanced', or a mapping")
        )
    unknown = [name for name in class_weight if name not in splits.classes]
    missing = [name for name in splits.classes if name not in class_weight]
    if unknown or missing:
        raise ValueError(
            explain(
                "`class_weight` does not give every class of the data its weight.",
                given=list(class_weight),
                nearest=nearest(unknown[0], splits.classes) if unknown else None,
                expected=list(splits.classes),
            )
        )
    return {index: float(class_weight[name]) for index, name in enumerate(splits.classes)}


def _check_keeping(workdir: object, restart: bool, seconds: float, steps: int | None) -> None:
    """Raises a `ValueError` for arguments about keeping a run that mean nothing."""
    for name, given, fine, expected in (
        ("checkpoint_seconds", seconds, seconds >= 0, "a number of seconds"),
        ("checkpoint_steps", steps, steps is None or steps >= 1, "None, or a number of steps from 1 up"),
        ("checkpoint_steps", steps, steps is None or workdir is not None, "a workdir, where checkpoints can go"),
        ("restart", restart, not restart or workdir is not None, "a workdir, whose run is to be discarded"),
    ):
        if not fine:
            raise ValueError(explain(f"`{name}` of fit is out of place.", given=repr(given), expected=expected))


def _write_results(home: Workdir, run: Run, model: keras.Model) -> None:
    home.write("audit.json", json.dumps([dataclasses.asdict(row) for row in run.audits], indent=2))
    home.write("report.json", run.report.to_json())
    home.write("report.txt", str(run))
    home.save_model(model)
