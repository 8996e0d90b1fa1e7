"""Sharpness-aware minimisation (SAM; Foret, Kleiner, Mobahi and Neyshabur 2021, arXiv:2010.01412).

Each step descends by the gradient that is found a little uphill: at `w + radius · g / |g|`, where `g` is the gradient
at the weights `w` themselves. So it goes towards places around which the loss is low as well, and not at them alone. It
takes two passes, forward and backward, where other training takes one.

Both passes see the same dropout. What a step leaves behind beside the weights (moving statistics, the loss and accuracy
that are reported) is of the first pass, at the weights that the model has.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras

from keras_transfer.errors import explain


@contextlib.contextmanager
def sharpness_aware(model: keras.Model, radius: float) -> Iterator[None]:
    """Lets `model.fit` minimise sharpness as well, for the time being.

    Args:
        model: compiled before or within. What had been traced of its steps is traced anew, here and afterwards.
        radius: how far uphill, as the length of all changes to the weights together; with 0 training is as always.

    Raises:
        ValueError: as `check_sharpness_aware`: on a backend other than TensorFlow and JAX, for a model that takes steps
            of its own, and on several replicas of one model.
    """
    if not radius:
        yield
        return
    check_sharpness_aware(model)
    name, step = _STEPS[keras.backend.backend()]
    setattr(model, name, step(model, radius))
    model.train_function = None
    try:
        yield
    finally:
        delattr(model, name)
        model.train_function = None


def uphill(weights: Sequence[Any], gradients: Sequence[Any], radius: float) -> list[Any]:
    """The weights moved by `radius` along their gradient, all of them together; those without a gradient stay.

    Example:

    >>> array = keras.ops.array
    >>> moved = uphill([array([1.0, 3.0]), array([2.0])], [array([3.0, -4.0]), None], radius=5.0)
    >>> [keras.ops.convert_to_numpy(weight).tolist() for weight in moved]
    [[4.0, -1.0], [2.0]]
    """
    ops = keras.ops
    known = [None if gradient is None else ops.cast(gradient, "float32") for gradient in gradients]
    norm = ops.sqrt(sum(ops.sum(ops.square(gradient)) for gradient in known if gradient is not None))
    share = radius / ops.maximum(norm, 1e-12)
    return [
        weight if gradient is None else ops.add(weight, ops.cast(share * gradient, ops.dtype(weight)))
        for weight, gradient in zip(weights, known, strict=True)
    ]


def _on_tensorflow(model: keras.Model, radius: float) -> Callable:
    """What takes the place of `model.train_step`."""
    import tensorflow as tf

    # As Keras does: a `compute_loss` of the time before it was told need not know of training.
    is_told = "training" in inspect.signature(model.compute_loss).parameters
    told = {"training": True} if is_told else {}

    def look(x: Any, y: Any, sample_weight: Any) -> tuple:
        with tf.GradientTape() as tape:
            y_pred = model(x, training=True)
            loss = model.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, **told)
            scaled = model.optimizer.scale_loss(loss)
        return tape.gradient(scaled, [variable.value for variable in model.trainable_variables]), loss, y_pred

    def values(variables: Sequence[keras.Variable]) -> list[tf.Tensor]:
        return [tf.identity(variable.value) for variable in variables]

    def put(variables: Sequence[keras.Variable], given: Sequence[tf.Tensor]) -> None:
        for variable, value in zip(variables, given, strict=True):
            variable.assign(value)

    def train_step(data: Any) -> dict[str, Any]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        trained, others = model.trainable_variables, model.non_trainable_variables
        began = values(others)
        gradients, loss, y_pred = look(x, y, sample_weight)
        here, passed = values(trained), values(others)
        # Of an embedding they are single rows, and one that is there twice counts as their sum.
        whole = [None if gradient is None else tf.convert_to_tensor(gradient) for gradient in gradients]
        # Put into the variables: a layer that is computed anew for its gradient has none for tensors in their place.
        put(trained, uphill(here, _of_weights(trained, whole), radius))
        put(others, began)
        gradients, _, _ = look(x, y, sample_weight)
        put(trained, here)
        put(others, passed)
        model.optimizer.apply(gradients, trained)
        mean_loss = next(metric for metric in model.metrics if metric.name == "loss")  # the model's own is the first
        examples = next(part for part in keras.tree.flatten(x) if part is not None)
        mean_loss.update_state(loss, sample_weight=tf.shape(examples)[0])
        return model.compute_metrics(x, y, y_pred, sample_weight)

    return train_step


def _on_jax(model: keras.Model, radius: float) -> Callable:
    """What takes the place of `model.compute_loss_and_updates`, of which Keras' step takes the gradient."""
    import jax

    look = model.compute_loss_and_updates

    def compute_loss_and_updates(weights: Sequence[Any], *arguments: Any, training: bool = False, **options: Any):
        options["training"] = training
        if not training:
            return look(weights, *arguments, **options)
        here = [jax.lax.stop_gradient(weight) for weight in weights]
        (_, updates), gradients = jax.value_and_grad(look, has_aux=True)(here, *arguments, **options)
        gradients = _of_weights(model.trainable_variables, map(jax.lax.stop_gradient, gradients))
        loss, _ = look(uphill(weights, gradients, radius), *arguments, **options)
        return loss, updates

    return compute_loss_and_updates


def _of_weights(variables: Sequence[keras.Variable], gradients: Iterable[Any]) -> list[Any]:
    """The gradients, none for a variable of float8 that takes what stands in its gradient's place as its value."""
    return [
        None if variable.overwrite_with_gradient else gradient
        for variable, gradient in zip(variables, gradients, strict=True)
    ]


_STEPS = {"tensorflow": ("train_step", _on_tensorflow), "jax": ("compute_loss_and_updates", _on_jax)}


def check_sharpness_aware(model: keras.Model) -> None:
    """Raises a `ValueError` for what `sharpness_aware` does not work on."""
    backend = keras.backend.backend()
    if backend not in _STEPS:
        raise ValueError(
            explain(
                "Sharpness-aware minimisation needs a step of its own for every backend.",
                given=backend,
                expected="tensorflow or jax",
                to_mend="leave `sam` out: sam=0.0",
            )
        )
    parts = dict.fromkeys(("train_step", _STEPS[backend][0]))
    own = [name for name in parts if getattr(type(model), name) is not getattr(keras.Model, name)]
    if own:
        raise ValueError(
            explain(
                "This model takes training steps of its own, and a sharpness-aware step would take their place.",
                given=" and ".join(f"{type(model).__name__}.{name}" for name in own),
                to_mend="leave `sam` out: sam=0.0",
            )
        )
    # TensorFlow alone has a strategy, and replicas that each would climb by themselves.
    replicas = getattr(getattr(model, "distribute_strategy", None), "num_replicas_in_sync", 1)
    if replicas > 1:
        raise ValueError(
            explain(
                "Sharpness-aware minimisation does not work on several replicas of one model.",
                given=f"{replicas} replicas",
                to_mend="sam=0.0, one device, or `keras.distribution` on the JAX backend",
            )
        )
