"""What a number is, and a seed: kinds of arguments that every step refuses in the same way."""

import math
import numbers

from keras_transfer.errors import explain

# Keras and scikit-learn take no larger seed, and the folds are drawn with this one and the two after it.
MOST_SEED = 2**32 - 3


def is_number(given: object) -> bool:
    """Whether it is a real number, of Python's or NumPy's, and finite; `True` is none.

    Example:

    >>> [is_number(given) for given in (1, 0.5, True, "0.5", float("nan"), float("inf"))]
    [True, True, False, False, False, False]
    """
    return isinstance(given, numbers.Real) and not isinstance(given, bool) and math.isfinite(given)


def is_whole(given: object) -> bool:
    """Whether it is a whole number, of Python's or NumPy's; `True` is none.

    Example:

    >>> [is_whole(given) for given in (1, 1.0, True)]
    [True, False, False]
    """
    return isinstance(given, numbers.Integral) and not isinstance(given, bool)


def check_seed(seed: object) -> None:
    """Raises a `ValueError` for what is no seed.

    Example:

    >>> check_seed(7)
    """
    if not is_whole(seed) or not 0 <= seed <= MOST_SEED:
        raise ValueError(
            explain(
                "`seed` is no seed.",
                given=repr(seed),
                expected=f"a whole number from 0 to {MOST_SEED:,}",
                to_mend="seed=0",
            )
        )
