import numpy as np
import pytest
from figures import assert_a_picture, assert_legible, words

import keras_transfer as kt
from keras_transfer.study.plane import on_a_plane, unit


def _three_kinds(sizes=(30, 20, 10), spread=0.3):
    draw = np.random.default_rng(0)
    features = np.repeat(np.eye(3, 8) * 5, sizes, axis=0) + spread * draw.normal(size=(sum(sizes), 8))
    order = draw.permutation(len(features))
    return features[order], np.repeat(["ant", "bee", "cat"], sizes)[order]


def test_groups_are_found_and_numbered_by_size():
    features, kinds = _three_kinds()
    found = kt.clusters(features, 3)
    assert found.sizes == (30, 20, 10)
    assert [set(kinds[found.of == cluster]) for cluster in range(3)] == [{"ant"}, {"bee"}, {"cat"}]
    assert found.silhouette > 0.8
    for cluster in range(3):
        np.testing.assert_allclose(found.centres[cluster], unit(features)[found.of == cluster].mean(axis=0))


def test_the_length_of_features_does_not_matter():
    features, _ = _three_kinds()
    lengths = np.random.default_rng(1).uniform(0.1, 10, (len(features), 1))
    np.testing.assert_array_equal(kt.clusters(features, 3).of, kt.clusters(features * lengths, 3).of)


def test_the_most_typical_examples_are_those_nearest_the_centre():
    features, _ = _three_kinds()
    found = kt.clusters(features, 3)
    typical = found.typical(1, count=20)
    distances = np.linalg.norm(found.features[typical] - found.centres[1], axis=1)
    assert (np.diff(distances) >= 0).all()
    assert set(typical) == set(np.flatnonzero(found.of == 1))


def test_agreement_is_one_for_the_same_division_and_chance_for_none():
    features, kinds = _three_kinds()
    found = kt.clusters(features, 3)
    agreement = found.agreement(kinds)
    assert (agreement.purity, agreement.adjusted_rand, agreement.neighbours) == (1.0, 1.0, 1.0)
    assert agreement.names == (("ant", 1.0), ("bee", 1.0), ("cat", 1.0))
    shuffled = found.agreement(np.random.default_rng(2).permutation(kinds))
    assert abs(shuffled.adjusted_rand) < 0.1
    assert shuffled.neighbours == pytest.approx(shuffled.by_chance, abs=0.1)
    # 30 of 60 are ants: of the pairs of all, (30 * 29 + 20 * 19 + 10 * 9) / (60 * 59).
    assert shuffled.by_chance == pytest.approx(1340 / 3540)


def test_purity_and_neighbours_are_those_of_a_count_by_hand():
    features, _ = _three_kinds(sizes=(3, 3, 2), spread=0.01)
    found = kt.clusters(features, 2)
    labels = np.where(np.arange(8) % 2, 1, 0)
    agreement = found.agreement(labels, classes=["even", "odd"])
    most = [np.bincount(labels[found.of == cluster]).max() for cluster in range(2)]
    assert agreement.purity == sum(most) / 8
    cosines = unit(features) @ unit(features).T - 9 * np.eye(8)
    nearest = np.argsort(-cosines, axis=1)[:, :5]
    assert agreement.neighbours == pytest.approx((labels[nearest] == labels[:, None]).mean())


def test_neighbours_are_the_most_alike_and_never_oneself(monkeypatch):
    features = np.random.default_rng(3).normal(size=(1500, 4))  # more than one portion
    found = kt.neighbours(features, count=3)
    cosines = unit(features) @ unit(features).T
    np.fill_diagonal(cosines, -np.inf)
    np.testing.assert_array_equal(found.numbers, np.argsort(-cosines, axis=1, kind="stable")[:, :3])
    np.testing.assert_allclose(found.similarities, -np.sort(-cosines, axis=1)[:, :3])


