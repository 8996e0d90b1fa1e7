"""Tables of paths and labels, as people write them."""

import functools

import pytest

from keras_transfer import data

images = functools.partial(data.images, batch_size=2, validation=0)


@pytest.fixture
def manifest(folder):
    """Writes a table beside a folder with 3 pictures each of a and b."""
    root = folder({"a": 3, "b": 3})

    def write(text: str, name: str = "list.csv", **options):
        path = root / name
        path.write_text(text, **options)
        return path

    return write


FILES = [f"{name}/{number:03d}.png" for name in "ab" for number in range(3)]


def rows(separator: str, *, header: str | None = None, splits: bool = False) -> str:
    lines = [header] if header else []
    for number, file in enumerate(FILES):
        cells = [file, file[0], *([["train", "train", "test"][number % 3]] if splits else [])]
        lines.append(separator.join(cells))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.csv", rows(",", header="path,label")),
        ("list.tsv", rows("\t", header="path\tlabel")),
        ("list.csv", rows(";", header="path;label")),
        ("LIST.CSV", rows(",", header="path,label")),
    ],
)
def test_paths_start_from_the_manifest_and_separators_are_seen(manifest, name, text):
    splits = images(manifest(text, name))
    assert splits.counts["train"] == {"a": 3, "b": 3}
    assert splits.notes == ()


def test_a_split_column_divides(manifest):
    splits = images(manifest(rows(",", header="path,label,split", splits=True)))
    assert [(split.name, len(split)) for split in splits.all] == [("train", 4), ("test", 2)]


def test_absolute_paths_and_any_order_of_columns_are_taken(manifest, tmp_path):
    lines = ["label,weight,path", *(f"{file[0]},1.0,{tmp_path / 'pictures' / file}" for file in FILES)]
    assert images(manifest("\n".join(lines))).counts["train"] == {"a": 3, "b": 3}


def test_columns_of_other_names_are_found_and_said(manifest):
    splits = images(manifest(rows(",", header="Image Path,Category")))
    assert splits.notes == ("columns of list.csv: path from 'Image Path', label from 'Category'",)


@pytest.mark.parametrize("header", [None, "foo,bar,baz"])
def test_columns_without_a_telling_name_are_guessed_by_content_and_said(manifest, header):
    splits = images(manifest(rows(",", header=header, splits=True)))
    assert splits.notes == ("columns of list.csv were guessed: path in column 1, label in column 2, split in column 3",)
    assert len(splits.test) == 2


def test_columns_that_cannot_be_told_are_refused(manifest):
    with pytest.raises(
        ValueError, match=r"cannot be told\.\n  given: +'foo', 'bar', 'baz'[\s\S]*name them in the first line"
    ):
        images(manifest("foo,bar,baz\n" + "\n".join(f"{file},{file[0]},x" for file in FILES)))


def test_excels_mark_unicode_quotes_and_empty_lines_do_not_disturb(manifest, tmp_path, encoded):
    import numpy as np

    name = "ä, ö.png"
    (tmp_path / "pictures" / name).write_bytes(encoded(np.zeros((3, 3, 3), np.uint8)))
    text = f'path,label\n\n"{name}",a\n' + rows(",")
    assert images(manifest(text, encoding="utf-8-sig")).counts["train"] == {"a": 4, "b": 3}


def test_every_bad_row_is_listed_with_its_line(manifest, tmp_path):
    text = rows(",", header="path,label,split", splits=True) + (
        "a/000.png,b,train\n"
        "a/001.png,,train\n"
        ",a,train\n"
        "a/001.png,a,trian\n"
        "a/001.png,a\n"
        "a/001.png,a,\n"
        "a/nowhere.png,a,test\n"
    )
    path = manifest(text)
    with pytest.raises(ValueError) as error:
        images(path)
    for line in (
        f"{path}, line 8: 'a/000.png' is labelled 'b', and 'a' above",
        f"{path}, line 9: has no label",
        f"{path}, line 10: has no path",
        f"{path}, line 11: 'trian' is no split; perhaps 'train'",
        f"{path}, line 12: has 2 cells, and the first line 3",
        f"{path}, line 13: has no split",
        f"{tmp_path}/pictures/a/nowhere.png: No such file or directory",
    ):
        assert line in str(error.value)
    with pytest.warns(UserWarning, match=r"Bad pictures left out: 7\."):
        assert len(images(path, on_bad_file="skip").train) == 4


def test_an_empty_manifest_is_refused(manifest):
    with pytest.raises(ValueError, match="The manifest is empty"):
        images(manifest("\n"))
    with pytest.raises(ValueError, match="The data has 1 problem|no split to train on"):
        images(manifest("path,label\n"))


def test_a_file_in_train_and_test_is_noted(manifest):
    text = rows(",", header="path,label,split", splits=True) + "a/002.png,a,train\n"
    notes = images(manifest(text)).notes
    assert any(note.startswith("1 of the 2 pictures of test are in train too, byte for byte") for note in notes)
