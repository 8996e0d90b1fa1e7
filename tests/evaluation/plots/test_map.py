"""Which points a map shows in which look, and what is refused."""

import numpy as np
import pytest
from figures import assert_legible, assert_refused, words
from matplotlib.colors import to_hex

from keras_transfer.evaluation.plots.map import COLOURS, Cloud, draw_map


def _cloud(groups=7, each=5, **options):
    places = np.random.default_rng(0).normal(size=(groups * each, 2))
    return Cloud("a map", places, np.repeat(np.arange(groups), each), [f"group {n}" for n in range(groups)], **options)


def _points(figure):
    """The places of all points of the map by colour and whether they are rings."""
    (axes,) = [axes for axes in figure.axes if axes.get_position().width * figure.get_size_inches()[0] > 3]
    return {
        (to_hex(dots.get_edgecolors()[0]), not dots.get_facecolors().size): np.asarray(dots.get_offsets())
        for dots in axes.collections
    }


def test_every_point_stands_at_its_place_in_the_look_of_its_group_and_domain(tmp_path, drawn):
    hollow = np.arange(15) % 5 == 0
    cloud = _cloud(groups=3, hollow=hollow)
    draw_map([cloud], tmp_path / "map.png", title="Points", facts="of three groups")
    points = _points(drawn[0])
    for group in range(3):
        for ring in (False, True):
            expected = cloud.places[(cloud.groups == group) & (hollow == ring)]
            np.testing.assert_allclose(points[COLOURS[group].lower(), ring], expected)


def test_groups_that_belong_together_look_alike(tmp_path, drawn):
    cloud = _cloud(groups=2, looks=[1, 0])
    draw_map([cloud], tmp_path / "map.png", title="Points", facts="of two groups")
    points = _points(drawn[0])
    for group in range(2):
        np.testing.assert_allclose(points[COLOURS[1 - group].lower(), False], cloud.places[cloud.groups == group])


@pytest.mark.parametrize("groups", [1, 7, 15])
def test_a_map_is_legible(groups, tmp_path, drawn):
    strips = [(f"a group with a very long name, number {n}", [np.full((4, 6, 3), 90)] * 9) for n in range(3)]
    draw_map([_cloud(groups), _cloud(groups)], tmp_path / "map.png", title="Points " * 9, facts="f", strips=strips)
    assert_legible(drawn[0])
    assert f"group {groups - 1}" in words(drawn[0])


def test_groups_of_one_colour_have_other_shapes(tmp_path, drawn):
    draw_map([_cloud(14)], tmp_path / "map.png", title="Points", facts="of 14 groups")
    (axes,) = [axes for axes in drawn[0].axes if axes.get_position().width > 0.5]
    looks = {(to_hex(dots.get_facecolors()[0]), dots.get_paths()[0].vertices.tobytes()) for dots in axes.collections}
    assert len(looks) == 14


@pytest.mark.parametrize(
    ("cloud", "words"),
    [
        (Cloud("odd", np.zeros((3, 2)), np.array([0, 1]), ["a", "b"]), "odd"),
        (Cloud("odd", np.zeros((2, 2)), np.array([0, 2]), ["a", "b"]), "2 names"),
        (Cloud("odd", np.full((1, 2), np.nan), np.array([0]), ["a"]), "NaN"),
    ],
)
def test_a_map_that_does_not_fit_together_is_refused(cloud, words, tmp_path):
    assert_refused(words, draw_map, [cloud], tmp_path / "map.png", title="t", facts="f")
