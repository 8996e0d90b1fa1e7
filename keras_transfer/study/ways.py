"""The methods of a comparison before they have run: how each model is built anew, and by which plan it is adapted."""

import dataclasses
import weakref
from collections.abc import Callable, Mapping, Sequence

import keras

from keras_transfer.errors import explain
from keras_transfer.plans.plan import Plan
from keras_transfer.study.stored import Beginning

Build = Callable[[], keras.Model]
PlanOf = Callable[[keras.Model], Plan]


@dataclasses.dataclass(frozen=True)
class Way:
    """One method with one body.

    Attributes:
        name: what it is called in the table.
        body: the name of its body; empty where there is one only, or where the body's weights are drawn anew.
        build: makes a fresh model.
        plan_of: from a model to the plan.
    """

    name: str
    body: str
    build: Build
    plan_of: PlanOf

    def plan(self, model: keras.Model) -> Plan:
        """The plan for a model.

        Raises:
            ValueError: if `plan_of` makes none.
        """
        plan = self.plan_of(model)
        if not isinstance(plan, Plan):
            raise ValueError(
                explain(
                    f"{self.name!r} makes no plan.",
                    given=type(plan).__name__,
                    expected="a function from a model to a kt.Plan: kt.feature_extraction, or"
                    " lambda model: kt.lora(model, rank=4)",
                )
            )
        return plan


def ways(builds: Mapping[str, Build], plans: Mapping[str, PlanOf], models: Mapping[str, keras.Model]) -> list[Way]:
    """Every plan with every body, plan by plan.

    From scratch, bodies of one architecture are one body, so that is tried once.

    Args:
        builds: by the name of the body.
        plans: by the name of the method.
        models: for each body one that was built.

    Raises:
        ValueError: if a plan does not fit its model, or two would have one name.
    """
    alike = len({_architecture(model) for model in models.values()}) == 1
    found: dict[str, Way] = {}
    for name, plan_of in plans.items():
        for body, build in builds.items():
            way = Way(f"{name}, {body}" if len(builds) > 1 else name, body, build, plan_of)
            if alike and way.plan(models[body]).stages[0].start == "random":
                way = dataclasses.replace(way, name=name, body="")
            if way.name in found and way.body:
                raise ValueError(
                    explain(
                        "Two methods would have one name.",
                        given=repr(way.name),
                        expected="names of plans and bodies that differ when they are joined",
                        to_mend="leave the commas out of them",
                    )
                )
            found.setdefault(way.name, way)
    return list(found.values())


def _architecture(model: keras.Model) -> tuple[object, ...]:
    return tuple((type(layer).__name__, *(tuple(v.shape) for v in layer.variables)) for layer in model.layers)


class Freshness:
    """Sees to it that every run begins with a model of its own, as it was built, and all runs of a seed alike."""

    def __init__(self) -> None:
        self._models: weakref.WeakSet[keras.Model] = weakref.WeakSet()
        # By `id`, which says which variable it is only as long as that lives.
        self._weights: dict[int, tuple[weakref.ref, str]] = {}
        self._digests: dict[tuple[str, int], str] = {}

    def built(self, build: Build, body: str, seed: int) -> tuple[keras.Model, Beginning]:
        """A fresh model, and its weights as it was built.

        Raises:
            ValueError: if `build` makes none, one that was there before, or other weights than before for this seed.
        """
        keras.utils.set_random_seed(seed)
        model = build()
        if not isinstance(model, keras.Model):
            raise ValueError(
                explain(
                    "`build` makes no model.",
                    given=type(model).__name__,
                    expected="a keras.Model, as from kt.image_classifier",
                )
            )
        if model in self._models:
            raise ValueError(
                explain(
                    "`build` gave the same model twice.",
                    given=model.name,
                    expected="a function that makes a new model whenever it is called",
                    to_mend="lambda: kt.image_classifier(…)",
                )
            )
        beginning = Beginning(model)
        self._check(beginning, body, seed)
        self._models.add(model)
        self._weights |= {id(variable): (weakref.ref(variable), digest) for variable, digest in beginning.weights}
        return model, beginning

    def _check(self, beginning: Beginning, body: str, seed: int) -> None:
        for variable, digest in beginning.weights:
            reference, before = self._weights.get(id(variable), (None, ""))
            if reference is not None and reference() is variable and before != digest:
                raise ValueError(
                    explain(
                        "`build` gave a model with weights that an earlier run has trained.",
                        given=f"{variable.path}, which is in both",
                        expected="a fresh model whenever it is called",
                        to_mend="build the body inside `build`; or, where one body is shared, put its weights back"
                        " there: body.set_weights(pretrained)",
                    )
                )
        if self._digests.setdefault((body, seed), beginning.digest) != beginning.digest:
            raise ValueError(
                explain(
                    f"`build` gave other weights than before, with the same seed {seed}.",
                    expected="the same weights whenever it is called after keras.utils.set_random_seed(seed)",
                    to_mend="take nothing random from elsewhere, such as a generator of your own",
                )
            )


def planned(every: Sequence[Way], models: Mapping[str, keras.Model]) -> dict[str, Plan]:
    """The plan of each method, by its name."""
    first = next(iter(models.values()))
    return {way.name: way.plan(models.get(way.body, first)) for way in every}
