"""The ways to adapt a model that courses teach, each a function from a model to a plan."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np

from keras_transfer.adapters.lora import LoRA
from keras_transfer.arguments import is_whole
from keras_transfer.backbones.blocks import blocks as blocks_of
from keras_transfer.backbones.freezing import batch_norms
from keras_transfer.errors import explain, nearest
from keras_transfer.plans import fates
from keras_transfer.plans.plan import Plan, Stage

# The head has been solved for, so what it still has to learn is to follow the body. (At 3 and 5, the values that suit a
# head that starts at random, the pictures of the shared sets were classified worse, and so at 1 and 0.3, within noise.)
HEAD = {"head": 0.1}

# Passes over some hundred pictures are a few dozen steps, in which a body hardly gets under way.
EPOCHS, LEAST_STEPS = (3, 10), 400

# The same of what trains beside a frozen body, at higher rates, which take fewer steps.
FEW_EPOCHS, FEW_STEPS = 3, 200


def feature_extraction(model: keras.Model, *, epochs: int = 20, learning_rate: float = 1e-3, **stage_options) -> Plan:
    """Trains a new head on the features of a frozen body.

    The cheapest method and the hardest to get wrong: the answer for a few dozen pictures of things that the body has
    seen the like of. Not when the target looks unlike the source (sketches, X-rays): its features then miss what
    matters. The head starts as logistic regression on the features, and goes on from there on augmented pictures.

    Args:
        model: a classifier with a linear head.
        epochs: passes over the data.
        learning_rate: peak rate of the head.
        **stage_options: further arguments of `kt.Stage`.

    Example:

    >>> import keras_transfer as kt
    >>> model = kt.image_classifier("MobileNetV2", 2, weights=None, image_size=32, alpha=0.35)
    >>> print(kt.feature_extraction(model, epochs=5))
    feature_extraction: 1 stage, 5 epochs
      1 head: trains head, 5 epochs, adamw 0.001, cosine, warm-up 10%, batch norm frozen, from a
      standardised linear probe
    """
    options = {"learning_rate": learning_rate, "start": "standardised_probe"} | stage_options
    return fates.check(model, "feature_extraction", [_stage("head", epochs, options)])


def staged_fine_tuning(
    model: keras.Model,
    *,
    epochs: Sequence[int] | None = None,
    learning_rate: float = 1e-3,
    layer_decay: float = 0.75,
    unfreeze: str | Sequence[str] = "all",
    calibrate: bool = True,
    safeguard: bool = True,
    **stage_options,
) -> Plan:
    """Trains a new head, then wakes the body below it, the lower the slower.

    Before that, batch norms that meet another domain, as those of a body of photographs do in drawings, get statistics
    between their own and the data's, as far towards the latter as a linear probe on the frozen body gains by it (α-BN:
    You et al. 2021): what a body makes of drawings while it normalises them as photographs is hard to learn from. From
    there on they stay.

    The head learns alone first, from a linear probe on: the errors of a head that is not fitted are large, and passed
    down they would undo the features we came for (linear probing before fine-tuning, Kumar et al. 2022). Then every
    block learns at `layer_decay` of the rate of the one above it (discriminative fine-tuning, Howard and Ruder 2018):
    low blocks hold edges and textures, which carry over, high ones hold the source task's shapes, which do not. In the
    end the model is put between the fitted head on the frozen body and the tuned one, where validation likes it best
    (WiSE-FT, Wortsman et al. 2022), and never below the former; nor is that below the linear probe. (With
    `unfreeze="gradual"`, between the beginning and the end of the last step.)

    Not for a handful of pictures per class (`feature_extraction` cannot overfit as far), nor where the body knows
    nothing of use (`from_scratch` shows whether it does).

    Args:
        model: a classifier with a head.
        epochs: of the head alone, then of what `unfreeze` wakes: exactly so many. If not given (3, 10), the second of
            them more on small data, as many as make 400 steps.
        learning_rate: peak rate of the second part, which the head learns at a tenth of. (Alone it learns at 1e-3,
            whatever rate and optimizer are right for the body.)
        layer_decay: ratio of a block's rate to the rate of the block above.
        unfreeze: what the second part wakes: `"all"`, `"top:2"`, block names. `"gradual"` wakes one block after
            another from the top (Howard and Ruder 2018), the second number of epochs spread evenly over the steps.
        calibrate: whether the statistics of batch norms are chosen first (`Stage(statistics="calibrated")`). A body
            without batch norms has none.
        safeguard: whether the head is put back to the probe where validation says so, and the last stage ends where
            validation says, between its beginning and its end.
        **stage_options: further arguments of `kt.Stage`, for the second part.

    Example:

    >>> import keras_transfer as kt
    >>> model = kt.image_classifier("MobileNetV2", 2, weights=None, image_size=32, alpha=0.35)
    >>> [stage.name for stage in kt.staged_fine_tuning(model, epochs=(2, 4), unfreeze="top:3")]
    ['head', 'top:3']
    """
    least_steps = LEAST_STEPS if epochs is None else 0
    epochs = EPOCHS if epochs is None else epochs
    if not isinstance(epochs, Sequence | np.ndarray) or len(epochs) != 2 or not all(map(_is_length, epochs)):
        raise ValueError(
            explain(
                "`epochs` of staged fine-tuning has two parts.",
                given=epochs,
                expected="(epochs of the head alone, epochs of the rest), each at least 1, for instance (3, 10)",
            )
        )
    options = {"learning_rate": learning_rate, "layer_decay": layer_decay, "ratios": HEAD}
    options |= {"least_steps": least_steps, "augment": "stronger"} | stage_options
    statistics = "calibrated" if calibrate and batch_norms(model) else "kept"
    head = Stage("head", epochs[0], start="probe", statistics=statistics, safeguard=safeguard)
    tuned = _gradually(model, epochs[1], options) if unfreeze == "gradual" else [_stage(unfreeze, epochs[1], options)]
    tuned[-1] = dataclasses.replace(tuned[-1], safeguard=safeguard)
    return fates.check(model, "staged_fine_tuning", [head, *tuned])


def from_scratch(model: keras.Model, *, epochs: int = 30, learning_rate: float = 1e-3, **stage_options) -> Plan:
    """Trains the same architecture from random weights: what transfer has to beat.

    Worth its price once per task: where it wins beyond the noise, transfer is negative. Batch norms adapt, since random
    features have no statistics worth keeping. Pictures are augmented as strongly as for `kt.staged_fine_tuning`, so
    that weights alone make the difference.

    Args:
        model: a classifier.
        epochs: passes over the data.
        learning_rate: peak rate.
        **stage_options: further arguments of `kt.Stage`.

    Example:

    >>> import keras_transfer as kt
    >>> model = kt.image_classifier("MobileNetV2", 2, weights=None, image_size=32, alpha=0.35)
    >>> kt.from_scratch(model, epochs=5).stages[0].start
    'random'
    """
    options = {"learning_rate": learning_rate, "batch_norm": "adapt", "start": "random", "augment": "stronger"}
    options |= stage_options
    return fates.check(model, "from_scratch", [_stage("all", epochs, options, name="from scratch")])


def lora(
    model: keras.Model,
    rank: int = 8,
    alpha: float | None = None,
    targets: str | Sequence[str] | Sequence[keras.Layer] = "attention",
    *,
    epochs: int | None = None,
    learning_rate: float = 1e-3,
    dropout: float = 0.0,
    scaling: Literal["lora", "rslora"] = "lora",
    biases: Literal["none", "adapted", "all"] = "none",
    factors: Literal["paper", "keras"] = "paper",
    dora: bool = False,
    ranks: Mapping[str, int] | None = None,
    blocks: str | Sequence[str] | None = None,
    **stage_options,
) -> Plan:
    """Trains two thin matrices beside each of the chosen ones, and the head; the body stays as it is to the last bit.

    For large transformers: a thousandth of the numbers train, optimizer state and file shrink with them, and many
    adapters share one body. The head of a classifier starts from a tempered linear probe: a few dozen examples need
    one, and one that is sure of them would leave the adapters nothing to learn. Where there are hundreds of examples,
    `start="pretrained", learning_rate=3e-3` does without (`benchmarks/text_lora.py`). A language model's own head
    stays frozen.

    Not for small bodies, which full fine-tuning costs little, nor for inputs that the body has never seen the like of:
    low-rank updates cannot move it far (Biderman et al. 2024, arXiv:2405.09673).

    Args:
        model: a classifier or a language model, with any body that has Dense, EinsumDense, Embedding or Conv layers.
        rank, alpha, targets, dropout, scaling, biases, factors, dora, ranks, blocks: as in `kt.LoRA`.
        epochs: passes over the data, exactly so many. If not given 3, and on small data as many as make 200 steps.
        learning_rate: peak rate of factors and head.
        **stage_options: further arguments of `kt.Stage`.

    Raises:
        ValueError: where the targets name nothing that this model has, at once.

    Example:

    >>> import keras_transfer as kt
    >>> model = kt.image_classifier("MobileNetV2", 2, weights=None, image_size=32, alpha=0.35)
    >>> print(kt.lora(model, rank=4, targets="block_1?_project"))
    lora: 1 stage, 3 epochs or more
      1 lora head: trains head, 3 epochs or 200 steps, LoRA rank 4, alpha 8, on block_1?_project, adamw 0.001, \
