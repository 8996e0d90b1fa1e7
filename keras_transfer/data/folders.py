"""Folders of pictures, as dirty as they come."""

import pathlib
import unicodedata
from collections.abc import Callable

from keras_transfer.data import decoding
from keras_transfer.data.examples import FileExamples
from keras_transfer.data.scanning import Problem
from keras_transfer.data.sources import SPLIT_NAMES, WHOLE, Found, split_name
from keras_transfer.errors import explain, nearest

_LITTER = ("thumbs.db", "desktop.ini", "__macosx")


def entries(path: pathlib.Path) -> list[pathlib.Path]:
    """What lies in a folder in the order of its names, without what systems leave there."""
    seen = (entry for entry in path.iterdir() if not entry.name.startswith(".") and entry.name.lower() not in _LITTER)
    return sorted(seen, key=lambda entry: normal(entry.name))


def normal(name: str) -> str:
    """A file's name, as it would be called on any system."""
    # One and the same name is stored in two ways, composed by Linux and taken apart by macOS.
    return unicodedata.normalize("NFC", name)


def picture_folder(path: pathlib.Path) -> Found:
    """The pictures below a folder: one folder per class, or `train`, `val`, `test` with one folder per class each.

    Raises:
        ValueError: it holds no folder, or one beside its splits that is no split.
    """
    return by_class(path, _pictures_below)


def by_class(path: pathlib.Path, classes_below: Callable[[pathlib.Path, str, Found], None]) -> Found:
    """What is below a folder: one folder per class, or `train`, `val`, `test` with one folder per class each.

    Args:
        path: the folder.
        classes_below: reads the folders of the classes in a folder into a split of what is found.

    Raises:
        ValueError: it holds no folder, or one beside its splits that is no split.
    """
    folders = [entry for entry in entries(path) if entry.is_dir()]
    if not folders:
        raise ValueError(
            explain(
                "The folder holds no folders, so there are no classes.",
                given=str(path),
                expected="one folder per class, or train/, val/ and test/ with one folder per class each",
            )
        )
    divided = [entry for entry in folders if split_name(entry.name) and any(inner.is_dir() for inner in entries(entry))]
    found = Found({}, {})
    if not divided:
        classes_below(path, WHOLE, found)
        return found
    for entry in folders:
        name = split_name(entry.name)
        if name is None or name in found.splits:
            raise ValueError(
                explain(
                    f"The folder {path} has splits, and beside them one that is no split."
                    if name is None
                    else f"The folder {path} has two folders for {name}.",
                    given=repr(entry.name),
                    expected="train, val or validation, test; each at most once",
                    nearest=nearest(entry.name, SPLIT_NAMES) if name is None else None,
                    to_mend="give the folders that you mean as {'train': …, 'validation': …, 'test': …}",
                )
            )
        classes_below(entry, name, found)
    return found


def _pictures_below(path: pathlib.Path, split: str, found: Found) -> None:
    paths: list[pathlib.Path] = []
    class_names: list[str] = []
    others: dict[str, int] = {}
    found.declared[split] = set()
    for entry in entries(path):
        if entry.is_dir():
            class_name = normal(entry.name)
            found.declared[split].add(class_name)
            for file in files_below(entry, {entry.resolve()}):
                if _is_meant(file, found, others):
                    paths.append(file)
                    class_names.append(class_name)
        elif entry.suffix.lower() in decoding.ENDINGS + decoding.UNREAD_ENDINGS:
            found.problems.append(Problem(str(entry), "lies beside the folders of the classes, in none of them"))
    found.splits[split] = FileExamples(paths, class_names)
    if others:
        listed = ", ".join(f"{count} {ending or 'without ending'}" for ending, count in sorted(others.items()))
        found.notes.append(f"files below {path} that are no pictures were passed over: {listed}")


def files_below(path: pathlib.Path, above: set[pathlib.Path]) -> list[pathlib.Path]:
    """Every file below a folder, but none that is only reached by a link back into `above`."""
    files: list[pathlib.Path] = []
    for entry in entries(path):
        if not entry.is_dir():
            files.append(entry)
        # A link may lead back up.
        elif (place := entry.resolve()) not in above:
            files += files_below(entry, above | {place})
    return files


def _is_meant(file: pathlib.Path, found: Found, others: dict[str, int]) -> bool:
    ending = file.suffix.lower()
    if ending in decoding.ENDINGS:
        return True
    if ending in decoding.UNREAD_ENDINGS:
        found.problems.append(Problem(str(file), f"{ending} files are not read; save it as PNG or JPEG"))
        return False
    with open(file, "rb") as opened:
        if decoding.is_picture(opened.read(16)):
            found.problems.append(Problem(str(file), "holds a picture, but its ending is not that of one"))
            return False
    others[ending] = others.get(ending, 0) + 1
    return False
