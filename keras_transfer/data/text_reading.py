"""Reads texts from a source of any kind: a table, a folder, a TFDS name, arrays, or several of these by split."""

import functools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from keras_transfer.data import reading
from keras_transfer.data.arrays import class_names_of, in_places
from keras_transfer.data.examples import PairExamples, TextExamples
from keras_transfer.data.folders import by_class, entries, files_below, normal
from keras_transfer.data.scanning import Problem
from keras_transfer.data.sources import WHOLE, Found, split_name
from keras_transfer.data.tables import decoded, text_table
from keras_transfer.errors import explain

_TABLES = (".tsv", ".csv")


def read(
    source: Any,
    *,
    text: str | Sequence[str] | None = None,
    label: str | bool | None = None,
    data_dir: str | os.PathLike | None = None,
) -> Found:
    """The texts of a source of any kind.

    Args:
        source: a table, a folder, a TFDS name, a pair of arrays, or a mapping of split name to any of these; where
            texts have no labels a list of texts too.
        text: the column that holds the texts, or those that hold what is read together.
        label: the column that holds the labels, or `False` where texts have none.
        data_dir: where TFDS keeps its data.

    Raises:
        ValueError: it is none of these, or is not there.
    """
    if text is None or isinstance(text, str):
        return _read(source, text, label, data_dir)
    columns = _columns(text, label)
    found = _read(source, columns, label, data_dir)
    if any(examples.texts_per_row != len(columns) for examples in found.splits.values()):
        raise ValueError(
            explain(
                "`text` names columns, and not all of the source has columns.",
                given=f"text={text!r}",
                expected="tables or a TFDS name; or texts that come as tuples, and no `text`",
            )
        )
    return found


def _read(
    source: Any,
    text: str | tuple[str, ...] | None,
    label: str | bool | None,
    data_dir: str | os.PathLike | None,
) -> Found:
    again = functools.partial(read, text=text, label=label, data_dir=data_dir)
    if isinstance(source, Mapping):
        return reading.by_split(source, again)
    if isinstance(source, str | os.PathLike):
        table = functools.partial(text_table, text=text, label=label)
        return reading.named(
            source,
            folder=functools.partial(_folder, table=table, is_labelled=label is not False),
            table=table,
            dataset=functools.partial(_dataset, text=text, label=label, data_dir=data_dir),
            folder_holds="texts",
        )
    is_pair = isinstance(source, tuple | list) and len(source) == 2
    if label is False:
        if _is_texts(source):
            return _arrays(source, None)
    elif is_pair and not any(isinstance(part, str | os.PathLike) for part in source):
        return _arrays(*source)
    raise ValueError(
        explain(
            "`source` is nothing that texts can be read from.",
            given=type(source).__name__,
            expected="a TSV or CSV file, a folder, a TFDS name, "
            + ("a list of texts" if label is False else "a pair (texts, labels)")
            + ", or a mapping of split name to any of these",
        )
    )


def _columns(text: Any, label: str | bool | None) -> tuple[str, ...]:
    """The names of the columns whose texts are read together."""
    names = tuple(text) if isinstance(text, Sequence) else ()
    if len(set(names)) < max(2, len(names)) or not all(isinstance(name, str) for name in names):
        expected = "the name of a column, or the names of at least two"
        raise ValueError(explain("`text` names no columns.", given=repr(text), expected=expected))
    if label is False:
        raise _reads_one_text(f"text={text!r}")
    return names


def _reads_one_text(given: str) -> ValueError:
    expected = "one text in a row, or kt.data.prompts(…) for prompts and responses"
    return ValueError(explain("A language model reads one text.", given=given, expected=expected))


def _dataset(
    name: str, *, text: str | tuple[str, ...] | None, label: str | bool | None, data_dir: str | os.PathLike | None
) -> Found:
    from keras_transfer.data import tfds

    return tfds.texts(name, text=text, label=label, data_dir=data_dir)


def _is_texts(given: Any) -> bool:
    given = in_places(given) if hasattr(given, "to_numpy") else given
    return isinstance(given, Sequence) or (isinstance(given, np.ndarray) and given.ndim in (1, 2))


def _arrays(texts: Any, labels: Any | None) -> Found:
    if not _is_texts(texts):
        raise ValueError(
            explain(
                "`texts` are no texts.", given=type(texts).__name__, expected="a list, an array or a column of strings"
            )
        )
    held = given_texts(texts)
    if labels is None and any(isinstance(text, tuple) for text in held):
        raise _reads_one_text(f"{max(len(text) for text in held if isinstance(text, tuple)):,} texts in a row")
    class_names, declared = (
        ([""] * len(held), {""}) if labels is None else class_names_of(labels, noun="text", argument="labels")
    )
    if len(held) != len(class_names):
        raise ValueError(
            explain(
                "There are not as many labels as texts.",
                given=f"{len(held)} texts, {len(class_names)} labels",
                expected="one label for each text",
                # Two lists instead of pairs.
                to_mend="texts that are read together come as [(first, second), …]"
                if held and isinstance(held[0], tuple) and len(held[0]) == len(class_names)
                else None,
            )
        )
    examples = TextExamples(held, class_names, place=lambda number: f"texts[{number}]")
    return Found({WHOLE: examples}, {WHOLE: declared}, is_labelled=labels is not None)


def given_texts(given: Any) -> list:
    """The texts that somebody gives: strings, bytes, and lists, tuples or array rows of those that are read together.

    Example:

    >>> given_texts(np.array([["a film", "a good film"]])), given_texts("a film")
    ([('a film', 'a good film')], ['a film'])
    """
    return [_text(text) for text in ([given] if isinstance(given, str | bytes) else in_places(given))]


