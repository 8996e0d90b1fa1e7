"""Looks at every byte of a data set before training: what is broken, and a fingerprint of what is not."""

import concurrent.futures
import dataclasses
import os
from collections.abc import Iterable

from keras_transfer.data.examples import Examples
from keras_transfer.errors import explain
from keras_transfer.formatting import counted


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something in a data set that cannot be trained on as it is: where it is, and what is wrong with it."""

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def scan(examples: Examples) -> tuple[list[bytes], dict[int, Problem]]:
    """The SHA-256 of every example's content, and the problem of each that has one, by its number.

    Every byte is read and decoded once, on all processors; memory does not grow with the size of the examples.
    """
    digests: list[bytes] = []
    problems: dict[int, Problem] = {}
    with concurrent.futures.ThreadPoolExecutor(processors()) as pool:
        # `map` would queue a future for each of millions of files at once.
        for start in range(0, len(examples), 4096):
            numbers = range(start, min(start + 4096, len(examples)))
            for number, (digest, reason) in zip(numbers, pool.map(examples.inspect, numbers), strict=True):
                digests.append(digest)
                if reason is not None:
                    problems[number] = Problem(examples.describe(number), reason)
    return digests, problems


def refuse(problems: Iterable[Problem], *, to_mend: str, noun: str = "example") -> None:
    """Raises one error that lists every problem, if there is any.

    Raises:
        ValueError: there is a problem.

    Example:

    >>> refuse([], to_mend="nothing to do")
    """
    listed = [str(problem) for problem in problems]
    if listed:
        raise ValueError(
            explain(
                f"The data has {counted(len(listed), 'problem')}.",
                given="\n".join(listed),
                expected=f"{noun}s that can be read to their end, and every class in every split",
                to_mend=to_mend,
            )
        )
