"""Features on a plane, to be looked at."""

import numpy as np

# Directions that are kept before the map is drawn; what lies beyond is mostly noise, and costs time.
DIRECTIONS = 50
# About how many neighbours a point keeps near.
NEIGHBOURS = 30


def unit(features: np.ndarray) -> np.ndarray:
    """Each row at length 1, float64: what two examples have in common is then their cosine. A row of zeros stays one.

    Example:

    >>> unit(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    features = np.asarray(features, "float64")
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.divide(features, lengths, out=np.zeros_like(features), where=lengths > 0)


def on_a_plane(features: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Places of examples on a map on which neighbours stay neighbours (t-SNE: van der Maaten and Hinton 2008).

    It is for looking at. Distances between groups, their sizes and how dense they are mean nothing on it.

    Args:
        features: shape (examples, numbers), for instance of `kt.embed`.
        seed: of the map. Another one gives another map, as right as this one.

    Returns:
        float64 of shape (examples, 2). Fewer than 8 examples, which have no neighbourhoods, lie by their two main
        directions.

    Example:

    >>> two = np.repeat([[9.0, 0.0, 1.0], [0.0, 9.0, 1.0]], 20, axis=0) + np.random.default_rng(0).normal(size=(40, 3))
    >>> places = on_a_plane(two)
    >>> means = places[:20].mean(axis=0), places[20:].mean(axis=0)
    >>> places.shape, bool(np.linalg.norm(means[0] - means[1]) > places[:20].std())
    ((40, 2), True)
    """
    features = unit(features)
    main = _main_directions(features, DIRECTIONS)
    if len(main) < 8:
        return np.pad(main[:, :2], ((0, 0), (0, 2 - min(2, main.shape[1]))))
    from sklearn.manifold import TSNE

    perplexity = min(NEIGHBOURS, (len(main) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(main).astype("float64")


def _main_directions(features: np.ndarray, count: int) -> np.ndarray:
    """The examples by the directions in which they vary most."""
    left, lengths, _ = np.linalg.svd(features - features.mean(axis=0), full_matrices=False)
    return left[:, :count] * lengths[:count]
