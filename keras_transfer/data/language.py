"""Texts without labels, for language models: whole documents cut into windows, and prompts with their responses."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_transfer.data.dividing import check_settings, divided
from keras_transfer.data.examples import PairExamples
from keras_transfer.data.model_inputs import require_targets
from keras_transfer.data.packing import Packed, pack, pack_pairs, pack_whole
from keras_transfer.data.preprocessors import reads_and_writes
from keras_transfer.data.splits import Divided, Split
from keras_transfer.data.tables import pair_table
from keras_transfer.data.text_reading import read_pairs
from keras_transfer.data.token_splits import TokenSplits
from keras_transfer.errors import explain


class CorpusSplits(TokenSplits):
    """Documents for training, validation and test of a language model; a row is a window of one of them.

    A document's tokens are cut one after another into rows of `max_length`, nothing left out; what is left at its end
    is a shorter row. How many rows there are depends on the model, which makes the tokens.
    """

    def steps_per_epoch(self, model: Any = None) -> int:
        """How many batches go through the training set once; the last one may be smaller.

        Raises:
            ValueError: no model is given, whose tokens are to be counted.
        """
        if model is None:
            raise ValueError(
                explain(
                    "How many windows the texts have depends on the model that reads them.",
                    given="no model",
                    to_mend="splits.steps_per_epoch(model)",
                )
            )
        return -(-len(self.packed(self.train, model)) // self.batch_size)

    def _most_rows(self) -> int | None:
        return None

    def _pack(self, preprocessor: keras.Layer, split: Split, max_length: int) -> Packed:
        return require_targets(preprocessor, pack_whole(preprocessor, split.examples.texts, max_length))

    def _text(self, split: Split, number: int) -> str:
        return split.examples.texts[number]


class PromptSplits(TokenSplits):
    """Prompts and responses for training, validation and test of a language model: the loss is on the response only.

    Attributes:
        separator: what stands between prompt and response; it belongs to the prompt. A model that reads one text and
            writes another needs none.
    """

    def __init__(
        self,
        parts: Divided,
        *,
        separator: str,
        batch_size: int,
        max_length: int | None,
        buckets: Sequence[int] | None,
        seed: int,
    ) -> None:
        super().__init__(parts, batch_size=batch_size, max_length=max_length, buckets=buckets, seed=seed)
        self.separator = separator

    @property
    def settings(self) -> dict[str, Any]:
        """As of all texts, and what stands between prompt and response."""
        return {**super().settings, "separator": self.separator}

    def _pack(self, preprocessor: keras.Layer, split: Split, max_length: int) -> Packed:
        if reads_and_writes(preprocessor):
            return pack_pairs(preprocessor, split.examples.prompts, split.examples.responses, max_length)
        whole = [self._text(split, number) for number in range(len(split))]
        prompts = [self._before_response(prompt) for prompt in split.examples.prompts]
        packed = require_targets(preprocessor, pack(preprocessor, whole, max_length))
        alone = pack(preprocessor, prompts, max_length)
        weights = np.array(packed.targets["sample_weight"])
        for row in range(len(packed)):
            start = packed.offsets[row]
            weights[start : start + _in_common(_next_tokens(packed, row), _next_tokens(alone, row))] = 0
        _check_responses_left(split, packed, weights)
        return dataclasses.replace(packed, targets={**packed.targets, "sample_weight": weights})

    def _text(self, split: Split, number: int) -> str:
        return self._before_response(split.examples.prompts[number]) + split.examples.responses[number]

    def _before_response(self, prompt: str) -> str:
        return prompt + self.separator if prompt else ""  # a picture may have none


def _next_tokens(packed: Packed, row: int) -> np.ndarray:
    """The tokens of a row but the first, as they are to be learnt."""
    place = slice(packed.offsets[row], packed.offsets[row + 1])
    return packed.targets["y"][place][packed.targets["sample_weight"][place].astype(bool)]


def _in_common(tokens: np.ndarray, prompt: np.ndarray) -> int:
    """How many tokens a row begins with that are its prompt's alone; one that reaches into the response is none.

    Example:

    >>> _in_common(np.array([4, 5, 6, 9, 2]), np.array([4, 5, 7, 2]))
    2
    """
    shorter = min(len(tokens), len(prompt))
    differ = np.flatnonzero(tokens[:shorter] != prompt[:shorter])
    return int(differ[0]) if len(differ) else shorter


def _check_responses_left(split: Split, packed: Packed, weights: np.ndarray) -> None:
    left = np.add.reduceat(weights.astype(np.int64), packed.offsets[:-1])
    lost = np.flatnonzero(left == 0)
    if len(lost):
        shown = [split.describe(int(number)) for number in lost[:20]]
        raise ValueError(
            explain(
                f"{len(lost)} prompts of {split.name} leave no room for their response.",
                given="\n".join(shown + ["…"] * (len(lost) > 20)),
                expected=f"fewer than {packed.max_length} tokens in a prompt",
                to_mend="shorten them or leave them out, or build the model with a greater max_length",
            )
        )


def prompts(
    source: Any,
    *,
    prompt: str | None = None,
    response: str | None = None,
    separator: str = "\n",
    batch_size: int = 32,
    max_length: int | None = None,
    buckets: Sequence[int] | None = None,
    validation: float = 0.2,
    test: float = 0.0,
    seed: int = 0,
    on_bad_rows: str = "error",
) -> PromptSplits:
    """Prompts and responses for a language model, which learns to write the responses and not the prompts.

    A row is prompt, separator and response, read as the model reads any text; the tokens up to the response have no
    weight in the loss. A model of `kt.seq2seq_lm` reads the prompt alone, and writes the response.

    Args:
        source: one of
            - a TSV file, which is read without quoting, or a CSV file, with a column of prompts and one of responses;
            - a folder of such tables, `train.tsv`, `val.tsv` and `test.tsv`;
            - a pair (prompts, responses) of lists;
            - a mapping of split name to any of these: `{"train": …, "test": …}`.
        prompt: the column of the prompts, if it is not called so.
        response: the column of the responses, if it is not called so.
        separator: what stands between the two, where the model reads both as one text.
        batch_size: rows per step.
        max_length: cuts rows to so many tokens, special ones included; the model's own length if not given.
        buckets: the lengths to pad to, in tokens; eight that need the least padding if not given.
        validation: the part that is taken off train where the source has no validation split, or 0.
        test: the part that is taken off before, where the source has no test split.
        seed: what is held out and the order of the epochs are functions of it.
        on_bad_rows: `"error"` refuses the data if any row is bad; `"skip"` leaves those out and says so.

    Raises:
        ValueError: the data cannot be trained on as it is; every problem is listed, with its line.

    Example:

    >>> sums = prompts((["1 + 1 =", "2 + 2 =", "3 + 3 ="], ["2", "4", "6"]), separator=" ", batch_size=2)
    >>> sums.peek(sums.train, [0]).tolist()
    ['1 + 1 = 2']
    """
    check_settings(validation, test, seed, on_bad_rows, "on_bad_rows")
    table = functools.partial(pair_table, prompt=prompt, response=response)
    parts = divided(
        read_pairs(source, ("prompt", "response"), table=table, lists=_pair_examples),
        validation=validation,
        test=test,
        seed=seed,
        skip=on_bad_rows == "skip",
        to_skip='on_bad_rows="skip"',
    )
    return PromptSplits(
        parts, separator=separator, batch_size=batch_size, max_length=max_length, buckets=buckets, seed=seed
    )


def _pair_examples(prompts: Sequence[str], responses: Sequence[str]) -> PairExamples:
    return PairExamples(list(prompts), list(responses), place=lambda number: f"prompts[{number}]")
