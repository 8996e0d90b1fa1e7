"""TensorFlow Datasets as examples that are reached by number: the only place that knows tensorflow_datasets."""

import os
import pathlib
import socket
import urllib.request
from collections.abc import Callable
from typing import Any

from keras_transfer.data.examples import EncodedExamples, Examples, TextExamples
from keras_transfer.data.scanning import Problem
from keras_transfer.data.sources import WHOLE, Found, split_name
from keras_transfer.data.tables import decoded
from keras_transfer.errors import explain, nearest


def pictures(name: str, *, data_dir: str | os.PathLike | None = None) -> Found:
    """The pictures of a TFDS data set, with their labels.

    Args:
        name: as TFDS takes it, for instance `"tf_flowers"` or `"cars196:2.1.0"`.
        data_dir: where TFDS keeps its data; its own default if not given.

    Raises:
        ValueError: TFDS knows no such set, it cannot be fetched, or it holds no labelled pictures.
    """
    builder = _prepared(name, data_dir, "pictures")
    image, label = _picture_and_label(builder, name)

    def examples(record: Callable, numbers: list[int], class_names: list[str], split: str) -> EncodedExamples:
        return EncodedExamples(
            lambda number: record(number)[image], class_names, name=f"{name}:{split}", numbers=numbers
        )

    return _found(builder, name, label, (label,), examples)


def texts(
    name: str,
    *,
    text: str | tuple[str, ...] | None = None,
    label: str | bool | None = None,
    data_dir: str | os.PathLike | None = None,
) -> Found:
    """The texts of a TFDS data set, with their labels.

    Args:
        name: as TFDS takes it, for instance `"imdb_reviews"` or `"glue/sst2"`.
        text: the feature that holds the texts, or those that hold what is read together; the only one that does, or
            the set's own choice, if not given.
        label: the feature that holds the labels, or `False` where texts have none.
        data_dir: where TFDS keeps its data; its own default if not given.

    Raises:
        ValueError: TFDS knows no such set, it cannot be fetched, or it holds no such features.
    """
    builder = _prepared(name, data_dir, "texts")
    text, label = _text_and_label(builder, name, text, label)

    def examples(record: Callable, numbers: list[int], class_names: list[str], split: str) -> TextExamples:
        if isinstance(text, str):
            held = [decoded(record(number)[text]) for number in numbers]
        else:
            held = [tuple(decoded(given[name]) for name in text) for given in map(record, numbers)]
        return TextExamples(held, class_names, place=lambda number: f"{name}:{split}[{number}]", numbers=numbers)

    return _found(
        builder, name, label, (*([text] if isinstance(text, str) else text), *([label] if label else [])), examples
    )


