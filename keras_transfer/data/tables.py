"""Tables of texts, TSV and CSV, read strictly: what does not fit is named with its line, and never guessed away."""

import contextlib
import csv
import io
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

from keras_transfer.data.examples import Examples, PairExamples, TextExamples
from keras_transfer.data.manifests import PATH_NAMES
from keras_transfer.data.scanning import Problem
from keras_transfer.data.sources import SPLIT_NAMES, WHOLE, Found, split_name
from keras_transfer.errors import explain, nearest

KNOWN_NAMES = {
    "text": ("text", "sentence", "review", "content", "body", "comment", "question", "utterance", "tweet", "document"),
    "label": ("label", "class", "class_name", "label_name", "category", "sentiment", "intent", "target", "y"),
    "prompt": ("prompt", "instruction", "question", "input"),
    "response": ("response", "completion", "answer", "output"),
    "path": PATH_NAMES,
    "caption": ("caption", "text", "sentence", "description", "response", "answer", "label"),
    "split": ("split", "subset", "set", "partition"),
}
"""What columns are called, the plainest name first."""

# What an argument is called that says which column holds a kind, where it is not called as the kind is.
_ARGUMENTS = {"path": "picture"}

Row = tuple[int, list[str]]
"""The line on which a row begins, counted from 1, and its cells."""


def text_table(
    path: pathlib.Path, *, text: str | Sequence[str] | None = None, label: str | bool | None = None
) -> Found:
    """The texts of a TSV or CSV file, with their labels.

    Args:
        path: of a .tsv file, read without quoting, or a .csv file with commas, semicolons or tabs.
        text: the name of the column that holds the texts, found by its name or its content if not given; or the names
            of those that hold what is read together.
        label: the name of the column that holds the labels, or `False` where texts have none.

    Raises:
        ValueError: the file is empty, no UTF-8 file, or which column is which cannot be told.
    """

    is_one = text is None or isinstance(text, str)
    texts_of = {"text": text} if is_one else {f"text[{place}]": name for place, name in enumerate(text)}

    def examples(cells: dict[str, list[str]], place: Callable[[int], str]) -> TextExamples:
        texts = cells["text"] if is_one else list(zip(*(cells[kind] for kind in texts_of), strict=True))
        class_names = [cell.strip() for cell in cells["label"]] if "label" in cells else [""] * len(texts)
        return TextExamples(texts, class_names, place=place)

    kinds = texts_of | ({} if label is False else {"label": label})
    return _found(path, kinds, examples, is_labelled=label is not False)


def pair_table(path: pathlib.Path, *, prompt: str | None = None, response: str | None = None) -> Found:
    """The prompts and responses of a TSV or CSV file.

    Args:
        path: of a .tsv file, read without quoting, or a .csv file with commas, semicolons or tabs.
        prompt: the name of the column that holds the prompts; found by its name if not given.
        response: the name of the column that holds the responses.

    Raises:
        ValueError: the file is empty, no UTF-8 file, or which column is which cannot be told.
    """

    def examples(cells: dict[str, list[str]], place: Callable[[int], str]) -> PairExamples:
        return PairExamples(cells["prompt"], cells["response"], place=place)

    return _found(path, {"prompt": prompt, "response": response}, examples, is_labelled=False)


def captioned_table(
    path: pathlib.Path,
    columns: Mapping[str, str | None],
    examples: Callable[[dict[str, list[str]], Callable[[int], str]], Examples],
) -> Found:
    """What `examples` makes of a table with columns of paths and captions, and of prompts where there is one.

    Args:
        path: of a .tsv file, read without quoting, or a .csv file with commas, semicolons or tabs.
        columns: the names of `"path"`, `"prompt"` and `"caption"`, or `None`: found by their names.
        examples: makes examples of the cells by kind and of what says where they stand.

    Raises:
        ValueError: the file is empty, no UTF-8 file, or which column is which cannot be told.
    """
    return _found(path, dict(columns), examples, is_labelled=False, optional=("prompt",))


