"""What a classifier hands out, logits or probabilities, for how many classes, and the loss that knows it."""

import keras

from keras_transfer.card import class_names
from keras_transfer.errors import explain


def gives_logits(model: keras.Model) -> bool:
    """Whether the model's output is logits: its last layer with an activation has none that squashes."""
    for layer in reversed(model.layers):
        if isinstance(layer, keras.layers.Softmax):
            return False
        activation = getattr(layer, "activation", None)
        if activation is not None:
            return activation not in (keras.activations.softmax, keras.activations.sigmoid)
    return True


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
