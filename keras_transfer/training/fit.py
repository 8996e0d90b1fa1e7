"""`fit`: a plan carried out on a model, stage by stage, and audited."""

import contextlib
import dataclasses
import json
import os
import pathlib
import platform
import sys
import time
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from keras_transfer import state
from keras_transfer.adapters import attach
from keras_transfer.backbones import freezing, hub
from keras_transfer.data.splits import Batches, Splits
from keras_transfer.errors import explain, nearest
from keras_transfer.evaluation.cost import Cost, StageCost
from keras_transfer.plans.fates import Fate, fates
from keras_transfer.plans.plan import Plan, Stage
from keras_transfer.training import compilation
from keras_transfer.training.audit import Audit, audit
from keras_transfer.training.callbacks import History, LossGuard, Progress
from keras_transfer.training.features import Cache, Keeping, features
from keras_transfer.training.files import write_whole
from keras_transfer.training.initial_weights import draw_anew
from keras_transfer.training.linear_probe import linear_head, start_from_probe
from keras_transfer.training.objectives import Objective, objective_of
from keras_transfer.training.run import Run
from keras_transfer.training.safeguard import safeguard


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
    workdir: pathlib.Path | None
    objective: Objective


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
    cache: Cache = "auto",
    cache_views: int | None = None,
    verbose: bool = True,
) -> Run:
    """Carries a plan out: each stage is prepared, trained and audited, then the model is evaluated once.

    The order of the pictures, their augmentation and every dropout follow from `seed`. The model is left trained, as
    its last stage had it (what is awake, what is frozen), and compiled with stock parts.

    Args:
        model: a classifier; it is trained in place.
        splits: the data, from `kt.data`.
        plan: what to do, from `kt.staged_fine_tuning` and its like or made by hand.
        workdir: a folder for the run's files: history.csv, plan, audit and report, TensorBoard logs, the model. `None`
            writes nothing.
        seed: of everything random.
        callbacks: Keras callbacks of your own, called in every stage with epochs counted on from stage to stage.
        class_weight: `"balanced"` weighs every class by its rarity, a mapping gives each class name its weight.
        precision: `"mixed_bfloat16"` or `"mixed_float16"` lets the body compute in half precision while it trains.
        jit_compile: whether steps go through XLA; `"auto"` does on accelerators.
        cache: where what the frozen part makes of each example is kept, so that it is computed once and not in every
            epoch: `"disk"` (found again by later runs, see `kt.cache`), `"memory"`, nowhere (`"off"`), or where it
            fits and pays (`"auto"`).
        cache_views: how many augmented versions of each picture are then kept, for the epochs to take in turn: those of
            the first epochs; 0 keeps the picture as it is. As many as there are epochs is what `"off"` comes to.
        verbose: whether to say what is going on.

    Returns:
        The `kt.Run`: history, audits, report, and where the files are.

    Raises:
        ValueError: if model, data and plan do not fit together; before anything is trained.
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
    per_stage = [fates(model, stage) for stage in plan]
    _check_patience(plan, splits)
    _check_adapters(model, plan)
    if any(stage.start == "probe" for stage in plan):
        linear_head(model)  # or the reason why there is none, before anything is trained
    folder = _open_workdir(workdir, plan, splits, seed)
    settings = _Settings(
        seed,
        callbacks,
        _class_weights(class_weight, splits),
        precision,
        jit_compile,
        Keeping(cache, cache_views),
        verbose,
        folder,
        objective,
    )
    if verbose:
        print(plan)
    state.seed(model, seed)
    history = History(folder / "history.csv" if folder else None)
    audits: list[Audit] = []
    costs: list[StageCost] = []
    batches: Batches = splits
    for number, (stage, stage_fates) in enumerate(zip(plan, per_stage, strict=True)):
        first_epoch = sum(done.epochs for done in plan.stages[:number])
        stage_audit, cost, batches = _run_stage(
            model, splits, stage, stage_fates, first_epoch, plan.epochs, history, settings
        )
        audits.append(stage_audit)
        costs.append(cost)
    objective.leave_compiled(model)

    split = splits.test or splits.validation or splits.train
    cost = Cost(costs, sum(stage.seconds for stage in costs), _peak_memory())
    # What half precision made of the frozen part is not what the model makes of it now.
    measured_on = batches if settings.precision is None else splits
    with measured_on.in_use():
        result, probabilities = objective.report(model, measured_on, split, cost)
    run = Run(plan, history.rows, audits, result, probabilities, folder, splits, split, model)
    if folder:
        _write_results(folder, run, model)
    if verbose:
        print(f"\n{result}")
    return run


def _run_stage(
    model: keras.Model,
    splits: Splits,
    stage: Stage,
    stage_fates: Sequence[Fate],
    first_epoch: int,
    all_epochs: int,
    history: History,
    settings: _Settings,
) -> tuple[Audit, StageCost, Batches]:
    """Prepares, trains and audits one stage; its epochs are counted on from `first_epoch`.

    Returns:
        What moved, what it cost, and what the model was trained and measured on.
    """
    steps = splits.steps_per_epoch(model)
    epochs = range(first_epoch, first_epoch + stage.epochs)
    started = time.perf_counter()
    stage_fates = prepare(model, stage, stage_fates, settings)
    history.stage = stage.name
    if settings.verbose:
        print(f"\n{_headline(stage, stage_fates)}")
    all_steps = steps * stage.epochs
    with (
        compilation.computing_in(model, settings.precision),
        compilation.averaging_over(model, stage, all_steps),
        hub.taking_packed_inputs(model),
        contextlib.ExitStack() as feeding,
    ):
        kept = features(model, splits, settings.keeping, epochs=epochs, seed=settings.seed, verbose=settings.verbose)
        batches = kept or splits
        feeding.enter_context(batches.in_use())
        if stage.start == "probe":
            start_from_probe(model, batches, seed=settings.seed, class_weight=settings.class_weight)
        before = state.values(model)
        watching = [history, LossGuard(stage)]
        if settings.verbose:
            watching.append(Progress(stage, steps=steps, epochs_left_after=all_epochs - epochs.stop))
        if stage.patience:
            watching.append(
                keras.callbacks.EarlyStopping("val_loss", patience=stage.patience, restore_best_weights=True)
            )
        if settings.workdir:
            watching.append(keras.callbacks.TensorBoard(settings.workdir / "tensorboard", write_graph=False))
        validation = splits.validation and batches.evaluation_batches(splits.validation, model, in_order=False)
        settings.objective.compile(
            model,
            compilation.optimizer(stage, stage_fates, all_steps, settings.precision),
            settings.jit_compile,
        )
        model.fit(
            batches.training_batches(model, seed=settings.seed, first_step=epochs.start * steps, epochs=epochs.stop),
            initial_epoch=epochs.start,
            epochs=epochs.stop,
            steps_per_epoch=steps,
            validation_data=validation,
            class_weight=settings.class_weight,
            callbacks=[*watching, *settings.callbacks],
            shuffle=False,  # the batches come shuffled, by a rule that a later run can repeat
            verbose=0,
        )
        found = audit(model, stage, stage_fates, before)
        if stage.safeguard and splits.validation:
            found = dataclasses.replace(found, interpolation=safeguard(model, batches, before))
    if stage.safeguard and settings.verbose:
        print(found.interpolation or "safeguard: no validation split to go by, so the stage is kept whole")
    seconds = time.perf_counter() - started
    done = sum(row["stage"] == stage.name for row in history.rows)
    cost = StageCost(
        name=stage.name,
        epochs=done,
        seconds=seconds,
        examples_per_second=done * len(splits.train) / seconds,
        trainable_parameters=sum(int(np.prod(variable.shape)) for variable in model.trainable_variables),
        steps=done * steps,
    )
    return found, cost, batches


def prepare(model: keras.Model, stage: Stage, stage_fates: Sequence[Fate], settings: _Settings) -> Sequence[Fate]:
    """Puts the model into the state in which the stage trains it: weights drawn anew or not, blocks frozen or awake,
    adapters on.

    Returns:
        The fates, of blocks that now hold the adapters as well.
    """
    if stage.start == "random":
        draw_anew(model, settings.seed)
    if stage.adapters is None:
        awake = {layer: fate.part for fate in stage_fates if not fate.frozen for layer in fate.block.layers}
        freezing.wake(model, awake, batch_norm=stage.batch_norm)
        return stage_fates
    whole = [layer for fate in stage_fates if fate.part == "whole" and not fate.frozen for layer in fate.block.layers]
    table = attach.carry_out(model, stage.adapters, train=whole, seed=settings.seed)
    if settings.verbose:
        print(f"\n{table}")
    state.seed(model, settings.seed)  # the adapters' dropout is new
    stage_fates = fates(model, stage)
    awake_layers = [layer for fate in stage_fates if not fate.frozen for layer in fate.block.layers]
    freezing.follow_training(model, awake_layers)
    return stage_fates


def _check_adapters(model: keras.Model, plan: Plan) -> None:
    """Raises a `ValueError` for a stage that would find adapters on the model that it has no use for."""
    carried = ", ".join(attach.names(model))
    for stage in plan:
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
        carried = carried or (f"those of stage {stage.name!r}" if stage.adapters is not None else "")


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


def _open_workdir(workdir, plan: Plan, splits: Splits, seed: int) -> pathlib.Path | None:
    if workdir is None:
        return None
    folder = pathlib.Path(workdir)
    if (folder / "run.json").exists():
        raise ValueError(
            explain(
                "The workdir holds a run already.",
                given=str(folder),
                expected="a folder that is empty or does not exist yet",
                to_mend="give another folder, or delete this one",
            )
        )
    folder.mkdir(parents=True, exist_ok=True)
    facts = {
        "plan": plan.to_dict(),
        "seed": seed,
        "data": splits.fingerprint,
        "classes": list(splits.classes),
        "backend": keras.backend.backend(),
        "keras": keras.__version__,
        "python": platform.python_version(),
    }
    write_whole(folder / "run.json", json.dumps(facts, indent=2))
    return folder


def _write_results(folder: pathlib.Path, run: Run, model: keras.Model) -> None:
    write_whole(folder / "audit.json", json.dumps([dataclasses.asdict(row) for row in run.audits], indent=2))
    write_whole(folder / "report.json", run.report.to_json())
    write_whole(folder / "report.txt", str(run))
    unfinished = folder / ".unfinished.keras"
    model.save(unfinished)
    os.replace(unfinished, folder / "model.keras")


def _peak_memory() -> int:
    """The most memory that this process has held so far, in bytes."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
