"""Names in any script, files written whole or not at all, settings left as they were."""

import re
import sys

import matplotlib
import numpy as np
import pytest
from figures import assert_refused, history, random_report, words
from matplotlib import font_manager, ft2font, image
from matplotlib.figure import Figure

from keras_transfer.evaluation import plots


def test_names_are_drawn_as_they_are_spelt(tmp_path, drawn):
    names = ["$5_note$", "Straße", "cafe\u0301 Ω", "a\nb"]
    plots.confusion(random_report(names, 40), tmp_path / "confusion.png")
    labels = [label.get_text() for label in drawn[0].axes[-1].get_yticklabels()]
    assert labels == ["$5_note$", "Straße", "cafe\u0301 Ω", "a b"]


def letters(font):
    return set(ft2font.FT2Font(font_manager.findfont(font)).get_charmap())


def test_letters_that_the_usual_font_lacks_come_from_another_one(tmp_path, drawn):
    letter = chr(min(letters("STIXGeneral") - letters("DejaVu Sans")))
    plots.confusion(random_report([letter, "b"], 40), tmp_path / "confusion.png")
    assert drawn[0].axes[-1].get_yticklabels()[0].get_text() == letter
    assert "no installed font" not in words(drawn[0])


@pytest.mark.filterwarnings("error")
def test_a_name_that_no_font_can_draw_becomes_its_number_and_the_picture_says_so(tmp_path, drawn):
    nobodys = "\U000e1234"
    plots.confusion(random_report(["a", nobodys * 3], 40), tmp_path / "confusion.png")
    assert drawn[0].axes[-1].get_yticklabels()[1].get_text() == "no. 1"
    assert "“no. …”: a name with letters that no installed font has" in words(drawn[0])


def test_names_that_are_too_long_lose_their_middle(tmp_path, drawn):
    names = ["american_pit_bull_terrier_of_the_first_kind", "american_pit_bull_terrier_of_the_second_kind"]
    plots.confusion(random_report(names, 40), tmp_path / "confusion.png")
    first, second = [label.get_text() for label in drawn[0].axes[-1].get_yticklabels()]
    assert first != second
    assert re.fullmatch("american_.*….*first_kind", first)


def test_folders_are_made_and_the_format_follows_the_ending(tmp_path):
    path = plots.confusion(random_report(["a", "b"], 40), tmp_path / "a" / "b" / "confusion.SVG")
    assert path.read_text(encoding="utf-8").startswith("<?xml")
    assert_refused(
        r"given:\s+.*c\.jpgg(.|\n)*nearest:\s+.*c\.png",
        plots.confusion,
        random_report(["a", "b"], 40),
        tmp_path / "c.jpgg",
    )


def test_a_picture_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "confusion.png"
    path.write_bytes(b"the old one")

    def full_disk(figure, file, **options):
        file.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(Figure, "savefig", full_disk)
    with pytest.raises(OSError, match="no space"):
        plots.confusion(random_report(["a", "b"], 40), path)
    assert path.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [path]


def test_drawing_leaves_matplotlib_as_it_was_and_does_not_follow_the_users_style(tmp_path):
    pyplot_was_there = "matplotlib.pyplot" in sys.modules
    rows = history(("head", 2))
    plain = plots.learning_curves(rows, tmp_path / "plain.png")
    with matplotlib.rc_context({"font.size": 30, "figure.facecolor": "black", "lines.linewidth": 9, "savefig.dpi": 10}):
        before = dict(matplotlib.rcParams)
        styled = plots.learning_curves(rows, tmp_path / "styled.png")
        assert dict(matplotlib.rcParams) == before
    np.testing.assert_array_equal(image.imread(plain), image.imread(styled))
    assert ("matplotlib.pyplot" in sys.modules) == pyplot_was_there