cosine, warm-up 10%, batch norm frozen, from a tempered linear probe
    """
    spec = LoRA(
        rank=rank,
        alpha=alpha,
        targets=targets,
        dropout=dropout,
        scaling=scaling,
        biases=biases,
        factors=factors,
        dora=dora,
        ranks=ranks or {},
        blocks=blocks,
    )
    train = () if blocks_of(model).head is None else "head"
    options = {"learning_rate": learning_rate, "adapters": spec, "train": train} | stage_options
    return _from_probe(model, "lora", epochs, options)


def bitfit(model: keras.Model, *, epochs: int | None = None, learning_rate: float = 1e-3, **stage_options) -> Plan:
    """Trains biases and offsets of norms only, and the head (BitFit: Ben Zaken et al. 2022, arXiv:2106.10199).

    A tenth of a per cent of the numbers, with no new ones beside them. Not for bodies without biases (Llama, Gemma),
    nor for convolutional ones, whose only offsets belong to batch norms.

    Args:
        model: a classifier, or a language model, which has no head to begin with a probe.
        epochs: as of `kt.lora`.
        learning_rate: peak rate.
        **stage_options: further arguments of `kt.Stage`.

    Raises:
        ValueError: where the body has no biases.

    Example:

    >>> import keras_transfer as kt
    >>> model = kt.image_classifier("ConvNeXtTiny", 2, weights=None, image_size=32)
    >>> kt.bitfit(model).stages[0].part
    'biases'
    """
    options = {"learning_rate": learning_rate, "part": "biases", "train": "all"} | stage_options
    return _from_probe(model, "bitfit", epochs, options)


def norm_tuning(model: keras.Model, *, epochs: int | None = None, learning_rate: float = 1e-3, **stage_options) -> Plan:
    """Trains scale and offset of the norms only, and the head (Zhao et al. 2023, arXiv:2312.11420).

    Of layer, group and RMS norms; batch norms hold statistics of the source besides, and are left as they are.

    Args:
        model: a classifier, or a language model, which has no head to begin with a probe.
        epochs: as of `kt.lora`.
        learning_rate: peak rate.
        **stage_options: further arguments of `kt.Stage`.

    Raises:
        ValueError: where the body has no such norms.

    Example:

    >>> import keras_transfer as kt
    >>> model = kt.image_classifier("ConvNeXtTiny", 2, weights=None, image_size=32)
    >>> kt.norm_tuning(model).stages[0].part
    'norms'
    """
    options = {"learning_rate": learning_rate, "part": "norms", "train": "all"} | stage_options
    return _from_probe(model, "norm_tuning", epochs, options)


def _stage(train: str | Sequence[str], epochs: int, options: Mapping[str, Any], **fixed: str) -> Stage:
    """A stage of what a method sets and its user asks for."""
    known = {field.name for field in dataclasses.fields(Stage)}
    for name in options:
        if name not in known:
            raise TypeError(
                explain(
                    "There is no such argument, neither of this method nor of `kt.Stage`.",
                    given=f"{name}={options[name]!r}",
                    nearest=nearest(name, {*known, "rank", "alpha", "targets", "dropout", "unfreeze"}),
                )
            )
    return Stage(train, epochs, **{**options, **fixed})


def _from_probe(model: keras.Model, name: str, epochs: int | None, options: Mapping[str, Any]) -> Plan:
    """A plan of one stage, whose head starts from a linear probe; a language model has no head that could."""
    start = "pretrained" if blocks_of(model).head is None else "tempered_probe"
    options = {"start": start, "least_steps": FEW_STEPS if epochs is None else 0} | dict(options)
    epochs = FEW_EPOCHS if epochs is None else epochs
    return fates.check(model, name, [_stage(options.pop("train"), epochs, options)])


def _is_length(epochs: object) -> bool:
    return is_whole(epochs) and epochs >= 1


def _gradually(model, epochs, options):
    body = blocks_of(model).body
    steps = min(epochs, len(body))
    options = options | {"least_steps": options["least_steps"] // steps}
    stages = []
    for step in range(1, steps + 1):
        # Spread what does not divide evenly: both the blocks and the epochs come out whole at the last step.
        awake = round(step * len(body) / steps)
        length = round(step * epochs / steps) - round((step - 1) * epochs / steps)
        stages.append(_stage(f"top:{awake}", length, options))
    return stages
