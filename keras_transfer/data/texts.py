"""`texts`: labelled texts from wherever they are, checked, divided and ready to train on."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import keras

from keras_transfer.data import text_reading
from keras_transfer.data.dividing import check_settings, divided
from keras_transfer.data.language import CorpusSplits
from keras_transfer.data.packing import Packed, pack
from keras_transfer.data.splits import Divided, Split
from keras_transfer.data.token_splits import TokenSplits
from keras_transfer.errors import explain


class TextSplits(TokenSplits):
    """Labelled texts for training, validation and test.

    Raises:
        ValueError: more texts are read together in one split than in another.
    """

    def __init__(self, parts: Divided, **settings: Any) -> None:
        super().__init__(parts, **settings)
        per_row = {split.name: split.examples.texts_per_row for split in self.all}
        if len(set(per_row.values())) > 1:
            raise ValueError(
                explain(
                    "The splits do not have as many texts to be read together.",
                    given=", ".join(f"{count} in a row of {name}" for name, count in per_row.items()),
                    expected="as many in each",
                )
            )

    @property
    def texts_per_row(self) -> int:
        """How many texts are read together: 1, or 2 where rows are pairs."""
        return self.train.examples.texts_per_row

    def _pack(self, preprocessor: keras.Layer, split: Split, max_length: int) -> Packed:
        # A classifier on the body of a language model reads as that does, and learns labels in place of next tokens.
        return dataclasses.replace(pack(preprocessor, split.examples.texts, max_length), targets={})

    def _text(self, split: Split, number: int) -> str:
        return split.examples.readable(number)

    def _words(self, split: Split, number: int) -> int:
        return sum(len(part.split()) for part in split.examples.parts(number))


def texts(
    source: Any,
    *,
    label: str | bool | None = None,
    text: str | Sequence[str] | None = None,
    batch_size: int = 32,
    max_length: int | None = None,
    buckets: Sequence[int] | None = None,
    validation: float = 0.2,
    test: float = 0.0,
    seed: int = 0,
    on_bad_rows: str = "error",
    data_dir: str | os.PathLike | None = None,
) -> TokenSplits:
    """Texts from wherever they are, checked to the last row, as train, validation and test.

    Rows of similar length are padded and trained on together, so that little is computed on padding.

    Args:
        source: one of
            - a TSV file, which is read without quoting, or a CSV file: a column of texts, one of labels and, if it
              likes, one of splits;
            - a folder of such tables, `train.tsv`, `val.tsv` and `test.tsv`;
            - a folder with one folder of .txt files per class, or with `train`, `val` and `test` that have such;
            - the name of a TFDS data set, for instance `"imdb_reviews"`;
            - a pair (texts, labels) of lists or arrays, each text a string, or a tuple of strings where several are
              read together;
            - a mapping of split name to any of these: `{"train": …, "test": …}`.
        label: the column of the labels, if it is not plain which. `False` for a language model, whose texts have none:
            then a folder of .txt files and a list of texts are sources too, and rows are windows of the texts.
        text: the column of the texts, if it is not plain which; or the columns of texts that are read together, as a
            model of pairs of sentences does: `("premise", "hypothesis")`.
        batch_size: texts per step.
        max_length: cuts texts to so many tokens, special ones included; the model's own length if not given.
        buckets: the lengths to pad to, in tokens; eight that need the least padding if not given.
        validation: the part of each class that is taken off train where the source has no validation split, or 0.
        test: the part that is taken off before, where the source has no test split.
        seed: what is held out and the order of the epochs are functions of it.
        on_bad_rows: `"error"` refuses the data if any row is bad; `"skip"` leaves those out and says so.
        data_dir: where TFDS keeps its data.

    Returns:
        The texts as they are, `TextSplits`, or `CorpusSplits` without labels; they become tokens for a model, as its
        own preprocessor makes them.

    Raises:
        ValueError: the data cannot be trained on as it is; every problem is listed, with its line.

    Example:

    >>> reviews = ["A fine film", "Not worth it", "Fine fun for everyone", "Bad", "Very fine", "Dull"]
    >>> print(texts((reviews, ["good", "bad"] * 3), batch_size=2, validation=0.3))
    class  train  validation
    bad        2           1
    good       2           1
    all        4           2
    words       ≤8
    train        4
    validation   2
    fingerprint ..., the model's length, batches of 2, seed 0
    no test split: what is reported is measured on validation
    note: validation is 30 % of each class, taken off train
    """
    check_settings(validation, test, seed, on_bad_rows, "on_bad_rows")
    found = text_reading.read(source, text=text, label=label, data_dir=data_dir)
    parts = divided(
        found,
        validation=validation,
        test=test,
        seed=seed,
        skip=on_bad_rows == "skip",
        to_skip='on_bad_rows="skip"',
    )
    kind = TextSplits if found.is_labelled else CorpusSplits
    return kind(parts, batch_size=batch_size, max_length=max_length, buckets=buckets, seed=seed)