def test_a_query_among_what_is_searched_finds_itself():
    features = np.random.default_rng(3).normal(size=(9, 4))
    found = kt.neighbours(features, features[4:5] * 7, count=2)
    assert found.numbers[0, 0] == 4
    assert found.similarities[0, 0] == pytest.approx(1)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: kt.clusters(x, 1), "from 2 to 59"),
        (lambda x: kt.clusters(x[:1].repeat(9, axis=0), 3), "1 different"),
        (lambda x: kt.clusters(x.ravel(), 3), r"shape \(480,\)"),
        (lambda x: kt.clusters(np.where(x > 0, np.nan, x), 3), "not all of them finite"),
        (lambda x: kt.neighbours(x, count=60), "from 1 to 59"),
        (lambda x: kt.neighbours(x, x[:, :3]), r"expected: *finite numbers of shape \(examples, 8\)"),
        (lambda x: kt.clusters(x, 3).agreement(["ant"] * 60), "of two classes or more"),
        (lambda x: kt.clusters(x, 3).agreement(["ant", "bee"]), "expected: *60 labels"),
    ],
)
@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_what_cannot_be_divided_or_searched_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call(_three_kinds()[0])


def test_the_map_keeps_groups_apart_and_is_the_same_again():
    features, kinds = _three_kinds(sizes=(12, 10, 8))
    places = on_a_plane(features, seed=3)
    np.testing.assert_array_equal(places, on_a_plane(features, seed=3))
    nearest = np.argsort(np.linalg.norm(places[:, None] - places, axis=-1) + 1e9 * np.eye(30), axis=1)[:, 0]
    assert (kinds[nearest] == kinds).mean() > 0.95


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_handful_of_examples_has_a_map_too(count):
    assert on_a_plane(np.random.default_rng(0).normal(size=(count, 5))).shape == (count, 2)


def test_clusters_are_drawn_with_their_most_typical_pictures(tmp_path, drawn):
    features, kinds = _three_kinds()
    pictures = np.broadcast_to(np.arange(60, dtype="uint8")[:, None, None, None], (60, 8, 8, 3))
    found = kt.clusters(features, 3)
    path = found.plot(tmp_path / "map.png", pictures=pictures, labels=kinds)
    assert_a_picture(path, (1200, 1700), (900, 1600))
    (figure,) = drawn
    shown = [panel.images[0].get_array()[0, 0, 0] for panel in figure.axes if panel.images]
    assert shown == [number for cluster in range(3) for number in found.typical(cluster, 8)]
    assert "60 examples in 3 clusters" in words(figure)
    assert "1: 100 % bee (20)" in words(figure)
    assert_legible(figure)


@pytest.mark.parametrize("label", [-1, 3, "ant", 0.5])
def test_with_classes_labels_are_their_numbers(label):
    found = kt.clusters(_three_kinds()[0], 3)
    labels = [0, 1] * 29 + [2, label]
    with pytest.raises(ValueError, match=r"(?s)labels are the numbers of classes.*from 0 to 2"):
        found.agreement(labels, ["ant", "bee", "wasp"])


def test_pictures_are_as_many_as_the_examples(tmp_path):
    found = kt.clusters(_three_kinds()[0], 3)
    with pytest.raises(ValueError, match=r"(?s)The pictures are not those.*expected: *60"):
        found.plot(tmp_path / "map.png", pictures=np.zeros((8, 8, 8, 3), "uint8"))


def test_without_labels_as_many_typical_pictures_are_drawn(tmp_path, drawn):
    pictures = np.broadcast_to(np.arange(60, dtype="uint8")[:, None, None, None], (60, 8, 8, 3))
    found = kt.clusters(_three_kinds()[0], 3)
    found.plot(tmp_path / "map.png", pictures=pictures)
    shown = [panel.images[0].get_array()[0, 0, 0] for panel in drawn[0].axes if panel.images]
    assert shown == [number for cluster in range(3) for number in found.typical(cluster, 8)]
    assert_legible(drawn[0])
