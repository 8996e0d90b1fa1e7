"""What `fit` refuses before anything is trained."""

from collections.abc import Mapping, Sequence

import keras

from keras_transfer.adapters import attach
from keras_transfer.arguments import is_number, is_whole
from keras_transfer.backbones import graph
from keras_transfer.data.splits import Splits
from keras_transfer.errors import explain, nearest
from keras_transfer.plans.fates import Fate, fates
from keras_transfer.plans.plan import Plan, Stage
from keras_transfer.training.linear_probe import linear_head
from keras_transfer.training.objectives import objective_of
from keras_transfer.training.stages import whole


def check_kinds(model: object, splits: object, plan: object, callbacks: object) -> None:
    """Raises a `ValueError` where an argument is nothing of its kind."""
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


def checked_fates(model: keras.Model, splits: Splits, plan: Plan) -> list[list[Fate]]:
    """What becomes of each block in each stage, once model, data and plan have been found to fit together.

    Raises:
        ValueError: where they do not.
    """
    graph.check_graph(model)
    objective_of(splits).check(model, splits)
    per_stage = [fates(model, stage) for stage in plan]
    check_patience(plan, splits)
    check_adapters(model, plan, per_stage)
    asks_a_probe = [stage for stage in plan if stage.statistics == "calibrated"]
    if asks_a_probe and not splits.classes:
        raise ValueError(
            explain(
                f"Stage {asks_a_probe[0].name!r} asks a linear probe how far to move statistics: there are no classes.",
                given="statistics='calibrated', and data without labels",
                to_mend="leave `statistics` out",
            )
        )
    if asks_a_probe or any(stage.is_from_probe for stage in plan):
        linear_head(model)  # or the reason why there is none
    return per_stage


def check_patience(plan: Plan, splits: Splits) -> None:
    """Raises a `ValueError` where a stage is to stop early and there is no validation."""
    if any(stage.patience for stage in plan) and not splits.validation:
        raise ValueError(
            explain(
                "A stage is to stop early, and there is nothing to tell it when.",
                given="no validation split",
                to_mend="keep some: kt.data.images(…, validation=0.2); or leave `patience` out",
            )
        )


def class_weights(class_weight, splits: Splits) -> dict[int, float] | None:
    """The weight of each class by its number, as `class_weight` asks for; or the `ValueError` that it earns."""
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
    if not isinstance(class_weight, Mapping):
        raise ValueError(
            explain(
                "`class_weight` is no rule, and no mapping.",
                given=repr(class_weight),
                expected="'balanced', or a mapping from each class's name to its weight",
                to_mend="{" + ", ".join(f"{name!r}: 1.0" for name in splits.classes[:3]) + ", …}",
            )
        )
    unknown = [name for name in class_weight if name not in splits.classes]
    missing = [name for name in splits.classes if name not in class_weight]
    if unknown or missing:
        raise ValueError(
            explain(
                "`class_weight` does not give every class of the data its weight.",
                given=list(class_weight),
                nearest=nearest(str(unknown[0]), splits.classes) if unknown else None,
                expected=list(splits.classes),
                to_mend="classes by their names, not by their numbers" if all(map(is_whole, class_weight)) else None,
            )
        )
    wrong = {name: weight for name, weight in class_weight.items() if not is_number(weight) or weight < 0}
    if wrong or not any(class_weight.values()):
        raise ValueError(
            explain(
                "`class_weight` holds what weighs nothing.",
                given=wrong or dict(class_weight),
                expected="finite numbers from 0 up, not all of them 0",
            )
        )
    return {index: float(class_weight[name]) for index, name in enumerate(splits.classes)}


def check_features(cache: str, per_stage: Sequence[Sequence[Fate]]) -> None:
    """Raises a `ValueError` where features are asked for, and no stage leaves anything frozen that could make some."""
    if cache in ("disk", "memory") and not any(stage_fates[0].frozen for stage_fates in per_stage):
        raise ValueError(
            explain(
                "No stage of this plan has features that could be kept.",
                given=f"cache={cache!r}",
                expected="frozen layers below the lowest that trains",
                to_mend='cache="auto", which keeps them where that can be done and pays',
            )
        )


def check_compiling(jit_compile: object) -> None:
    """Raises a `ValueError` for what says neither that steps are to go through XLA nor that they are not."""
    if not isinstance(jit_compile, bool) and jit_compile != "auto":
        raise ValueError(
            explain("`jit_compile` of fit is out of place.", given=repr(jit_compile), expected="True, False or 'auto'")
        )


def check_keeping(workdir: object, restart: bool, seconds: float, steps: int | None) -> None:
    """Raises a `ValueError` for arguments about keeping a run that mean nothing."""
    for name, given, fine, expected in (
        ("checkpoint_seconds", seconds, seconds >= 0, "a number of seconds"),
        ("checkpoint_steps", steps, steps is None or steps >= 1, "None, or a number of steps from 1 up"),
        ("checkpoint_steps", steps, steps is None or workdir is not None, "a workdir, where checkpoints can go"),
        ("restart", restart, not restart or workdir is not None, "a workdir, whose run is to be discarded"),
    ):
        if not fine:
            raise ValueError(explain(f"`{name}` of fit is out of place.", given=repr(given), expected=expected))


def check_adapters(model: keras.Model, plan: Plan, per_stage: Sequence[Sequence[Fate]]) -> None:
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
        asked = attach.asked_for(model, stage.adapters, train=whole(stage_fates))
        if first is not None and asked != first[1]:
            raise ValueError(
                explain(
                    f"Stage {stage.name!r} asks for other adapters than stage {first[0].name!r}, whose stay on.",
                    given=f"{stage.adapters} on {len(asked)} layers, after {first[0].adapters} on {len(first[1])}",
                    to_mend="the same LoRA and the same `train` in both; or two plans, with `kt.merge_adapter` between",
                )
            )
        first = first or (stage, asked)
