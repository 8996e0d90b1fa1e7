"""How far two domains lie apart in the features that a head reads: no labels are needed."""

import dataclasses

import numpy as np

# More examples of a domain than this say no more, and make it slow.
MOST_EXAMPLES = 2_000
PARTS = 4


@dataclasses.dataclass(frozen=True)
class Gap:
    """What lies between the features of two domains.

    Attributes:
        means: how far the means lie apart, in spreads (root mean square over the features).
        covariances: the CORAL distance of features in units of the source's spread, times 4: the mean square difference
            of two entries of the covariances.
        proxy_a: the proxy A-distance 2 (1 - 2 error) of Ben-David et al. (2010), with the cross-validated error of
            logistic regression in telling the domains apart: 0 where they cannot be told, 2 where they always can.

    Example:

    >>> draw = np.random.default_rng(0).normal(size=(3, 200, 4))
    >>> near, far = gap(draw[0], draw[1]), gap(draw[0], draw[2] + 9)
    >>> near.means < 0.2, far.means > 8, near.proxy_a < 0.5, far.proxy_a
    (True, True, True, 2.0)
    """

    means: float
    covariances: float
    proxy_a: float

    def __str__(self) -> str:
        return (
            f"means {self.means:.2f} spreads apart, covariances {self.covariances:.3g}, "
            f"proxy A-distance {self.proxy_a:.2f} of 2"
        )


def gap(source: np.ndarray, target: np.ndarray, *, seed: int = 0) -> Gap:
    """What lies between two domains.

    Args:
        source: features, shape (examples, features).
        target: likewise.
        seed: of which examples are taken where there are more than 2,000, and of the parts of the cross-validation.
    """
    source, target = (features[some(len(features), seed)].astype("float64") for features in (source, target))
    spread = np.sqrt(source.var(axis=0) / 2 + target.var(axis=0) / 2)
    spread = np.where(spread > 0, spread, 1.0)
    means = np.sqrt(np.mean(((source.mean(0) - target.mean(0)) / spread) ** 2))
    usual = np.sqrt(source.var(axis=0).mean()) or 1.0
    return Gap(float(means), 4 * covariance_distance(source / usual, target / usual), _proxy_a(source, target, seed))


def covariance_distance(source: np.ndarray, target: np.ndarray) -> float:
    """The CORAL distance of all examples, as `coral_distance` has it for a batch.

    Example:

    >>> covariance_distance(np.array([[0.0], [2.0]]), np.array([[0.0], [4.0]]))
    9.0
    """
    difference = np.atleast_2d(np.cov(source, rowvar=False)) - np.atleast_2d(np.cov(target, rowvar=False))
    return float(np.sum(difference**2) / (4 * len(difference) ** 2))


def _proxy_a(source: np.ndarray, target: np.ndarray, seed: int) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    domains = np.repeat([0, 1], [len(source), len(target)])
    parts = min(PARTS, len(source), len(target))
    if parts < 2:
        return float("nan")
    telling = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=300))
    folds = StratifiedKFold(parts, shuffle=True, random_state=seed)
    features = np.concatenate([source, target])
    # Balanced: with many of one domain, a classifier that always says so would seem to tell them apart.
    right = cross_val_score(telling, features, domains, cv=folds, scoring="balanced_accuracy").mean()
    return float(np.clip(2 * (1 - 2 * (1 - right)), 0.0, 2.0))


def some(count: int, seed: int) -> np.ndarray:
    """The numbers of all examples, in order; of 2,000 drawn at random where there are more.

    Example:

    >>> some(3, seed=0).tolist(), len(some(5_000, seed=0))
    ([0, 1, 2], 2000)
    """
    return np.sort(np.random.default_rng(seed).permutation(count)[:MOST_EXAMPLES])
