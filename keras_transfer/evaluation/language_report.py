"""How well a language model foretells one split's texts: perplexity, and what it cost to get there."""

import dataclasses
import json
import math
from typing import Self

from keras_transfer.errors import explain
from keras_transfer.evaluation.cost import Cost
from keras_transfer.evaluation.report import SPLIT_WORDS
from keras_transfer.formatting import percent

FORMAT = "keras_transfer.language_report"


@dataclasses.dataclass(frozen=True)
class LanguageReport:
    """How well a language model foretells each next token of one split.

    Attributes:
        split: the split it was measured on: `"test"`, or `"validation"` where there was no test split.
        cross_entropy: mean over the tokens of minus the log of the probability that each was given, in nats.
        accuracy: the share of the tokens that the model held for the likeliest.
        examples: rows of the split.
        cost: what training cost, or `None`.

    Example:

    >>> print(LanguageReport("test", cross_entropy=2.0, accuracy=0.5, examples=40))
    test: perplexity 7.39 (2.000 nats a token), next token right 50.0 %, on 40 examples
    """

    split: str
    cross_entropy: float
    accuracy: float
    examples: int
    cost: Cost | None = None

    def __post_init__(self):
        if not (math.isfinite(self.cross_entropy) and self.cross_entropy >= 0 and 0 <= self.accuracy <= 1):
            raise ValueError(
                explain(
                    "These are no results of a language model.",
                    given=f"cross_entropy={self.cross_entropy}, accuracy={self.accuracy}",
                    expected="a cross-entropy of at least 0 and an accuracy from 0 to 1",
                )
            )

    @property
    def perplexity(self) -> float:
        """e to the cross-entropy: among how many equally likely tokens the model is as good as lost."""
        return math.exp(self.cross_entropy)

    def to_json(self) -> str:
        """The report as JSON text."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self), "perplexity": self.perplexity}, indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads what `to_json` wrote.

        Raises:
            ValueError: if the text is no such report.
        """
        try:
            parts = json.loads(text)
            if parts.pop("format") != FORMAT:
                raise ValueError("another format")
            del parts["perplexity"]
            cost = parts.pop("cost")
            return cls(**parts, cost=None if cost is None else Cost.from_dict(cost))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                explain(
                    "This is no report on a language model.",
                    given=f"{text[:60]!r} ({type(error).__name__}: {error})",
                    expected="the text that `LanguageReport.to_json()` gave",
                )
            ) from error

    def __str__(self) -> str:
        lines = [
            f"{self.split}: perplexity {self.perplexity:.2f} ({self.cross_entropy:.3f} nats a token), "
            f"next token right {percent(self.accuracy)}, on {self.examples} examples"
        ]
        lines += [SPLIT_WORDS[self.split]] if self.split in SPLIT_WORDS else []
        lines += ["", str(self.cost)] if self.cost else []
        return "\n".join(lines)
