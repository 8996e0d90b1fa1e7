"""Reads a source of any kind: a folder, a TFDS name, a manifest, arrays, or a mapping of split name to any of these."""

import functools
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from keras_transfer.data import arrays, folders, manifests
from keras_transfer.data.decoding import is_opened
from keras_transfer.data.examples import PictureExamples
from keras_transfer.data.sources import SPLIT_NAMES, WHOLE, Found, split_name
from keras_transfer.errors import explain, nearest


def read(source: Any, *, data_dir: str | os.PathLike | None = None) -> Found:
    """What a source of any kind holds.

    Args:
        source: a folder, a manifest, a TFDS name, a pair of pictures (or their files) and labels, or a mapping of split
            name to any of these.
        data_dir: where TFDS keeps its data.

    Raises:
        ValueError: it is none of these, or is not there.
    """
    if isinstance(source, Mapping):
        return by_split(source, functools.partial(read, data_dir=data_dir))
    if (
        isinstance(source, tuple | list)
        and len(source) == 2
        and not any(isinstance(part, str | os.PathLike) for part in source)
    ):
        return arrays.arrays(*source)
    if isinstance(source, str | os.PathLike):
        return named(
            source,
            folder=folders.picture_folder,
            table=manifests.manifest,
            dataset=functools.partial(_dataset, data_dir=data_dir),
            folder_holds="pictures",
        )
    raise ValueError(
        explain(
            "`source` is nothing that pictures can be read from.",
            given=f"{type(source).__name__}",
            expected="a folder, a TFDS name, a CSV or TSV manifest, a pair (x, y) of pictures or files and their"
            " labels, or a mapping of split name to any of these",
        )
    )


def _dataset(name: str, *, data_dir: str | os.PathLike | None) -> Found:
    from keras_transfer.data import tfds

    return tfds.pictures(name, data_dir=data_dir)


def named(
    source: str | os.PathLike,
    *,
    folder: Callable[[pathlib.Path], Found],
    table: Callable[[pathlib.Path], Found],
    dataset: Callable[[str], Found],
    folder_holds: str,
) -> Found:
    """What is found where a source says: the first three read a folder, a table, and a TFDS data set by its name.

    Raises:
        ValueError: it is not there.
    """
    path = pathlib.Path(source).expanduser()
    if path.is_dir():
        return folder(path)
    if path.suffix.lower() in (".csv", ".tsv"):
        if path.is_file():
            return table(path)
    elif path.suffix and path.is_file():
        lies_in = f"give the folder that it lies in: {str(path.parent)!r}"
        raise ValueError(
            explain(
                "This file is no table.",
                given=repr(str(source)),
                expected=f"a folder of {folder_holds}, a .csv or .tsv file, or a TFDS name",
                to_mend=lies_in if path.suffix.lower() == ".txt" else None,
            )
        )
    elif (
        isinstance(source, str) and not path.is_absolute() and not source.startswith((".", "~")) and "\\" not in source
    ):
        return dataset(source)
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    raise ValueError(
        explain(
            "There is no such folder or table.",
            given=repr(str(source)),
            expected=f"a folder of {folder_holds}, a .csv or .tsv file, or a TFDS name",
            nearest=nearest(path.name, beside),
        )
    )


def no_dataset(name: str) -> Found:
    """For `named`, where no TFDS name is meant.

    Raises:
        ValueError: always: it is not there.
    """
    raise ValueError(
        explain(
            "There is no such folder.",
            given=repr(name),
            expected=f"a folder of tables, or a .tsv or .csv file; here are {_beside(name)}",
        )
    )


def _beside(name: str) -> str:
    parent = pathlib.Path(name).parent
    found = sorted(entry.name for entry in parent.iterdir())[:10] if parent.is_dir() else []
    return ", ".join(found) or "none"


def by_split(sources: Mapping[str, Any], read: Callable[[Any], Found]) -> Found:
    """What sources hold that are given as `{"train": …, "test": …}`, each read by `read`.

    Raises:
        ValueError: a key is no split, or a source is divided itself and has none of that name.
    """
    found = Found({}, {})
    for key, source in sources.items():
        name = split_name(str(key))
        if name is None or name in found.splits:
            raise ValueError(
                explain(
                    "`source` has a key that is no split." if name is None else f"`source` has two keys for {name}.",
                    given=repr(key),
                    expected="'train', 'validation', 'test', each at most once",
                    nearest=nearest(str(key), SPLIT_NAMES) if name is None else None,
                )
            )
        part = read(source)
        holds = name if name in part.splits else WHOLE
        if holds not in part.splits:
            raise ValueError(
                explain(
                    f"The source of {name!r} is divided into splits itself, and has none of that name.",
                    given=", ".join(part.splits),
                    expected=f"examples of {name!r} alone",
                    to_mend="give the folder of that split",
                )
            )
        if holds == name:
            found.notes.append(f"{name}: of a source that has splits, its own {name} was taken")
        found.splits[name], found.declared[name] = part.splits[holds], part.declared[holds]
        found.problems += part.problems
        found.notes += part.notes
        found.classes = found.classes or part.classes
        found.is_labelled = part.is_labelled
    return found


def pictures(given: Any) -> PictureExamples:
    """Pictures without labels, for prediction.

    Args:
        given: an array of shape (pictures, height, width, 3) or of one picture, (height, width, 3), (height, width, 1)
            or (height, width); one path, the bytes of a file, or a picture of Pillow's; or several of such, each of its
            own size, as a list, a column of a table, or an iterator.

    Raises:
        ValueError: there is none, or they are of no such kind.
    """
    if isinstance(given, str | os.PathLike) and os.path.isdir(given):
        raise ValueError(
            explain(
                "This is a folder, and pictures without labels are given one by one.",
                given=repr(str(given)),
                to_mend='its files, sorted(pathlib.Path(folder).glob("*.jpg")); or kt.data.images(…), with labels',
            )
        )
    given = arrays.in_places([given] if _is_one_picture(given) else given)
    if not len(given):
        raise ValueError(explain("There are no pictures.", given="none", expected="at least one"))
    return arrays.of_one_kind(given, [""] * len(given), name="pictures")


def _is_one_picture(given: Any) -> bool:
    if isinstance(given, str | bytes | os.PathLike) or is_opened(given):
        return True
    shape = given.shape if arrays.holds_numbers(given) else ()
    # Two and four channels are one picture as well, of a kind that is refused as such; no picture is so narrow.
    return len(shape) == 2 or (len(shape) == 3 and shape[-1] <= 4)
