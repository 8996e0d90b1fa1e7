"""One optimizer with a learning rate for every layer: the base rate times the layer's ratio."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_transfer import errors
from keras_transfer.training import ratios as ratios_of

# All that is used of Keras beyond its public interface, with the reason. A test holds this list against the source
# below and the installed Keras, so that a Keras that changes one of them is found there and not in someone's weights.
PRIVATE = {
    "_learning_rate": "the schedule or callable itself, where `learning_rate` gives its value of the moment",
    "_iterations": "one step counter for both, so that bias correction is right",
    "_track_variable": "slots into `variables`; plain assignment is not tracked within a LossScaleOptimizer",
    "_distribution_strategy": "TensorFlow only: the strategy that an optimizer was made under",
    "_trainable_variables": "the variables it was built for, in order",
    "_get_variable_index": "the position of a variable, also of its copy on one replica",
    "_use_weight_decay": "which variables were excluded, so that a saved file can say so",
    "_apply_weight_decay": "decay takes the one rate of the optimizer: here, that of the variable",
    "_backend_update_step": "Nadam advances a product of its own there, once per step",
    "_backend_apply_gradients": "only to refuse an optimizer that steps in a way of its own",
    "_clip_gradients": "only to refuse, as above",
    "_update_model_variables_moving_average": "the average of a variable that stands still is that variable, exactly",
    "_model_variables_moving_average": "the averages themselves",
}

# What the wrapper takes over from the optimizer it is given. Weight decay is lent back for the length of a step.
_TAKEN_OVER = (
    "weight_decay",
    "clipnorm",
    "clipvalue",
    "global_clipnorm",
    "use_ema",
    "ema_momentum",
    "ema_overwrite_frequency",
    "loss_scale_factor",
    "gradient_accumulation_steps",
)

# Under `tf.distribute`, Keras clips each replica's gradients before it sums them, and cannot branch within a step.
_WRONG_ON_REPLICAS = (
    "clipnorm",
    "clipvalue",
    "global_clipnorm",
    "gradient_accumulation_steps",
    "ema_overwrite_frequency",
)


@keras.saving.register_keras_serializable(package="keras_transfer")
class LayerwiseOptimizer(keras.optimizers.Optimizer):
    """Runs one Keras optimizer with a learning rate per layer, and behaves as that one optimizer everywhere.

    Each variable learns at `learning_rate * ratio`, weight decay included. This is discriminative fine-tuning (Howard
    and Ruder 2018, arXiv:1801.06146); ratios that fall by a constant factor from block to block are layer-wise learning
    rate decay (Clark et al. 2020, arXiv:2003.10555; Bao et al. 2022, arXiv:2106.08254).

    Schedules, clipping, decay, moving averages, gradient accumulation and the step counter are taken over from
    `optimizer`: set them here (`wrapper.clipnorm = 1.0`). It keeps its slots and its update rule, and must not be used
    elsewhere. At ratio 1 the weights are those of the bare optimizer, bit for bit. At ratio 0 a variable does not move
    at all, though its gradient still counts in `global_clipnorm`.

    Not for: layers that stay frozen (`trainable = False` spares gradient and slots), or another update rule for some
    layers (`keras.optimizers.MultiOptimizer`). `Ftrl` forgets pretrained weights, at any rate.

    Args:
        optimizer: a Keras optimizer that has not been built, or its name. Not a `LossScaleOptimizer`: put that around.
        ratios: a mapping from layers, nested models, blocks (anything with `.variables`) or layer names (a component of
            `variable.path`) to numbers of at least 0. Where several keys fit a variable, the one that covers less wins.
            Or a sequence with one ratio per trainable variable, in order; after `build`, a tuple of that kind.
        name: name of the optimizer.

    Raises:
        ValueError: for an optimizer that steps in a way of its own; for a ratio that is not a finite number of at least
            0; when built, for a variable without a ratio, a key without a variable, and keys that disagree; when
            applied under `tf.distribute` on several replicas with clipping, accumulation or `ema_overwrite_frequency`.

    Example:

    >>> body = keras.Sequential([keras.layers.Dense(4, name="lower"), keras.layers.Dense(4, name="upper")], name="body")
    >>> model = keras.Sequential([keras.Input((3,)), body, keras.layers.Dense(2, name="head")])
    >>> optimizer = LayerwiseOptimizer(keras.optimizers.AdamW(1e-3), {body: 0.1, "lower": 0.01, "head": 1.0})
    >>> model.compile(optimizer, "mse")
    >>> optimizer.build(model.trainable_variables)
    >>> optimizer.ratios
    (0.01, 0.01, 0.1, 0.1, 1.0, 1.0)
    """

    def __init__(
        self, optimizer: keras.optimizers.Optimizer | str, ratios: Mapping | Sequence, name: str | None = None
    ):
        optimizer = keras.optimizers.get(optimizer)
        _check_optimizer(optimizer)
        rate = optimizer._learning_rate
        super().__init__(
            learning_rate=rate if callable(rate) else float(keras.ops.convert_to_numpy(rate)),
            name=name,
            **{taken: getattr(optimizer, taken) for taken in _TAKEN_OVER},
        )
        strategies = [getattr(each, "_distribution_strategy", None) for each in (optimizer, self)]
        if strategies[0] is not strategies[1]:
            raise ValueError(
                errors.explain(
                    "The optimizer and its wrapper were made under different distribution strategies.",
                    given=" and ".join(type(strategy).__name__ for strategy in strategies),
                    to_mend="make both within `strategy.scope()`",
                )
            )
        for taken in _TAKEN_OVER:
            setattr(optimizer, taken, None)
        self.optimizer = optimizer
        self.ratios = ratios_of.check(ratios)
        self._decays_at = None
        optimizer._iterations = self._iterations
        optimizer.learning_rate = self._rate_of_decay

    def __dir__(self) -> list[str]:
        # Keras' saving walks over dir(): it would write the slots, which stand in `variables`, a second time.
        return [name for name in super().__dir__() if name != "optimizer"]

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Makes the slots and states the ratio of each of `variables`, with the errors of the class."""
        if self.built:
            return
        ratios = ratios_of.resolve(self.ratios, variables)
        for variable, ratio in zip(variables, ratios, strict=True):
            if ratio == 0 and getattr(variable, "constraint", None) is not None:
                raise ValueError(
                    errors.explain(
                        "A variable of ratio 0 stands still, but its constraint would move it.",
                        given=variable.path,
                        to_mend="set `trainable = False` on its layer, or take the constraint off",
                    )
                )
        undecayed = ratios_of.undecayed(self.ratios, variables)
        if undecayed:
            self.exclude_from_weight_decay(var_list=undecayed)
        super().build(variables)
        made_before = {id(variable) for variable in self.optimizer.variables}
        with keras.name_scope(self.name, caller=self):
            self.optimizer.build(variables)
        for variable in self.optimizer.variables:
            if id(variable) not in made_before:
                self._track_variable(variable)
        # For the rule's count of steps; any earlier, and it would make accumulators of its own.
        self.optimizer.gradient_accumulation_steps = self.gradient_accumulation_steps
        self.ratios = ratios

    def ratio_of(self, variable: keras.Variable) -> float | None:
        """The ratio of a variable that this optimizer was built for; `None` for any other, and before `build`."""
        if not self.built or not any(variable is known for known in self._trainable_variables):
            return None
        return self.ratios[self._get_variable_index(variable)]

    @property
    def averages(self) -> list[tuple[keras.Variable, keras.Variable]]:
        """Each variable with its moving average; none without `use_ema`, and before `build`."""
        if not self.built or not self.use_ema:
            return []
        pairs = zip(self._trainable_variables, self._model_variables_moving_average, strict=True)
        return [(variable, average) for variable, average in pairs if average is not None]

    def apply(self, grads: Sequence, trainable_variables: Sequence | None = None) -> None:
        """Takes one step, as every Keras optimizer does; refuses what Keras gets wrong on several replicas."""
        replicas = getattr(getattr(self, "_distribution_strategy", None), "num_replicas_in_sync", 1)
        for name in _WRONG_ON_REPLICAS:
            if replicas > 1 and getattr(self, name):
                raise ValueError(
                    errors.explain(
                        f"`{name}` does not work on several replicas of one model.",
                        given=f"{name}={getattr(self, name)} on {replicas} replicas",
                        to_mend=f"leave `{name}` out, use one device, or `keras.distribution` on the JAX backend",
                    )
                )
        super().apply(grads, trainable_variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Moves one variable, at its own rate."""
        ratio = self.ratios[self._get_variable_index(variable)]
        if ratio > 0:
            self.optimizer.update_step(gradient, variable, _scaled(learning_rate, ratio))

    def _backend_update_step(self, grads: Sequence, trainable_variables: Sequence, learning_rate: Any) -> None:
        # Without variables, this is what the rule does once per step.
        self.optimizer._backend_update_step([], [], learning_rate)
        super()._backend_update_step(grads, trainable_variables, learning_rate)

    def _apply_weight_decay(self, variables: Sequence[keras.Variable]) -> None:
        groups: dict[float, list] = {}
        for variable in variables:
            groups.setdefault(self.ratios[self._get_variable_index(variable)], []).append(variable)
        self.optimizer.weight_decay = self.weight_decay
        # Asked once for all groups: each time a schedule is asked, all of it is traced, its branches too.
        rate = self.learning_rate
        try:
            for ratio, group in groups.items():
                if ratio > 0:
                    self._decays_at = _scaled(rate, ratio)
                    self.optimizer._apply_weight_decay(group)
        finally:
            self._decays_at = None

    def _rate_of_decay(self) -> Any:
        return self.learning_rate if self._decays_at is None else self._decays_at

    def _update_model_variables_moving_average(self, trainable_variables: Sequence[keras.Variable]) -> None:
        super()._update_model_variables_moving_average(trainable_variables)
        averages = self._model_variables_moving_average
        for ratio, variable, average in zip(self.ratios, trainable_variables, averages, strict=True):
            if ratio == 0 and average is not None:
                average.assign(variable)

    def exclude_from_weight_decay(
        self, var_list: Sequence[keras.Variable] | None = None, var_names: Sequence[str] | None = None
    ) -> None:
        """As on every Keras optimizer; here it is also kept when the model is saved."""
        self.optimizer.exclude_from_weight_decay(var_list, var_names)

    def get_config(self) -> dict:
        """One config within the other, each number in one of them. Before `build`, layers as keys cannot be written."""
        config = super().get_config()
        name = config.pop("name")
        optimizer = keras.saving.serialize_keras_object(self.optimizer)
        optimizer["config"].update(config)
        ratios = self.ratios
        if self.built:
            decays = [self.optimizer._use_weight_decay(variable) for variable in self._trainable_variables]
            ratios = ratios_of.rows(ratios, self._trainable_variables, decays)
        elif isinstance(ratios, Mapping) and not all(isinstance(key, str) for key in ratios):
            raise ValueError(
                errors.explain(
                    "Ratios given per layer can be saved only once the optimizer is built.",
                    given=f"ratios of {', '.join(map(ratios_of.name, ratios))}",
                    to_mend="call `optimizer.build(model.trainable_variables)` first",
                )
            )
        return {"name": name, "optimizer": optimizer, "ratios": ratios}

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> "LayerwiseOptimizer":
        """The reverse of `get_config`."""
        optimizer = keras.saving.deserialize_keras_object(config["optimizer"], custom_objects=custom_objects)
        return cls(**{**config, "optimizer": optimizer})


def _scaled(rate: Any, ratio: float) -> Any:
    return rate if ratio == 1 else keras.ops.multiply(rate, ratio)


def _check_optimizer(optimizer: Any) -> None:
    """Refuses what would not be exact: an optimizer with a way of its own to take a step, or with another user."""
    stock, kind, problem = keras.optimizers.Optimizer, type(optimizer), None
    if not isinstance(optimizer, stock):
        problem, to_mend = "This is not a Keras optimizer.", "give one, or its name: `keras.optimizers.AdamW(1e-3)`"
    elif isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        problem, to_mend = "A `LossScaleOptimizer` belongs around a `LayerwiseOptimizer`, not inside.", "swap the two"
    elif isinstance(optimizer, LayerwiseOptimizer):
        problem, to_mend = "A `LayerwiseOptimizer` cannot hold another.", "multiply the ratios, and use one"
    elif any(
        getattr(kind, name) is not getattr(stock, name)
        for name in ("apply", "_backend_apply_gradients", "_clip_gradients", "_backend_update_step")
        if (kind, name) != (keras.optimizers.Nadam, "_backend_update_step")
    ):
        problem = "This optimizer steps in a way of its own, and a ratio is not known to hold there."
        to_mend = "use one that is made of `build` and `update_step` alone, as Adam is"
    elif optimizer.built or isinstance(getattr(optimizer._learning_rate, "__self__", None), LayerwiseOptimizer):
        problem, to_mend = "This optimizer is in use already.", f"make a new one: `{kind.__name__}(...)`"
    if problem:
        raise ValueError(errors.explain(problem, given=kind.__name__, to_mend=to_mend))
