"""What cannot be read is found before training, all of it at once; or left out, with a word."""

import numpy as np
import pytest

from keras_transfer.data import images


@pytest.fixture
def dirty(folder, encoded):
    """Two good classes with every kind of bad file among them, an empty class, and a class that validation lacks."""
    root = folder(
        {"train/a": 4, "train/b": 4, "train/empty": 0, "train/rare": 2, "val/a": 2, "val/b": 2, "val/empty": 0}
    )
    whole = encoded(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8), "JPEG")
    (root / "train/a/zero.jpg").write_bytes(b"")
    (root / "train/a/text.jpg").write_text("I am a poem")
    (root / "train/b/cut.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "train/b/photo.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (root / "train/b/no ending").write_bytes(whole)
    (root / "train/loose.png").write_bytes(whole)
    (root / "val/a/cut.png").write_bytes((root / "train/a/000.png").read_bytes()[:-40])
    return root


def listed(root):
    return [
        f"{root}/train/loose.png: lies beside the folders of the classes, in none of them",
        f"{root}/train/b/no ending: holds a picture, but its ending is not that of one",
        f"{root}/train/b/photo.heic: .heic files are not read; save it as PNG or JPEG",
        f"{root}/train/a/text.jpg: not a picture; it begins with b'I am a poem'",
        f"{root}/train/a/zero.jpg: the file is empty (0 bytes)",
        f"{root}/train/b/cut.jpg: image file is truncated",
        f"{root}/val/a/cut.png: ",
        "class 'empty' of train: has no picture that can be read",
        "class 'empty' of validation: has no picture that can be read",
        "class 'rare' of validation: is missing, and train has it",
    ]


def test_all_problems_are_listed_in_one_error(dirty):
    with pytest.raises(ValueError) as error:
        images(dirty)
    message = str(error.value)
    assert message.startswith("The data has 10 problems.\n  given:     ")
    for line in listed(dirty):
        assert line in message
    assert message.endswith('to mend:   put it right, or leave it out: on_bad_file="skip"')


def test_skip_leaves_them_out_and_says_how_many_and_which(dirty):
    with pytest.warns(
        UserWarning, match=r"Bad pictures left out: 7\. Classes empty or missing in a split: 3\."
    ) as warned:
        splits = images(dirty, on_bad_file="skip", batch_size=2)
    assert warned[0].filename == __file__
    assert splits.classes == ("a", "b", "rare")
    assert splits.counts["train"] == {"a": 4, "b": 4, "rare": 2}
    assert splits.counts["validation"] == {"a": 2, "b": 2, "rare": 0}
    assert len(splits.skipped) == 10
    for line in listed(dirty):
        assert line in str(warned[0].message)
        assert f"left out: {line}" in str(splits)


def test_a_sound_folder_skips_nothing_and_warns_of_nothing(folder, recwarn):
    assert images(folder({"a": 4, "b": 4}), on_bad_file="skip", batch_size=2).skipped == ()
    assert not recwarn.list


def test_a_class_that_train_lacks_is_refused_even_when_skipping(folder):
    root = folder({"train/a": 4, "train/b": 4, "test/a": 2, "test/b": 2, "test/c": 2})
    for choice in ("error", "skip"):
        with pytest.raises(ValueError, match="class 'c' of test: is not in train, so no model can learn it"):
            images(root, on_bad_file=choice, batch_size=2)


def test_a_class_whose_only_picture_is_broken_is_an_empty_class(folder):
    root = folder({"a": 4, "b": 4, "c": 0})
    (root / "c/only.png").write_bytes(b"")
    with pytest.raises(ValueError, match="class 'c': has no picture that can be read"):
        images(root)
    with pytest.warns(UserWarning, match="only.png: the file is empty"):
        assert images(root, on_bad_file="skip", batch_size=2).classes == ("a", "b")


def test_where_nothing_is_left_skipping_is_refused(folder):
    root = folder({"a": 0, "b": 0})
    (root / "a/x.png").write_bytes(b"")
    with pytest.raises(ValueError, match="train: has no picture at all"):
        images(root, on_bad_file="skip")


def test_a_split_of_which_nothing_is_left_is_refused(folder):
    root = folder({"train/a": 4, "train/b": 4, "val/a": 0, "val/b": 0})
    with pytest.raises(ValueError, match="validation: has no picture at all"):
        images(root, on_bad_file="skip", batch_size=2)


def test_a_file_that_goes_bad_later_is_named(folder):
    splits = images(folder({"a": 2, "b": 2}), validation=0, batch_size=2, image_size=4)
    splits.train.examples.paths[1].write_bytes(b"")
    with pytest.raises(ValueError, match=r"could be read before cannot be read now\.\n  given: +.*a/001\.png"):
        splits.peek(splits.train, [1])


def test_on_bad_file_has_two_values(folder):
    with pytest.raises(ValueError, match="`on_bad_file` is not known"):
        images(folder({"a": 2, "b": 2}), on_bad_file="ignore")
