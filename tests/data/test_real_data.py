"""The shared sets, read as their users would."""

import numpy as np
import pytest

from keras_transfer.data import images, pipeline

COUNTS = {"flowers": (5, 400, 200), "pacs_photo": (7, 140, 140), "pacs_sketch": (7, 140, 140)}


@pytest.mark.parametrize("name", COUNTS)
def test_train_and_test_folders_are_read_whole(shared, name):
    classes, train, test = COUNTS[name]
    splits = images(shared / "images" / name)
    assert len(splits.classes) == classes
    assert len(splits.train) + len(splits.validation) == train
    assert len(splits.validation) == train // 5
    assert len(splits.test) == test
    assert not any("byte for byte" in note for note in splits.notes)


def test_hymenopteras_val_is_a_test_set_if_one_says_so(shared):
    root = shared / "images/hymenoptera"
    as_test = images({"train": root / "train", "test": root / "val"})
    assert as_test.counts["test"] == {"ants": 70, "bees": 83}
    assert len(as_test.train) + len(as_test.validation) == 244
    as_validation = images(root)
    assert as_validation.test is None
    assert as_validation.counts["validation"] == {"ants": 70, "bees": 83}


def test_a_manifest_of_real_files_has_the_folders_fingerprint(shared, tmp_path):
    root = shared / "images/pacs_photo"
    lines = ["path\tlabel\tsplit"]
    for split in ("train", "test"):
        for path in sorted((root / split).glob("*/*")):
            lines.append(f"{path}\t{path.parent.name}\t{split}")
    (tmp_path / "list.tsv").write_text("\n".join(lines))
    assert images(tmp_path / "list.tsv").fingerprint == images(root).fingerprint


@pytest.mark.both_backends
def test_real_batches_are_pictures_of_the_asked_size(shared):
    splits = images(shared / "images/flowers", image_size=96, augment="strong")
    x, y = next(iter(splits.training_batches(None)))
    assert x.shape == (32, 96, 96, 3)
    assert len(np.unique(y)) > 2
    assert 60 < x.numpy().mean() < 180
    paths = [splits.test.describe(number) for number in range(40)]
    predicted = np.concatenate(list(pipeline.unchanged(pipeline.readable(paths), size=(96, 96), batch_size=16)))
    evaluated = np.concatenate([batch for batch, _ in splits.evaluation_batches(splits.test, None).take(2)])
    np.testing.assert_array_equal(predicted, evaluated[:40])