def _prepared(name: str, data_dir: str | os.PathLike | None, what: str) -> Any:
    """The builder of a TFDS data set, downloaded and prepared where it is not yet.

    What is prepared here is prepared as ArrayRecord, whose records are reached by number; where it lies prepared as
    TFRecord, the place of each record is looked up first.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except ValueError as error:
        known = tfds.list_builders(with_community_datasets=False)
        raise ValueError(
            explain(
                "There is no such folder, and TFDS knows no data set of that name.",
                given=repr(name),
                expected=f"a folder of {what}, a .csv or .tsv file, or a TFDS name",
                nearest=nearest(name, known),
                reason=str(error).splitlines()[0],
            )
        ) from error
    if not builder.is_prepared():
        _prepare(builder, name, data_dir)
        builder = tfds.builder(name, data_dir=data_dir)
    return builder


def _prepare(builder: Any, name: str, data_dir: str | os.PathLike | None) -> None:
    advice = (
        f"where there is a network, run `import tensorflow_datasets as tfds; tfds.builder({name!r}, data_dir='…')"
        ".download_and_prepare(file_format='array_record')`, copy that folder here, and give its path as `data_dir`"
    )
    problem = f"The TFDS data set {name!r} is not on this machine, and could not be fetched."
    given = f"data_dir={str(data_dir) if data_dir else str(builder.data_path.parent.parent)!r}"
    # TFDS tries for minutes before it says so.
    if type(builder).__module__.startswith("tensorflow_datasets.") and _is_offline():
        raise ValueError(explain(problem, given=given, reason="there is no network", to_mend=advice))
    try:
        builder.download_and_prepare(file_format="array_record")
    # A data set's own code runs here, and may raise anything.
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise ValueError(explain(problem, given=given, reason=reason, to_mend=advice)) from error


def _is_offline() -> bool:
    if urllib.request.getproxies():
        return False
    try:
        socket.getaddrinfo("storage.googleapis.com", 443)
    except OSError:
        return True
    return False


def _found(
    builder: Any,
    name: str,
    label: str | None,
    keep: tuple[str, ...],
    examples: Callable[[Callable, list[int], list[str], str], Examples],
) -> Found:
    """The splits of a set.

    Args:
        builder: of the set.
        name: the set's.
        label: the feature that holds the labels, or `None` where there are none.
        keep: the features to decode.
        examples: makes a split of (what gives a record by its number, the numbers of the labelled records, the names of
            their classes, the split's name).
    """
    names = getattr(builder.info.features[label], "names", None) if label else None
    found = Found({}, {}, classes=tuple(names) if names else None, is_labelled=label is not None)
    splits = {split: split_name(split) for split in builder.info.splits}
    if list(splits) == ["train"]:
        splits = {"train": WHOLE}
    for split, meant in splits.items():
        if meant is None or meant in found.splits:
            found.notes.append(
                f"the split {split!r} of {name} was passed over: it is none of train, validation and test"
            )
            continue
        record = _records(builder, split, keep)
        numbers = range(builder.info.splits[split].num_examples)
        class_names = [_class_name(record(number)[label], names) if label else "" for number in numbers]
        # TFDS writes -1 where a benchmark keeps its labels to itself.
        hidden = [number for number in numbers if class_names[number] is None]
        found.problems += [Problem(f"{name}:{split}[{number}]", "has no label (it is -1)") for number in hidden]
        numbers = [number for number in numbers if class_names[number] is not None]
        class_names = [class_name for class_name in class_names if class_name is not None]
        found.splits[meant] = examples(record, numbers, class_names, split)
        # Names without any example in train would be outputs that nothing teaches.
        found.declared[meant] = set(names if names and meant in ("train", WHOLE) else class_names)
    return found


def _class_name(label: Any, names: list[str] | None) -> str | None:
    if names:
        return names[int(label)] if label >= 0 else None
    return label.decode() if isinstance(label, bytes) else str(label)


def _text_and_label(
    builder: Any, name: str, text: str | tuple[str, ...] | None, label: str | bool | None
) -> tuple[str | tuple[str, ...], str | None]:
    import tensorflow_datasets as tfds

    features = builder.info.features
    own = [key for key in builder.info.supervised_keys or () if isinstance(key, str)]
    held = [key for key, feature in features.items() if isinstance(feature, tfds.features.Text)]
    if text is None:
        chosen = [key for key in own[:1] if key in held] or held
        text = chosen[0] if len(chosen) == 1 else None
    if label is None:
        labels = [key for key, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
        chosen = [key for key in own[1:2] if key in features] or labels
        label = chosen[0] if len(chosen) == 1 else None
    wanted = [("text", key) for key in (text if isinstance(text, tuple) else [text])]
    for kind, key in wanted + ([] if label is False else [("label", label)]):
        if key is None or key not in features:
            raise ValueError(
                explain(
                    f"Which feature of the TFDS data set {name!r} holds the {kind} cannot be told."
                    if key is None
                    else f"The TFDS data set {name!r} has no such feature.",
                    given=", ".join(f"{key} ({type(feature).__name__})" for key, feature in features.items())
                    if key is None
                    else repr(key),
                    nearest=nearest(key, features) if key else None,
                    expected=f"one feature of {kind}, or {kind}=… that names it",
                )
            )
    return text, label or None


def _picture_and_label(builder: Any, name: str) -> tuple[str, str]:
    import tensorflow_datasets as tfds

    features = builder.info.features
    keys = builder.info.supervised_keys or ("image", "label")
    is_labelled = len(keys) == 2 and all(isinstance(key, str) and key in features for key in keys)
    if not is_labelled or not isinstance(features[keys[0]], tfds.features.Image) or features[keys[1]].shape != ():
        raise ValueError(
            explain(
                f"The TFDS data set {name!r} does not hold pictures with one label each.",
                given=", ".join(f"{key} ({type(feature).__name__})" for key, feature in features.items()),
                expected="an image and a label",
            )
        )
    return keys


def _records(builder: Any, split: str, keep: tuple[str, ...]) -> Callable[[int], dict[str, Any]]:
    """Gives the record with a number, its pictures still encoded, from any thread."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    decoders = {key: tfds.decode.SkipDecoding() for key in features if key not in keep}
    file_format = builder.info.file_format.value
    if file_format == "array_record":
        return builder.as_data_source(split, decoders=decoders).__getitem__
    if file_format != "tfrecord":
        raise ValueError(
            explain(
                f"The data set was prepared as {file_format}, of which records cannot be reached by number.",
                given=str(builder.data_path),
                expected="array_record or tfrecord",
                to_mend="prepare it again with download_and_prepare(file_format='array_record')",
            )
        )
    places = [place for path in builder.info.splits[split].filepaths for place in _places(pathlib.Path(path))]

    def record(number: int) -> dict[str, Any]:
        path, start, length = places[number]
        with open(path, "rb") as opened:
            opened.seek(start)
            return features.deserialize_example_np(opened.read(length), decoders=decoders)

    return record


def _places(path: pathlib.Path) -> list[tuple[pathlib.Path, int, int]]:
    """Where a TFRecord file's records begin, and their lengths: each is length (8), check (4), content, check (4)."""
    places = []
    size = path.stat().st_size
    with open(path, "rb") as opened:
        while (start := opened.tell() + 12) < size:
            length = int.from_bytes(opened.read(8), "little")
            places.append((path, start, length))
            opened.seek(start + length + 4)
    return places
