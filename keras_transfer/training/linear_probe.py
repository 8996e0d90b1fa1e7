"""The head that is best on the features as they are, found at once instead of by steps."""

from collections.abc import Mapping

import keras
import numpy as np

from keras_transfer.backbones.blocks import blocks
from keras_transfer.backbones.cut import InputsOf
from keras_transfer.data.splits import Batches
from keras_transfer.errors import explain

# More examples than this say no more about a linear head, and make the solution slow.
MOST_EXAMPLES = 20_000
# How far the probe may follow the examples (scikit-learn's C), the best of these under cross-validation …
STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
# … on so many examples at most, in so many parts.
MOST_TO_CHOOSE_ON, PARTS = 2_000, 4


def start_from_probe(
    model: keras.Model, splits: Batches, *, seed: int, class_weight: Mapping[int, float] | None = None
) -> None:
    """Puts logistic regression on the frozen features into the head.

    Fine-tuning from a fitted head distorts the features less than from a random one (linear probing, then fine-tuning:
    Kumar et al. 2022, arXiv:2202.10054), and a few epochs of steps do not fit one: a hundred pictures make four steps
    an epoch. The problem is convex, so it is solved: L2-regularised, as strongly as gives the lowest loss under
    cross-validation. A head that is fitted more closely than that has no loss left on the training examples, and hands
    nothing down to the body that is to learn from it.

    Args:
        model: a classifier whose head is one `Dense` layer with a bias.
        splits: the data; its training examples are used as they are, without augmentation.
        seed: of which examples are taken where there are more than 20,000.
        class_weight: the weight of each class by its number.

    Raises:
        ValueError: if the head is no single `Dense` layer.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    dense = linear_head(model)
    batches = splits.evaluation_batches(splits.train, model, in_order=False)
    features = np.asarray(InputsOf(model, dense).predict(batches, verbose=0), "float64")
    labels = splits.train.labels[splits.evaluation_order(splits.train, model)]
    if len(labels) > MOST_EXAMPLES:
        chosen = _some(labels, MOST_EXAMPLES, seed)
        features, labels = features[chosen], labels[chosen]
    scale = np.sqrt(np.mean(features**2)) or 1.0
    weights = dict(class_weight) if class_weight else None
    # Beside the threads of a backend those of BLAS wait for each other: ten times the time, for matrices this small.
    with threadpool_limits(1, user_api="blas"):
        features, directions = _rotated(features / scale)
        strength = _strength(features, labels, weights, seed)
        solved = LogisticRegression(C=strength, max_iter=1000, class_weight=weights).fit(features, labels)
        kernel, bias = directions @ solved.coef_.T / scale, solved.intercept_
    if len(solved.classes_) == 2:  # one row, the log odds of the second class: half to each side
        kernel, bias = np.hstack([-kernel, kernel]) / 2, np.hstack([-bias, bias]) / 2
    dense.kernel.assign(kernel.astype("float32"))
    dense.bias.assign(bias.astype("float32"))


def _some(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The numbers of `count` examples drawn at random, at least one of each class.

    Example:

    >>> labels = np.array([0] * 99 + [1])
    >>> labels[_some(labels, 2, seed=0)].tolist()
    [0, 1]
    """
    drawn = np.random.default_rng(seed).permutation(len(labels))
    _, first = np.unique(labels[drawn], return_index=True)
    return drawn[np.concatenate([first, np.setdiff1d(np.arange(len(drawn)), first)])[:count]]


def _rotated(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same examples in as many directions as they span, and those directions, as the columns of a matrix.

    The kernel of a head that is drawn towards zero is a sum of the examples' features, so nothing is lost; with fewer
    examples than features, which is what transfer is about, the problem becomes several times smaller.

    Example:

    >>> features = np.array([[3.0, 0.0, 4.0]])
    >>> rotated, directions = _rotated(features)
    >>> rotated.shape, bool(np.allclose(rotated @ directions.T, features))
    ((1, 1), True)
    """
    examples, width = features.shape
    if examples >= width:
        return features, np.eye(width)
    directions, triangle = np.linalg.qr(features.T)
    return triangle.T, directions


def _strength(features: np.ndarray, labels: np.ndarray, weights: dict[int, float] | None, seed: int) -> float:
    """The C with the lowest log loss on held-out parts; the middle one where a class cannot be divided."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    chosen = _some(labels, MOST_TO_CHOOSE_ON, seed)
    features, labels = features[chosen], labels[chosen]
    parts = min(PARTS, int(np.unique(labels, return_counts=True)[1].min()))
    if parts < 2:
        return STRENGTHS[len(STRENGTHS) // 2]
    folds = StratifiedKFold(parts, shuffle=True, random_state=seed)
    losses = np.zeros(len(STRENGTHS))
    for seen, held_out in folds.split(features, labels):
        # From weak to strong, each from where the one before it ended: a third of the time.
        probe = LogisticRegression(max_iter=300, tol=1e-3, class_weight=weights, warm_start=True)
        for place, strength in enumerate(STRENGTHS):
            probe.set_params(C=strength).fit(features[seen], labels[seen])
            columns = np.searchsorted(probe.classes_, labels[held_out])
            losses[place] -= np.mean(probe.predict_log_proba(features[held_out])[np.arange(len(held_out)), columns])
    return STRENGTHS[int(losses.argmin())]


def linear_head(model: keras.Model) -> keras.layers.Dense:
    """The layer that a probe is put into.

    Raises:
        ValueError: where the head is no single `Dense` layer with a bias.
    """
    head = blocks(model).head
    weighted = [layer for layer in head.layers if layer.weights] if head else []
    if len(weighted) != 1 or not isinstance(weighted[0], keras.layers.Dense) or not weighted[0].use_bias:
        raise ValueError(
            explain(
                "A stage is to start from a linear probe, and the head is not linear.",
                given=", ".join(f"{type(layer).__name__} {layer.name!r}" for layer in weighted) or "no head",
                expected="one Dense layer with a bias",
                to_mend='give the stage start="pretrained", to train the head from where it is',
            )
        )
    return weighted[0]
