"""Several models in one process, one after another: what TensorFlow takes for one that is traced again and again."""

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def one_after_another() -> Iterator[None]:
    """Within it TensorFlow does not warn of retracing.

    It counts traces by the code of a function, and the steps of all Keras models have the same code: of the fifth
    candidate or run it says that tracing is expensive, and advises what a user cannot follow. Its other warnings come
    through.

    Example:

    >>> with one_after_another():
    ...     logging.getLogger("tensorflow").warning("5 of the last 5 calls to <step> triggered tf.function retracing")
    """
    logger, beside_retracing = logging.getLogger("tensorflow"), _BesideRetracing()
    logger.addFilter(beside_retracing)
    try:
        yield
    finally:
        logger.removeFilter(beside_retracing)


class _BesideRetracing(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return "triggered tf.function retracing" not in record.getMessage()
