"""Many texts as token ids, without the padding.

A preprocessor is run once over all texts, and what it returns is kept without the padding. A row that is padded again,
to any length, equals what the preprocessor gives at that length.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_transfer.data.preprocessors import (
    TARGETS,
    TWO_LENGTHS,
    Text,
    columns_of,
    columns_of_pairs,
    columns_of_prompted,
    longest_read,
    reads_and_writes,
)
from keras_transfer.errors import explain

# Texts that are tokenized at a time: enough to be quick, few enough not to matter at a thousand tokens each.
_AT_A_TIME = 1024


@dataclasses.dataclass(frozen=True, eq=False)
class Packed:
    """What a preprocessor makes of many texts, without its padding.

    Attributes:
        features: the columns of the model's input by name, each flat: row i is `[offsets[i] : offsets[i + 1]]`.
        targets: the next token of each and its weight, `y` and `sample_weight`, where the preprocessor gives them.
        offsets: where each row begins, int64 of shape (texts + 1,).
        padding: the value that each column is padded with.
        max_length: the length that texts were cut to, in tokens.
        cut: how many texts are longer than that.
    """

    features: Mapping[str, np.ndarray]
    targets: Mapping[str, np.ndarray]
    offsets: np.ndarray
    padding: Mapping[str, Any]
    max_length: int
    cut: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """The tokens of each row, special tokens included: int64 of shape (texts,)."""
        return np.diff(self.offsets)

    def padded(self, numbers: Sequence[int] | np.ndarray, length: int) -> dict[str, np.ndarray]:
        """The rows with these numbers, each column of shape (numbers, length), those of `targets` included.

        Raises:
            ValueError: a row is longer than `length`.
        """
        numbers = np.asarray(numbers, np.int64)
        lengths = self.lengths[numbers]
        if len(numbers) and lengths.max() > length:
            raise ValueError(
                explain("A row does not fit.", given=f"length={length}", expected=f"at least {lengths.max()}")
            )
        positions = np.arange(length)
        filled = positions < lengths[:, None]
        places = (self.offsets[numbers][:, None] + positions)[filled]
        rows = {}
        for name, values in {**self.features, **self.targets}.items():
            rows[name] = np.full((len(numbers), length), self.padding[name], values.dtype)
            rows[name][filled] = values[places]
        return rows


def pack(preprocessor: keras.Layer, texts: Sequence[Text], max_length: int | None = None) -> Packed:
    """Runs a preprocessor once over all texts and keeps what it returns without the padding.

    Args:
        preprocessor: of a KerasHub text classifier, masked or causal language model.
        texts: what to read: strings, or tuples of as many strings each.
        max_length: cuts texts to so many tokens, special ones included; the preprocessor's own length if not given.

    Raises:
        ValueError: the preprocessor has no tokenizer or no length, does not pad on the right, or returns something
            that is not one row of tokens for each text; or it reads one text and writes another.
    """
    if reads_and_writes(preprocessor):
        raise ValueError(
            explain(
                f"A {type(preprocessor).__name__} reads one text and writes another.",
                given="one text in each row",
                expected="a text to read and a text to write",
                to_mend="kt.data.prompts(…): the prompt is read, the response written",
            )
        )
    max_length = longest_read(preprocessor) if max_length is None else max_length
    return _packed(
        functools.partial(columns_of, preprocessor), preprocessor, texts, _nothing(preprocessor, texts), max_length
    )


def pack_prompted(
    preprocessor: keras.Layer, prompts: Sequence[str], responses: Sequence[str], max_length: int
) -> Packed:
    """As `pack`, for a model that is shown pictures and takes prompt and response apart; without the pictures.

    Args:
        preprocessor: one of which `takes_prompts` is true.
        prompts: what is read before the response.
        responses: what is to be written, as many.
        max_length: cuts both together to so many tokens, special ones included.
    """
    pairs = list(zip(prompts, responses, strict=True))
    return _packed(functools.partial(columns_of_prompted, preprocessor), preprocessor, pairs, ("", ""), max_length)


def pack_pairs(preprocessor: keras.Layer, read: Sequence[str], written: Sequence[str], max_length: int) -> Packed:
    """As `pack`, for a model that reads one text and writes another; a row is as long as the longer of its two.

    Args:
        preprocessor: of a KerasHub sequence-to-sequence model.
        read: what the encoder reads.
        written: what the decoder is to write, as many.
        max_length: cuts both to so many tokens, special ones included, where the preprocessor's own two lengths do not
            cut them sooner.
    """
    own = {name: getattr(preprocessor, name) for name in TWO_LENGTHS}
    with_room = {name: length + 16 for name, length in own.items()}
    padding = _padding(columns_of_pairs(preprocessor, [""], [""], with_room), preprocessor)
    most = {name: min(length, max_length) for name, length in own.items()}
    one_more = {name: length + 1 for name, length in most.items()}
    parts, cut = [], 0
    for start in range(0, len(read), _AT_A_TIME):
        some = [list(texts[start : start + _AT_A_TIME]) for texts in (read, written)]
        columns = columns_of_pairs(preprocessor, *some, most)
        wide = {name: _widened(column, max_length, padding[name]) for name, column in columns.items()}
        parts.append(_without_padding(wide, _lengths(wide, padding)))
        is_full = np.any([column[:, -1] != padding[name] for name, column in columns.items()], axis=0)
        if is_full.any():
            full = [[text for text, fills in zip(texts, is_full, strict=True) if fills] for texts in some]
            longer = columns_of_pairs(preprocessor, *full, one_more)
            cut += int(np.any([column[:, -1] != padding[name] for name, column in longer.items()], axis=0).sum())
    return _joined(parts, padding, max_length, cut)


def pack_whole(preprocessor: keras.Layer, texts: Sequence[str], max_length: int) -> Packed:
    """Runs a preprocessor over whole texts, and cuts what it returns into rows of `max_length`, none left out.

    Args:
        preprocessor: of a KerasHub causal language model.
        texts: documents of any length.
        max_length: the tokens of a row; the last of each text may be shorter.

    Raises:
        ValueError: as `pack`, or a text comes to more tokens than bytes.
    """
    lengths: list[int] = []
    kept = []
    for some in _groups(texts):
        # No tokenizer makes more tokens of a text than it has bytes, but for a few special ones.
        part = pack(preprocessor, some, max(len(text.encode()) for text in some) + 16)
        if part.cut:
            name = type(preprocessor).__name__
            raise ValueError(explain(f"The {name} makes more tokens of a text than it has bytes."))
        columns = {**part.features, **part.targets}
        for start, end in itertools.pairwise(part.offsets):
            # The last token has no next one, and alone in a row it would be a row of nothing.
            length = np.flatnonzero(columns["sample_weight"][start:end])[-1] + 1 if part.targets else end - start
            kept.append({name: values[start : start + length] for name, values in columns.items()})
            windows, rest = divmod(int(length), max_length)
            lengths += [max_length] * windows + [rest] * (rest > 0)
    flat = {name: np.concatenate([row[name] for row in kept]) for name in columns}
    return Packed(
        {name: flat[name] for name in part.features},
        {name: flat[name] for name in part.targets},
        np.cumsum([0, *lengths], dtype=np.int64),
        part.padding,
        max_length,
        cut=0,
    )


def _groups(texts: Sequence[str]) -> Iterator[list[str]]:
    """Neighbours to be packed to one length, so that padding them takes some megabytes and not gigabytes."""
    group: list[str] = []
    longest = 0
    for text in texts:
        longest = max(longest, len(text))
        if group and longest * (len(group) + 1) > 1_000_000:
            yield group
            group, longest = [], len(text)
        group.append(text)
    yield group


def _nothing(preprocessor: keras.Layer, texts: Sequence[Text]) -> Text:
    """An empty text of as many parts as these have.

    Raises:
        ValueError: they have several, and not all as many; or the preprocessor reads one.
    """
    parts = {1 if isinstance(text, str) else len(text) for text in texts}
    if parts <= {1}:
        return ""
    if len(parts) > 1:
        given = " and ".join("one text" if count == 1 else f"tuples of {count}" for count in sorted(parts))
        raise ValueError(
            explain("Not all rows have as many texts to be read together.", given=given, expected="one or the other")
        )
    if not hasattr(preprocessor, "truncate"):  # how the segments share the length
        raise ValueError(
            explain(
                f"A {type(preprocessor).__name__} reads one text, and cannot keep several apart.",
                given=f"{max(parts)} texts in each row",
                expected="the preprocessor of a body that reads segments, BERT's or RoBERTa's for instance",
                to_mend="join the texts of a row to one",
            )
        )
    return ("",) * max(parts)


def _packed(
    run: Callable[[list, int], dict[str, np.ndarray]],
    preprocessor: keras.Layer,
    rows: Sequence,
    nothing: Any,
    max_length: int,
) -> Packed:
    """What `run` makes of rows and a length, without its padding; which is learnt from a row of `nothing`."""
    padding = _padding(run([nothing], longest_read(preprocessor) + 16), preprocessor)
    parts, cut = [], 0
    for start in range(0, len(rows), _AT_A_TIME):
        some = list(rows[start : start + _AT_A_TIME])
        columns = run(some, max_length)
        lengths = _lengths(columns, padding)
        parts.append(_without_padding(columns, lengths))
        full = [row for row, length in zip(some, lengths, strict=True) if length == max_length]
        if full:
            cut += int((_lengths(run(full, max_length + 1), padding) > max_length).sum())
    return _joined(parts, padding, max_length, cut)


# The flat columns of some rows, and the lengths of these.
_Part = tuple[dict[str, np.ndarray], np.ndarray]


def _without_padding(columns: Mapping[str, np.ndarray], lengths: np.ndarray) -> _Part:
    filled = np.arange(next(iter(columns.values())).shape[1]) < lengths[:, None]
    return {name: column[filled] for name, column in columns.items()}, lengths


def _joined(parts: Sequence[_Part], padding: Mapping[str, Any], max_length: int, cut: int) -> Packed:
    lengths = [some for _, some in parts]
    flat = {
        name: np.concatenate([columns[name] for columns, _ in parts]) if parts else np.zeros(0, np.int32)
        for name in padding
    }
    return Packed(
        {name: values for name, values in flat.items() if name not in TARGETS},
        {name: values for name, values in flat.items() if name in TARGETS},
        np.cumsum(np.concatenate([[0], *lengths]), dtype=np.int64),
        padding,
        max_length,
        cut,
    )


def _widened(column: np.ndarray, length: int, padding: Any) -> np.ndarray:
    """A column with padding to its right."""
    wide = np.full((len(column), length), padding, column.dtype)
    wide[:, : column.shape[1]] = column
    return wide


def _padding(of_nothing: Mapping[str, np.ndarray], preprocessor: keras.Layer) -> dict[str, Any]:
    """The padding of every column, as seen on an empty text with room to spare."""
    padding = {name: column[0, -1] for name, column in of_nothing.items()}
    wrong = [name for name, value in padding.items() if name.endswith("padding_mask") and value]
    if wrong:
        raise ValueError(
            explain(
                f"The {type(preprocessor).__name__} does not pad on the right.",
                given=f"{wrong[0]} {of_nothing[wrong[0]][0].astype(int).tolist()} for an empty text",
                expected="1 for the tokens, then 0",
            )
        )
    return padding


def _lengths(columns: Mapping[str, np.ndarray], padding: Mapping[str, Any]) -> np.ndarray:
    """Up to where each row is something else than padding, at least 1: int64 of shape (texts,)."""
    used = np.any([column != padding[name] for name, column in columns.items()], axis=0)
    last = used.shape[1] - np.argmax(used[:, ::-1], axis=1)
    return np.where(used.any(axis=1), last, 1).astype(np.int64)