def _found(
    path: pathlib.Path,
    kinds: dict[str, str | None],
    examples: Callable[[dict[str, list[str]], Callable[[int], str]], Examples],
    *,
    is_labelled: bool,
    optional: Sequence[str] = (),
) -> Found:
    """The splits of a table, each made by `examples` of its cells by kind and of what says where they stand.

    A kind of column that is `optional` is left out where nobody has named one and the header does not.
    """
    rows, problems = read_rows(path)
    columns, has_header, notes = _columns(path, [cells for _, cells in rows], kinds, optional)
    found = Found({}, {}, problems=problems, notes=notes, is_labelled=is_labelled)
    for split, chosen in _by_split(path, rows, has_header, columns, found).items():
        cells_of = {kind: [cells[columns[kind]] for _, cells in chosen] for kind in kinds if kind in columns}
        held = examples(cells_of, _Lines(path, [line for line, _ in chosen]))
        found.splits[split], found.declared[split] = held, set(held.class_names)
    return found


class _Lines:
    """Says where the text with a number stands."""

    def __init__(self, path: pathlib.Path, lines: Sequence[int]) -> None:
        self.path, self.lines = path, lines

    def __call__(self, number: int) -> str:
        return f"{self.path}, line {self.lines[number]}"


def decoded(content: bytes) -> str:
    """Text of UTF-8, a byte-order mark left out; bytes that are none become lone surrogates, which no text has.

    Example:

    >>> decoded("naïve".encode("latin-1"))
    'na\\udcefve'
    """
    return content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")


def read_rows(path: pathlib.Path) -> tuple[list[Row], list[Problem]]:
    """(The rows of a .tsv or .csv file, header included and blank lines left out, and what cannot be taken apart).

    Raises:
        ValueError: the file is empty, or in UTF-16.
    """
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(explain("The table is not UTF-8.", given=f"{path} in UTF-16", to_mend="save it as UTF-8"))
    read = _tab_separated if path.suffix.lower() == ".tsv" else _quoted
    problems: list[Problem] = []
    rows = [row for row in read(path, decoded(content), problems) if any(cell.strip() for cell in row[1])]
    if not rows:
        raise ValueError(explain("The table is empty.", given=str(path), expected="a header, and rows of text"))
    return rows, problems


def _tab_separated(path: pathlib.Path, content: str, problems: list[Problem]) -> Iterator[Row]:
    del path, problems
    # Only a line feed ends a line: `splitlines` would also break texts at characters such as U+2028.
    for number, line in enumerate(content.split("\n"), start=1):
        yield number, line.removesuffix("\r").split("\t")


def _quoted(path: pathlib.Path, content: str, problems: list[Problem]) -> Iterator[Row]:
    first = content[: content.find("\n")] if "\n" in content else content
    separator = next((mark for mark in (",", ";", "\t") if mark in first), ",")
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=separator, strict=True)
    with _cells_of_any_size():
        while True:
            line = reader.line_num + 1
            try:
                yield line, next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                reason = "a quote opens here and is never closed" if "unexpected end" in str(error) else str(error)
                problems.append(Problem(f"{path}, line {line}", reason))


