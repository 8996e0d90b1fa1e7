"""How a stage becomes a compiled model: optimizer, rates, loss, precision."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import keras
import numpy as np

from keras_transfer import state
from keras_transfer.backbones import freezing, graph, hub
from keras_transfer.backbones.blocks import blocks
from keras_transfer.errors import explain, nearest
from keras_transfer.plans.fates import Fate
from keras_transfer.plans.plan import Stage
from keras_transfer.training.l2_sp import PullingOptimizer
from keras_transfer.training.layerwise_optimizer import LayerwiseOptimizer
from keras_transfer.training.sharpness import sharpness_aware

PRECISIONS = ("mixed_bfloat16", "mixed_float16")
_NOT_DECAYED = ("bias", "gamma", "beta")


def learning_rate(stage: Stage, steps: int) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """The stage's rate as a function of its steps: from 0 up to the peak, then down as the stage says.

    Example:

    >>> schedule = learning_rate(Stage("head", epochs=1, learning_rate=0.1, warmup=0.1), steps=100)
    >>> [round(float(schedule(step)), 3) for step in (0, 5, 10, 55, 100)]
    [0.0, 0.05, 0.1, 0.05, 0.0]
    """
    warmup = min(round(stage.warmup * steps), steps - 1)  # or nothing but the climb, whose first step is none
    peak = stage.learning_rate
    if stage.schedule == "constant" and not warmup:
        return peak
    if stage.schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(
            0.0 if warmup else peak,
            decay_steps=max(1, steps - warmup),
            warmup_target=peak if warmup else None,
            warmup_steps=warmup,
        )
    return Ramp(peak, steps=steps, warmup=warmup, end=0.0 if stage.schedule == "linear" else peak)


@keras.saving.register_keras_serializable(package="keras_transfer")
class Ramp(keras.optimizers.schedules.LearningRateSchedule):
    """A straight climb from 0 to `peak` over `warmup` steps, then a straight line to `end` at step `steps`.

    Example:

    >>> [float(Ramp(1.0, steps=8, warmup=4, end=0.0)(step)) for step in (0, 2, 4, 6, 8)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    def __init__(self, peak: float, *, steps: int, warmup: int, end: float):
        self.peak, self.steps, self.warmup, self.end = peak, steps, warmup, end

    def __call__(self, step):
        step = keras.ops.cast(step, "float32")
        climbed = keras.ops.minimum(step / max(1, self.warmup), 1.0) if self.warmup else 1.0
        gone = keras.ops.clip((step - self.warmup) / max(1, self.steps - self.warmup), 0.0, 1.0)
        return climbed * (self.peak + gone * (self.end - self.peak))

    def get_config(self):
        return {"peak": self.peak, "steps": self.steps, "warmup": self.warmup, "end": self.end}


def optimizer(
    stage: Stage,
    fates: Sequence[Fate],
    steps: int,
    precision: str | None = None,
    *,
    pretrained: Mapping[int, np.ndarray] | None = None,
    rate: keras.optimizers.schedules.LearningRateSchedule | None = None,
) -> keras.optimizers.Optimizer:
    """A fresh optimizer for the stage.

    Fresh, because Adam counts one `iterations` for all: slots of weights that were just woken, in an optimizer that has
    run for long, take steps of several times the rate, on just the weights that we want to keep.

    Args:
        stage: says which, and what pulls and averages.
        fates: what it does to each block.
        steps: those of the stage.
        precision: of the training.
        pretrained: from `l2_sp.pretrained`, for a stage that pulls.
        rate: another one than the stage's own.
    """
    rate = learning_rate(stage, steps) if rate is None else rate
    average = {"use_ema": True, "ema_momentum": stage.ema} if stage.ema else {}
    common = {"global_clipnorm": stage.clip_norm, **average}
    decay = stage.weight_decay or None
    inner = {
        "adamw": lambda: keras.optimizers.AdamW(rate, weight_decay=stage.weight_decay, **common),
        "adam": lambda: keras.optimizers.Adam(rate, weight_decay=decay, **common),
        "sgd": lambda: keras.optimizers.SGD(rate, momentum=0.9, weight_decay=decay, **common),
        "lion": lambda: keras.optimizers.Lion(rate, weight_decay=decay, **common),
    }[stage.optimizer]()
    ratios = {fate.block: fate.ratio for fate in fates if not fate.frozen}
    pulled = pretrained if stage.l2_sp and pretrained else {}
    if stage.weight_decay:
        # The norms of language models call their scale "scale", as other layers call what is to decay.
        norms = [weight for block in ratios for layer in block.layers for weight in freezing.weights_of(layer, "norms")]
        anchored = [variable for block in ratios for variable in block.variables if id(variable) in pulled]
        inner.exclude_from_weight_decay(var_list=[*norms, *anchored], var_names=list(_NOT_DECAYED))
    if stage.l2_sp:
        layerwise = PullingOptimizer(inner, ratios, strength=stage.l2_sp, towards=pulled)
    else:
        layerwise = LayerwiseOptimizer(inner, ratios)
    return keras.optimizers.LossScaleOptimizer(layerwise) if precision == "mixed_float16" else layerwise


@contextlib.contextmanager
def training_as(model: keras.Model, stage: Stage, steps: int, precision: str | None) -> Iterator[None]:
    """Lets the model, for the time being, compute and take its steps as a stage of so many steps has it."""
    with (
        computing_in(model, precision),
        averaging_over(model, stage, steps),
        sharpness_aware(model, stage.sam),
        hub.taking_packed_inputs(model),
    ):
        yield


def check_precision(precision: object) -> None:
    """Raises a `ValueError` for another precision than `"mixed_bfloat16"`, `"mixed_float16"` or `None`."""
    if precision is not None and precision not in PRECISIONS:
        raise ValueError(
            explain(
                "`precision` names none that Keras trains in.",
                given=repr(precision),
                nearest=nearest(str(precision), PRECISIONS),
                expected="None (as the model was built), " + " or ".join(map(repr, PRECISIONS)),
            )
        )


@contextlib.contextmanager
def computing_in(model: keras.Model, precision: str | None) -> Iterator[None]:
    """Lets the body compute in half precision for the time being; weights, preprocessing and head stay in float32.

    Raises:
        ValueError: as `check_precision`.
    """
    check_precision(precision)
    before = [(layer, layer.dtype_policy) for layer in (_computing(model) if precision else ())]
    for layer, policy in before:
        # "int8_from_float32", of a quantised layer, keeps its first half.
        quantised = f"{policy.name.split('_from_')[0]}_from_" if policy.quantization_mode else ""
        layer.dtype_policy = quantised + precision
    try:
        yield
    finally:
        for layer, policy in before:
            layer.dtype_policy = policy


def _computing(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of the body that compute, and those that hold them: an encoder adds up what its layers hand out."""
    body = {id(layer) for block in blocks(model).body for layer in block.layers}
    stays = (keras.layers.Rescaling, keras.layers.Normalization)
    return [
        layer
        for layer in state.sublayers(model)
        if not isinstance(layer, stays)
        and not graph.has_graph(layer)
        and (id(layer) in body or any(id(below) in body for below in state.sublayers(layer)))
    ]


@contextlib.contextmanager
def averaging_over(model: keras.Model, stage: Stage, steps: int) -> Iterator[None]:
    """Lets the moving statistics of a stage that adapts them keep up with it: they average over its last tenth.

    Bodies come with the momentum of a training of a million steps: 0.999 in MobileNetV2, of whose random statistics
    four fifths are left after 200 steps. The network then trains well and predicts at chance.
    """
    layers = freezing.batch_norms(model) if stage.batch_norm == "adapt" else []
    before = [(layer, layer.momentum) for layer in layers]
    for layer, momentum in before:
        layer.momentum = min(momentum, max(0.5, 1 - 10 / steps))
    try:
        yield
    finally:
        for layer, momentum in before:
            layer.momentum = momentum
