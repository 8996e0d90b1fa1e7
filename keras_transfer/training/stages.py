"""One stage of a plan: the model is prepared for it, trained, and audited."""

import dataclasses
import time
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from keras_transfer import state
from keras_transfer.adapters import attach
from keras_transfer.backbones import freezing
from keras_transfer.data.splits import Batches, Splits
from keras_transfer.evaluation.cost import StageCost
from keras_transfer.plans.fates import Fate, fates
from keras_transfer.plans.plan import Stage
from keras_transfer.training import compilation
from keras_transfer.training.audit import Audit, audit
from keras_transfer.training.averaging import Averages
from keras_transfer.training.calibration import Calibration, calibrate
from keras_transfer.training.callbacks import EarlyStopping, LossGuard, OneTraining, Progress
from keras_transfer.training.checkpointer import Checkpointer
from keras_transfer.training.features import features
from keras_transfer.training.initial_weights import draw_anew
from keras_transfer.training.job import Done, Job, at_stage
from keras_transfer.training.linear_probe import start_from_probe
from keras_transfer.training.safeguard import BELIEFS, OF_HEAD, Interpolation, safeguard
from keras_transfer.training.snapshot import Outset, Snapshot

# Of the steps of an epoch, if their number can be divided so; not in short stages, where tracing them takes longer.
MOST_AT_ONCE, FEWEST_STEPS = 32, 500