def _text(given: Any) -> Any:
    """A string of bytes, a tuple of what is read together; anything else as it is."""
    if isinstance(given, bytes):
        return decoded(given)
    if isinstance(given, list | tuple | np.ndarray):
        texts = tuple(map(_text, given))
        return texts[0] if len(texts) == 1 else texts
    return str(given) if isinstance(given, np.str_) else given


def _folder(path: pathlib.Path, *, table: Callable[[pathlib.Path], Found], is_labelled: bool) -> Found:
    """Tables that are called as splits are; else .txt files, in one folder per class where texts have labels."""
    if any(entry.suffix.lower() in _TABLES for entry in entries(path)):
        return folder_of_tables(path, table)
    return by_class(path, _classes_below) if is_labelled else _corpus(path)


def folder_of_tables(path: pathlib.Path, table: Callable[[pathlib.Path], Found]) -> Found:
    """What is in the tables of a folder, `train.tsv`, `val.tsv` and `test.tsv` for instance, each read by `table`.

    Raises:
        ValueError: which of them are which splits cannot be told.
    """
    tables = [entry for entry in entries(path) if entry.suffix.lower() in _TABLES]
    named = {entry: split_name(entry.stem) for entry in tables}
    meant = [name for name in named.values() if name]
    if "train" not in meant or len(set(meant)) < len(meant):
        raise ValueError(
            explain(
                f"Which tables of the folder {path} are which splits cannot be told.",
                given=", ".join(entry.name for entry in tables) or "no tables",
                expected="train.tsv, and val.tsv and test.tsv if there are such; each once",
                to_mend="give the tables that you mean as {'train': …, 'validation': …, 'test': …}",
            )
        )
    found = reading.by_split({name: entry for entry, name in named.items() if name}, table)
    passed_over = [entry.name for entry, name in named.items() if not name]
    if passed_over:
        found.notes.append(f"tables in {path} that are no splits were passed over: {', '.join(passed_over)}")
    return found


def read_pairs(
    source: Any,
    nouns: tuple[str, str],
    *,
    table: Callable[[pathlib.Path], Found],
    lists: Callable[[Any, Any], PairExamples],
) -> Found:
    """What goes with what, in tables, folders of them, two lists, or a mapping of split name to any of these.

    Args:
        source: any of these.
        nouns: what the first of a pair is called, and the second: `("prompt", "response")`.
        table: reads a table.
        lists: makes examples of two lists.

    Raises:
        ValueError: it is none of these, or the lists are not of one length.
    """
    first, second = nouns
    if isinstance(source, Mapping):
        return reading.by_split(source, functools.partial(read_pairs, nouns=nouns, table=table, lists=lists))
    if isinstance(source, str | os.PathLike):
        folder = functools.partial(folder_of_tables, table=table)
        return reading.named(source, folder=folder, table=table, dataset=reading.no_dataset, folder_holds="tables")
    if isinstance(source, tuple | list) and len(source) == 2 and not any(isinstance(part, str) for part in source):
        examples = lists(*source)
        if len(examples.prompts) != len(examples.responses):
            raise ValueError(
                explain(
                    f"There are not as many {second}s as {first}s.",
                    given=f"{len(examples.prompts)} {first}s, {len(examples.responses)} {second}s",
                    expected=f"one {second} for each {first}",
                )
            )
        return Found({WHOLE: examples}, {WHOLE: {""}}, is_labelled=False)
    raise ValueError(
        explain(
            f"`source` is nothing that {first}s and {second}s can be read from.",
            given=type(source).__name__,
            expected=f"a TSV or CSV file, a folder of them, a pair ({first}s, {second}s), or a mapping of split name to"
            " any of these",
        )
    )


def _classes_below(path: pathlib.Path, split: str, found: Found) -> None:
    files: list[pathlib.Path] = []
    class_names: list[str] = []
    found.declared[split] = set()
    for entry in entries(path):
        if entry.is_dir():
            class_name = normal(entry.name)
            found.declared[split].add(class_name)
            inside = _texts_below(entry, found)
            files += inside
            class_names += [class_name] * len(inside)
        elif entry.suffix.lower() == ".txt":
            found.problems.append(Problem(str(entry), "lies beside the folders of the classes, in none of them"))
    found.splits[split] = _of_files(files, class_names)


def _corpus(path: pathlib.Path) -> Found:
    found = Found({}, {}, is_labelled=False)
    splits = {entry: split_name(entry.name) for entry in entries(path) if entry.is_dir() and split_name(entry.name)}
    if "train" not in splits.values():
        splits = {path: WHOLE}
    for folder, split in splits.items():
        files = _texts_below(folder, found)
        found.splits[split], found.declared[split] = _of_files(files, [""] * len(files)), {""}
    return found


def _of_files(files: Sequence[pathlib.Path], class_names: Sequence[str]) -> TextExamples:
    texts = [decoded(file.read_bytes()) for file in files]
    return TextExamples(texts, class_names, place=lambda number: str(files[number]))


def _texts_below(path: pathlib.Path, found: Found) -> list[pathlib.Path]:
    files = files_below(path, {path.resolve()})
    others = sorted({file.suffix.lower() or "without ending" for file in files if file.suffix.lower() != ".txt"})
    if others:
        found.notes.append(f"files below {path} that are no .txt were passed over: {', '.join(others)}")
    return [file for file in files if file.suffix.lower() == ".txt"]
