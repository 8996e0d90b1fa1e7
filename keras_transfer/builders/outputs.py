"""What a classifier hands out, logits or probabilities, for how many classes, and the loss that knows it."""

from typing import Literal

import keras
import numpy as np

from keras_transfer.backbones import graph
from keras_transfer.card import class_names
from keras_transfer.errors import explain

Kind = Literal["logits", "probabilities", "shares"]
# What hands on the values that it is given, in training or in use; a mean is what its members are.
_HANDING_ON = ("Dropout", "Identity", "Flatten", "Reshape", "ActivityRegularization", "Squeeze", "Cast", "Average")


def gives_logits(model: keras.Model) -> bool:
    """Whether the model's output is logits, and no probabilities.

    Example:

    >>> pixels = keras.Input((4,))
    >>> scores = keras.layers.Dense(2)(pixels)
    >>> [gives_logits(keras.Model(pixels, each)) for each in (scores, keras.ops.softmax(scores))]
    [True, False]
    """
    return kind_of_outputs(model) != "probabilities"


def kind_of_outputs(model: keras.Model) -> Kind:
    """What the last operation that changes values makes of them: nested models are opened.

    Returns:
        `"probabilities"` that sum to 1, `"shares"` between 0 and 1 that do not (of a sigmoid), or `"logits"`, which is
        also what is said of a model without a graph.
    """
    if not graph.has_graph(model):
        return "logits"
    makers = {id(tensor): step for step in graph.steps(model) for tensor in step.outputs}
    step = makers.get(id(model.outputs[0]))
    while step is not None:
        operation = step.operation
        if graph.has_graph(operation):
            return kind_of_outputs(operation)
        kind = _kind_of(operation)
        if kind is not None:
            return kind
        step = makers.get(id(step.inputs[0]))
    return "logits"


def _kind_of(operation: keras.Operation) -> Kind | None:
    """What an operation makes of any values; `None` where it hands on what it is given."""
    name = type(operation).__name__
    if name in _HANDING_ON:
        return None
    if name in ("Softmax", "Sigmoid"):  # as a layer, and as a call of `keras.ops`
        return "probabilities" if name == "Softmax" else "shares"
    activation = getattr(operation, "activation", None)
    if not callable(activation):
        return "logits"
    given = np.array([[-1.0, 2.0, 4.0]], "float32")
    made = keras.ops.convert_to_numpy(activation(keras.ops.convert_to_tensor(given)))
    if isinstance(operation, keras.layers.Activation) and np.array_equal(made, given):
        return None
    if made.min() < 0 or made.max() > 1:
        return "logits"
    return "probabilities" if abs(made.sum() - 1) < 1e-3 else "shares"


def check_is_classifier(model: keras.Model) -> None:
    """Raises a `ValueError` where a model does not hand out what it thinks of each of several classes.

    Example:

    >>> pixels = keras.Input((4,))
    >>> check_is_classifier(keras.Model(pixels, keras.layers.Dense(2)(pixels)))
    """
    shapes = [tuple(output.shape) for output in getattr(model, "outputs", None) or ()]
    if len(shapes) != 1 or len(shapes[0]) != 2 or (shapes[0][1] or 0) < 2:
        raise ValueError(
            explain(
                f"{model.name} is no classifier of one class of several.",
                given=f"outputs of shape {', '.join(map(str, shapes))}"
                if shapes
                else f"{type(model).__name__}, no graph",
                expected="one output of shape (batch, classes), of two classes at least",
                to_mend=_to_mend(model, shapes),
            )
        )
    check_outputs(model)


def _to_mend(model: keras.Model, shapes: list[tuple[int | None, ...]]) -> str:
    if not shapes:
        return "build it as keras.Model(inputs, outputs)"
    if hasattr(model, "generate"):
        return "model.generate(…), for what writes text"
    if len(shapes) > 1:
        return "keras.Model(model.inputs, model.outputs[0]), of the output that is meant"
    if len(shapes[0]) == 2:
        return "keras.layers.Dense(2): a logit for each of two classes"
    return "kt.image_classifier(model, classes), for a body without a head"


def check_outputs(model: keras.Model) -> None:
    """Raises a `ValueError` where no loss and no prediction of one class of several fits what the model hands out."""
    if kind_of_outputs(model) == "shares":
        raise ValueError(
            explain(
                f"The outputs of {model.name} are neither logits nor probabilities of one class of several.",
                given="numbers between 0 and 1, as of a sigmoid, that do not sum to 1",
                expected="logits, or a softmax at the end",
                to_mend="keras.layers.Dense(classes), without an activation",
            )
        )


def compile_as_classifier(model: keras.Model) -> None:
    """Compiles with stock parts that are right for integer labels: plain `fit` and `save` work as on any model."""
    model.compile(
        optimizer=keras.optimizers.Adam(1e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=gives_logits(model)),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )


def check_classes(model: keras.Model, classes) -> None:
    """Raises a `ValueError` where the model's outputs are not the classes of the data."""
    outputs = model.output_shape[-1]
    if outputs != len(classes):
        raise ValueError(
            explain(
                "The model has other classes than the data.",
                given=f"{outputs} outputs",
                expected=f"{len(classes)}: {', '.join(classes)}",
                to_mend="build the model with `splits.classes`",
            )
        )
    names = class_names(model)
    # Names that only count, as builders give them where they are told a number, say nothing about the data's.
    if names and names != tuple(classes) and names != tuple(map(str, range(outputs))):
        raise ValueError(
            explain(
                "The model has other classes than the data, or has them in another order.",
                given=", ".join(names),
                expected=", ".join(classes),
                to_mend="build the model with `splits.classes`",
            )
        )
