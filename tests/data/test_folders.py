"""Folders as people keep them."""

import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from keras_transfer.data import images


def test_a_folder_per_class_is_divided(folder):
    splits = images(folder({"dogs": 10, "cats": 5}), batch_size=4, test=0.2)
    assert splits.classes == ("cats", "dogs")
    assert splits.counts["train"] == {"cats": 3, "dogs": 6}
    assert splits.counts["test"] == {"cats": 1, "dogs": 2}


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Train", "VALIDATION", "Test"), ("training", "dev", "testing")]
)
def test_split_folders_are_used_as_they_are(folder, names):
    train, validation, test = names
    counts = {
        f"{split}/{name}": count for split, count in [(train, 4), (validation, 2), (test, 3)] for name in ("a", "b")
    }
    assert [(split.name, len(split)) for split in images(folder(counts), batch_size=2).all] == [
        ("train", 8),
        ("validation", 4),
        ("test", 6),
    ]


def test_examples_are_described_by_their_paths(folder):
    root = folder({"train/a": 2, "train/b": 2, "test/a": 1, "test/b": 1})
    splits = images(root, validation=0, batch_size=2)
    assert splits.test.describe(1) == str(root / "test" / "b" / "000.png")


def test_a_class_called_train_is_a_class(folder):
    assert images(folder({"car": 5, "plane": 5, "train": 5}), batch_size=2).classes == ("car", "plane", "train")


def test_classes_that_are_numbers_are_in_the_order_of_numbers(folder):
    assert images(folder({str(number): 2 for number in range(11)}), batch_size=2).classes == tuple(map(str, range(11)))


def test_pictures_in_folders_within_a_class_belong_to_it(folder):
    assert images(folder({"a/x": 2, "a/y/z": 3, "b": 5}), validation=0, batch_size=2).counts["train"] == {
        "a": 5,
        "b": 5,
    }


def test_hidden_files_and_litter_are_no_pictures(folder):
    root = folder({"a": 3, "b": 3, ".thumbnails": 2, "a/.cache": 2, "__MACOSX/a": 1})
    for name in ("a/.DS_Store", "a/Thumbs.db", "b/desktop.ini", ".hidden.jpg", "a/._000.png"):
        (root / name).write_bytes(b"whatever")
    splits = images(root, validation=0, batch_size=2)
    assert splits.counts["train"] == {"a": 3, "b": 3}
    assert splits.notes == ()


def test_what_is_no_picture_is_passed_over_and_counted(folder):
    root = folder({"a": 3, "b": 3})
    for name in ("a/README.txt", "a/labels.csv", "b/notes.txt", "b/LICENSE"):
        (root / name).write_text("words")
    splits = images(root, validation=0, batch_size=2)
    assert f"files below {root} that are no pictures were passed over: 1 without ending, 1 .csv, 2 .txt" in str(splits)


def test_upper_case_endings_and_unicode_names_are_read(folder, encoded):
    root = folder({"žába": 3, "猫": 3})
    picture = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    for name, format in [("žába/ÄÖ ü.JPG", "JPEG"), ("猫/犬.Jpeg", "JPEG"), ("猫/𝛼.PNG", "PNG"), ("猫/b.WebP", "WEBP")]:
        (root / name).write_bytes(encoded(picture, format))
    splits = images(root, validation=0, batch_size=2)
    assert splits.counts["train"] == {"žába": 4, "猫": 6}
    assert splits.peek(splits.train, range(10), model=None).shape if splits.image_size else True


def test_a_class_name_is_the_same_however_its_accents_are_stored(folder):
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    assert composed != apart
    root = folder({f"train/{composed}": 3, "train/tea": 3, f"test/{apart}": 2, "test/tea": 2})
    assert images(root, batch_size=2).classes == (composed, "tea")


def test_a_linked_class_folder_is_followed(folder, tmp_path):
    root, elsewhere = folder({"a": 3}), folder({"b": 4}, root="elsewhere")
    os.symlink(elsewhere / "b", root / "b")
    assert images(root, validation=0, batch_size=2).counts["train"] == {"a": 3, "b": 4}


def test_a_link_back_to_its_own_folder_does_not_go_round_for_ever(folder):
    root = folder({"a": 3, "b": 3})
    os.symlink(root / "a", root / "a" / "again")
    assert images(root, validation=0, batch_size=2).counts["train"] == {"a": 3, "b": 3}


def test_a_misspelt_split_beside_train_is_not_lost(folder):
    with pytest.raises(ValueError, match=r"beside them one that is no split\.\n  given: +'tset'[\s\S]*nearest: +test"):
        images(folder({"train/a": 2, "train/b": 2, "tset/a": 1, "tset/b": 1}))


def test_two_folders_for_one_split_are_refused(folder):
    with pytest.raises(ValueError, match="has two folders for validation"):
        images(folder({"train/a": 2, "val/a": 1, "validation/a": 1}))


def test_splits_without_train_are_refused(folder):
    with pytest.raises(ValueError, match=r"There is no split to train on\.\n  given: +test, validation"):
        images(folder({"val/a": 2, "val/b": 2, "test/a": 1, "test/b": 1}))


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="The folder holds no folders, so there are no classes"):
        images(tmp_path)


def test_empty_classes_alone_are_refused(folder):
    with pytest.raises(ValueError) as error:
        images(folder({"a": 0, "b": 0}))
    assert "class 'a': has no picture that can be read\n" in str(error.value)
    assert "train: has no picture at all" in str(error.value)


def test_a_folder_that_is_not_there_names_its_neighbour(folder):
    root = folder({"a": 1})
    with pytest.raises(ValueError, match=r"There is no such folder or table\.[\s\S]*nearest: +pictures"):
        images(root.parent / "picturs")
    with pytest.raises(ValueError, match="There is no such folder or table"):
        images(str(root.parent / "pictures.csv"))


def test_turned_cmyk_gray_and_deep_pictures_pass_the_scan(folder, encoded):
    root = folder({"a": 2, "b": 2})
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, file in {
        "a/cmyk.jpg": encoded(picture.convert("CMYK"), "JPEG"),
        "a/gray.jpg": encoded(picture.convert("L"), "JPEG"),
        "a/turned.jpg": encoded(picture, "JPEG", exif=exif),
        "a/deep.png": encoded(np.arange(81, dtype=np.uint16).reshape(9, 9) * 800),
        "b/palette.png": encoded(picture.quantize(16)),
        "b/alpha.png": encoded(picture.convert("RGBA")),
        "b/frames.gif": encoded(picture, "GIF", save_all=True, append_images=[picture]),
        "b/plain.bmp": encoded(picture, "BMP"),
        "b/plain.webp": encoded(picture, "WEBP"),
        "b/a png.jpg": encoded(picture, "PNG"),
    }.items():
        (root / name).write_bytes(file)
    splits = images(root, validation=0, batch_size=2, image_size=8)
    assert splits.counts["train"] == {"a": 6, "b": 8}
    assert splits.peek(splits.train, range(14)).shape == (14, 8, 8, 3)