class StageInTraining:
    """One stage of a run, from the model as the stage before left it to its audit.

    Args:
        job: what the stage is part of.
        number: which of the plan's stages it is.
        stage_fates: what becomes of each block.
        done: what has been found so far; the history is written on.
        begun: the snapshot to go on from, if one was taken in this stage.

    Attributes:
        batches: what the model is trained and measured on within the stage: the data, or the features kept of them.
            Once the stage has run.
        audit: what moved. Likewise.
        cost: what it cost. Likewise.
    """

    batches: Batches
    audit: Audit
    cost: StageCost

    def __init__(
        self, job: Job, number: int, stage_fates: Sequence[Fate], done: Done, begun: Snapshot | None = None
    ) -> None:
        self._job, self._number, self._fates, self._done, self._begun = job, number, stage_fates, done, begun
        self._stage = job.plan.stages[number]
        self._start = at_stage(job.plan, number)

    def run(self) -> None:
        """Prepares, trains and audits the stage, or the rest of it."""
        model, settings, stage, begun = self._job.model, self._job.settings, self._stage, self._begun
        started = time.perf_counter() - (begun.training.seconds if begun else 0.0)
        self._fates = prepare(model, stage, self._fates, seed=settings.seed, verbose=settings.verbose)
        if settings.verbose:
            print(f"\n{_headline(stage, self._fates)}")
        if begun:
            state.assign(model, begun.weights)
            calibration = begun.training.outset.calibration
        else:
            calibration = calibrate_statistics(
                model, stage, self._job.splits, seed=settings.seed, verbose=settings.verbose
            )
        with (
            compilation.training_as(model, stage, stage.epochs * self._steps, settings.precision),
            self.choose_batches().in_use() as self.batches,
        ):
            if begun is None:
                fit_head(model, stage, self.batches, seed=settings.seed, class_weight=settings.class_weight)
                outset = Outset(state.values(model), self.batches.kept_in, calibration)
            else:
                outset = begun.training.outset
            self._train(outset, started)
            found = audit(model, stage, self._fates, outset.before)
            interpolation = self._safeguarded(outset) if stage.safeguard else None
            self.audit = dataclasses.replace(found, interpolation=interpolation, calibration=calibration)
        if stage.safeguard and settings.verbose:
            print(interpolation)
        self.cost = self._cost(time.perf_counter() - started)

    def choose_batches(self) -> Batches:
        """The data, or the features kept of them.

        A stage that has begun goes on as it began, whatever would be chosen now.
        """
        settings, first_epoch = self._job.settings, self._start.epoch
        splits = augmented_for(self._stage, self._job.splits)
        keeping = settings.keeping
        if self._begun is not None:
            keeping = keeping.as_begun(self._begun.training.outset.kept_in)
        found = features(
            self._job.model,
            splits,
            keeping.with_views(default_views(splits, self._fates)),
            epochs=range(first_epoch, first_epoch + self._stage.epochs),
            seed=settings.seed,
            verbose=settings.verbose,
        )
        return found or splits

    def _safeguarded(self, outset: Outset) -> Interpolation:
        beliefs = OF_HEAD if only_head_trains(self._fates) else BELIEFS
        return safeguard(self._job.model, self.batches, outset.before, beliefs=beliefs)

    @property
    def _steps(self) -> int:
        """The steps of an epoch."""
        return self._job.splits.steps_per_epoch(self._job.model)

    def _train(self, outset: Outset, started: float) -> None:
        model, splits, settings, stage = self._job.model, self._job.splits, self._job.settings, self._stage
        steps, last_epoch = self._steps, self._start.epoch + stage.epochs
        optimizer = compilation.optimizer(
            stage, self._fates, steps * stage.epochs, settings.precision, pretrained=self._job.pretrained
        )
        settings.objective.compile(model, optimizer, settings.jit_compile, steps_at_once=self._steps_at_once())
        model.optimizer.build(model.trainable_variables)
        watching = [*self._watching(outset, started), *settings.callbacks]
        callbacks = OneTraining(watching, model=model, epochs=last_epoch, steps=steps)
        validation = None
        if splits.validation:
            validation = self.batches.evaluation_batches(splits.validation, model, in_order=False)
        position = self._begun.position if self._begun else self._start
        for left in position.stretches(steps, last_epoch):
            callbacks.steps_before = steps - left.steps
            model.fit(
                self.batches.training_batches(
                    model, seed=settings.seed, first_step=left.first_step, epochs=left.last_epoch
                ),
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

    def _watching(self, outset: Outset, started: float) -> list[keras.callbacks.Callback]:
        """Our own callbacks; what they keep from epoch to epoch is kept in checkpoints as well."""
        job, stage = self._job, self._stage
        self._done.history.stage = stage.name
        keeping: dict[str, keras.callbacks.Callback] = {"history": self._done.history, "loss guard": LossGuard(stage)}
        if stage.patience:
            keeping["early stopping"] = EarlyStopping(stage.patience, job.settings.objective.monitored)
        watching = [Averages()] if stage.ema else []
        watching += keeping.values()
        if job.settings.verbose:
            first_epoch = self._start.epoch
            left_after = job.plan.epochs - first_epoch - stage.epochs
            watching.append(Progress(stage, steps=self._steps, first_epoch=first_epoch, epochs_left_after=left_after))
        if job.home:
            watching.append(keras.callbacks.TensorBoard(job.home.folder / "tensorboard", write_graph=False))
            watching.append(
                Checkpointer(
                    job.keeper,
                    stage=self._number,
                    steps=self._steps,
                    outset=outset,
                    callbacks=keeping,
                    snapshot=self._done.snapshot,
                    begun=self._begun,
                    started=started,
                )
            )
        return watching

    def _steps_at_once(self) -> int:
        """How many steps of an epoch go by between two looks of Python.

        Steps on kept features are so short that Python takes most of their time. Where callbacks of the user's or
        checkpoints may come between them they are taken one by one all the same, and on JAX, where Keras gains nothing.
        """
        steps = self._steps
        is_watched = self._job.home is not None or self._job.settings.callbacks
        is_short = steps * self._stage.epochs < FEWEST_STEPS
        if isinstance(self.batches, Splits) or is_watched or is_short or keras.backend.backend() != "tensorflow":
            return 1
        return max(number for number in range(1, MOST_AT_ONCE + 1) if steps % number == 0)

    def _cost(self, seconds: float) -> StageCost:
        epochs = sum(row["stage"] == self._stage.name for row in self._done.history.rows)
        return StageCost(
            name=self._stage.name,
            epochs=epochs,
            seconds=seconds,
            examples_per_second=epochs * len(self._job.splits.train) / seconds,
            trainable_parameters=sum(int(np.prod(each.shape)) for each in self._job.model.trainable_variables),
            steps=epochs * self._steps,
        )


def augmented_for(stage: Stage, splits: Splits) -> Splits:
    """The data as a stage has them augmented."""
    return splits.more_strongly_augmented() if stage.augment == "stronger" else splits


def default_views(splits: Splits, stage_fates: Sequence[Fate]) -> int:
    """How many augmented versions of each example a stage keeps where nobody has said."""
    # Measured: under light augmentation a head alone is none the better for it, and four versions do for the rest.
    return 0 if only_head_trains(stage_fates) and getattr(splits, "augment", None) == "light" else 4


def only_head_trains(stage_fates: Sequence[Fate]) -> bool:
    """Whether all below the topmost block is frozen."""
    return all(fate.frozen for fate in stage_fates[:-1])


def prepare(
    model: keras.Model, stage: Stage, stage_fates: Sequence[Fate], *, seed: int, verbose: bool
) -> Sequence[Fate]:
    """Puts the model into the state in which the stage trains it: weights drawn anew or not, blocks frozen or awake,
    adapters on.

    Returns:
        The fates, of blocks that now hold the adapters as well.
    """
    draw_at_start(model, stage, seed=seed)
    if stage.adapters is None:
        wake(model, stage, stage_fates)
        return stage_fates
    table = attach.carry_out(model, stage.adapters, train=whole(stage_fates), seed=seed)
    if verbose:
        print(f"\n{table}")
    state.seed(model, seed)  # the adapters' dropout is new
    stage_fates = fates(model, stage)
    awake_layers = [layer for fate in stage_fates if not fate.frozen for layer in fate.block.layers]
    freezing.follow_training(model, awake_layers)
    return stage_fates


def draw_at_start(model: keras.Model, stage: Stage, *, seed: int) -> None:
    """Draws all weights anew, if the stage starts from random ones."""
    if stage.start == "random":
        draw_anew(model, seed)


def calibrate_statistics(
    model: keras.Model, stage: Stage, splits: Splits, *, seed: int, verbose: bool
) -> Calibration | None:
    """Gives batch norms the statistics by which the stage normalises, if it does not keep those there are."""
    if stage.statistics == "kept":
        return None
    calibration = calibrate(model, splits, seed=seed)
    if verbose:
        print(calibration)
    return calibration


def fit_head(
    model: keras.Model,
    stage: Stage,
    batches: Batches,
    *,
    seed: int,
    class_weight: Mapping[int, float] | None = None,
) -> None:
    """Puts the linear probe into the head from which the stage starts, if it starts from one."""
    if stage.is_from_probe:
        start_from_probe(model, batches, seed=seed, class_weight=class_weight, start=stage.start)


def wake(model: keras.Model, stage: Stage, stage_fates: Sequence[Fate]) -> None:
    """Lets train what a stage without adapters trains, and nothing else."""
    awake = {layer: fate.part for fate in stage_fates if not fate.frozen for layer in fate.block.layers}
    freezing.wake(model, awake, batch_norm=stage.batch_norm)


def whole(stage_fates: Sequence[Fate]) -> list[keras.Layer]:
    """The layers that train themselves, all of their weights."""
    return [layer for fate in stage_fates if fate.part == "whole" and not fate.frozen for layer in fate.block.layers]


def _headline(stage: Stage, stage_fates: Sequence[Fate]) -> str:
    awake = [fate for fate in stage_fates if not fate.frozen]
    rates = f"{stage.learning_rate * awake[-1].ratio:.2g} at {awake[-1].block.name}"
    if len(awake) > 1:
        rates += f" … {stage.learning_rate * awake[0].ratio:.2g} at {awake[0].block.name}"
    frozen = len(stage_fates) - len(awake)
    return f"{stage.name}: {len(awake)} of {len(stage_fates)} blocks train, {frozen} frozen; peak rates {rates}"
