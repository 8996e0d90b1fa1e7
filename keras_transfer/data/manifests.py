"""Manifests: a table of paths and labels, and of splits if it likes."""

import csv
import pathlib

from keras_transfer.data.examples import FileExamples
from keras_transfer.data.scanning import Problem
from keras_transfer.data.sources import SPLIT_NAMES, WHOLE, Found, split_name
from keras_transfer.errors import explain, nearest

PATH_NAMES = (
    "path", "file_path", "filepath", "image_path", "file_name", "filename", "file", "image", "img", "picture",
)  # fmt: skip
"""What columns of paths are called, the plainest name first."""

_NAMES = {
    "path": PATH_NAMES,
    "label": ("label", "class", "class_name", "label_name", "category", "target", "y"),
    "split": ("split", "subset", "set", "partition"),
}


def manifest(path: pathlib.Path) -> Found:
    """The pictures that a CSV or TSV file lists.

    Its columns are found by their names (path, label, split, and what else these are called), or, where the names say
    nothing or there are none, by what is in them; what was guessed is said in the notes. Paths that are not absolute
    start from the manifest's folder.

    Args:
        path: of a .tsv file, or a .csv file with commas, semicolons or tabs.

    Raises:
        ValueError: it is empty, or which column is which cannot be told.
    """
    rows = _rows(path)
    if not rows:
        raise ValueError(explain("The manifest is empty.", given=str(path), expected="rows of path, label[, split]"))
    columns, has_header, notes = _columns(path, [row for _, row in rows])
    found = Found({}, {}, notes=notes)
    entries: dict[str, tuple[list[pathlib.Path], list[str]]] = {}
    labelled: dict[str, str] = {}
    is_split = "split" in columns and any(
        row[columns["split"]].strip() for _, row in rows[has_header:] if len(row) > columns["split"]
    )
    for line, row in rows[has_header:]:
        reason = _wrong_with(row, len(rows[0][1]), columns, is_split)
        if reason is None:
            file, label = (row[columns[name]].strip() for name in ("path", "label"))
            if labelled.setdefault(file, label) != label:
                reason = f"{file!r} is labelled {label!r}, and {labelled[file]!r} above"
        if reason is not None:
            found.problems.append(Problem(f"{path}, line {line}", reason))
            continue
        split = split_name(row[columns["split"]]) if is_split else WHOLE
        paths, labels = entries.setdefault(split, ([], []))
        paths.append(path.parent / pathlib.Path(file).expanduser())
        labels.append(label)
    for split, (paths, labels) in entries.items():
        found.splits[split], found.declared[split] = FileExamples(paths, labels), set(labels)
    return found


def _rows(path: pathlib.Path) -> list[tuple[int, list[str]]]:
    # Excel begins its files with a byte-order mark.
    with open(path, encoding="utf-8-sig", newline="") as opened:
        first = opened.readline()
        opened.seek(0)
        separators = ["\t"] if path.suffix.lower() == ".tsv" else [",", ";", "\t"]
        separator = next((mark for mark in separators if mark in first), separators[0])
        reader = csv.reader(opened, delimiter=separator)
        return [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]


def _columns(path: pathlib.Path, rows: list[list[str]]) -> tuple[dict[str, int], bool, list[str]]:
    """(The number of each column by what it holds, whether the first row names them, what was guessed)."""
    names = [cell.strip().lower().replace(" ", "_") for cell in rows[0]]
    columns = {
        kind: names.index(known) for kind, knowns in _NAMES.items() for known in reversed(knowns) if known in names
    }
    if {"path", "label"} <= set(columns):
        exact = all(names[number] == kind for kind, number in columns.items())
        said = ", ".join(f"{kind} from {rows[0][number]!r}" for kind, number in columns.items())
        return columns, True, [] if exact else [f"columns of {path.name}: {said}"]
    has_header = not any(_is_file(path, cell) for cell in rows[0])
    guessed = _guessed(path, rows[has_header:])
    if guessed is None:
        raise ValueError(
            explain(
                "Which column of the manifest holds the paths and which the labels cannot be told.",
                given=", ".join(map(repr, rows[0])),
                expected="columns named path and label, and split if there are splits",
                to_mend=f"name them in the first line of {path}",
            )
        )
    said = ", ".join(f"{kind} in column {number + 1}" for kind, number in guessed.items())
    return guessed, has_header, [f"columns of {path.name} were guessed: {said}"]


def _is_file(path: pathlib.Path, cell: str) -> bool:
    return bool(cell.strip()) and (path.parent / pathlib.Path(cell.strip()).expanduser()).is_file()


def _guessed(path: pathlib.Path, rows: list[list[str]]) -> dict[str, int] | None:
    width = len(rows[0]) if rows else 0
    held = [[row[number] for row in rows if len(row) == width] for number in range(width)]
    paths = [number for number in range(width) if any(_is_file(path, cell) for cell in held[number][:20])]
    splits = [number for number in range(width) if all(split_name(cell) for cell in held[number])]
    labels = [number for number in range(width) if number not in paths + splits]
    if len(paths) != 1 or len(labels) != 1 or len(splits) > 1:
        return None
    return {"path": paths[0], "label": labels[0]} | ({"split": splits[0]} if splits else {})


def _wrong_with(row: list[str], width: int, columns: dict[str, int], is_split: bool) -> str | None:
    if len(row) != width:
        return f"has {len(row)} cells, and the first line {width}"
    for name in ("path", "label", "split") if is_split else ("path", "label"):
        if not row[columns[name]].strip():
            return f"has no {name}"
    if is_split and split_name(row[columns["split"]]) is None:
        given = row[columns["split"]].strip()
        like = nearest(given, SPLIT_NAMES)
        return f"{given!r} is no split" + (f"; perhaps {like!r}" if like else "")
    return None