@contextlib.contextmanager
def _cells_of_any_size() -> Iterator[None]:
    """Within it `csv` reads cells of more than 131,072 characters, which it would end the whole reading at."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _columns(
    path: pathlib.Path, rows: Sequence[list[str]], kinds: dict[str, str | None], optional: Sequence[str] = ()
) -> tuple[dict[str, int], bool, list[str]]:
    """(The number of each column by what it holds, whether the first row names them, what was guessed)."""
    header = [cell.strip() for cell in rows[0]]
    columns = _named(path, header, kinds)
    kinds = {kind: name for kind, name in kinds.items() if kind in columns or kind not in optional}
    by_name = dict(columns)
    has_header = bool(columns)
    if len(columns) < len(kinds):
        # The first line may name columns in words that nobody foresaw.
        columns |= _guessed(rows[1:] or rows, columns, kinds.keys() - columns.keys())
    if len(columns) < len(kinds):
        missing = [kind for kind in kinds if kind not in columns]
        raise ValueError(
            explain(
                f"Which column of the table holds the {' and '.join(missing)} cannot be told.",
                given=", ".join(map(repr, header)),
                expected=f"columns named {' and '.join(missing)}" if missing[1:] else f"a column named {missing[0]}",
                to_mend=f"name them in the first line of {path}, or say "
                + ", ".join(f"{_ARGUMENTS.get(kind, kind)}=…" for kind in missing),
            )
        )
    if not has_header and "label" in columns:
        has_header = header[columns["label"]] not in {
            cells[columns["label"]].strip() for cells in rows[1:] if len(cells) == len(header)
        }
    notes = []
    if len(by_name) < len(kinds):
        said = ", ".join(f"{kind} in column {columns[kind] + 1}" for kind in kinds)
        notes.append(
            f"columns of {path.name} were guessed: {said}; the first line "
            + ("was taken as their names" if has_header else "is an example already")
        )
    elif any(
        given is None and (kind in optional or header[columns[kind]].lower() != kind) for kind, given in kinds.items()
    ):
        said = ", ".join(f"{kind} from {header[columns[kind]]!r}" for kind in kinds)
        notes.append(f"columns of {path.name}: {said}")
    if has_header:
        names = [name.lower() for name in header]
        split = next((names.index(known) for known in KNOWN_NAMES["split"] if known in names), None)
        cells_of_it = [cells[split] for cells in rows[1:] if len(cells) == len(header)] if split is not None else []
        if split not in columns.values() and any(split_name(cell) for cell in cells_of_it):
            columns["split"] = split
    return columns, has_header, notes


def _named(path: pathlib.Path, header: list[str], kinds: dict[str, str | None]) -> dict[str, int]:
    """The columns that the header names, as somebody said or as they are usually called."""
    columns = {}
    for kind, given in kinds.items():
        if given is not None and given not in header:
            raise ValueError(
                explain(
                    f"`{_ARGUMENTS.get(kind, kind)}` names a column that the table does not have.",
                    given=repr(given),
                    nearest=nearest(given, header),
                    expected=", ".join(map(repr, header)),
                    table=path,
                )
            )
        if given is not None:
            columns[kind] = header.index(given)
    names = [name.lower().replace(" ", "_") for name in header]
    for kind in [kind for kind in kinds if kind not in columns]:
        free = [known for known in KNOWN_NAMES[kind] if known in names and names.index(known) not in columns.values()]
        if free:
            columns[kind] = names.index(free[0])
    return columns


def _guessed(rows: Sequence[list[str]], known: dict[str, int], kinds: set[str]) -> dict[str, int]:
    """The column of the longest cells for the text; of the others the one that repeats itself most for the label."""
    width = len(rows[0]) if rows else 0
    held = {number: [cells[number] for cells in rows if len(cells) == width] for number in range(width)}
    free = [number for number in held if number not in known.values()]
    guessed = {}
    if "text" in kinds and free:
        guessed["text"] = max(free, key=lambda number: sum(map(len, held[number])))
        free.remove(guessed["text"])
    if "label" in kinds and free:
        label = min(free, key=lambda number: len(set(held[number])))
        if len(set(held[label])) < len(held[label]):
            guessed["label"] = label
    return guessed


def _by_split(
    path: pathlib.Path, rows: Sequence[Row], has_header: bool, columns: dict[str, int], found: Found
) -> dict[str, list[Row]]:
    """The sound rows of each split; what is wrong with the others goes to the problems of `found`."""
    splits: dict[str, list[Row]] = {}
    width = len(rows[0][1])
    for line, cells in rows[has_header:]:
        reason = _wrong_with(cells, width, columns)
        if reason is not None:
            found.problems.append(Problem(f"{path}, line {line}", reason))
            continue
        split = split_name(cells[columns["split"]]) if "split" in columns else WHOLE
        splits.setdefault(split, []).append((line, cells))
    return splits or {WHOLE: []}


def _wrong_with(cells: list[str], width: int, columns: dict[str, int]) -> str | None:
    if len(cells) != width:
        return f"has {len(cells)} cells, and the first line {width}"
    # What is wrong with a text itself, its examples say.
    for kind in columns.keys() & {"label", "split"}:
        cell = cells[columns[kind]]
        if not cell.strip():
            return f"has no {kind}"
        if any("\udc80" <= letter <= "\udcff" for letter in cell):
            return f"its {kind} is not UTF-8"
    if "split" in columns and split_name(cells[columns["split"]]) is None:
        given = cells[columns["split"]].strip()
        like = nearest(given, SPLIT_NAMES)
        return f"{given!r} is no split" + (f"; perhaps {like!r}" if like else "")
    return None
