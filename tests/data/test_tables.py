"""Tables of texts as people write them, and what is wrong with them, line by line."""

import csv

import pytest

from keras_transfer import data
from keras_transfer.data.tables import pair_table, read_rows, text_table


@pytest.fixture
def table(tmp_path):
    def write(content: str | bytes, name: str = "reviews.tsv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def held(found, split="whole"):
    examples = found.splits[split]
    return list(zip(examples.texts, examples.class_names, strict=True))


def bad_lines(path, **options):
    """The problems that reading a table into splits lists, without the path."""
    with pytest.raises(ValueError) as raised:
        data.texts(path, batch_size=1, validation=0, **options)
    return [line.split(f"{path}, ")[1] for line in str(raised.value).splitlines() if f"{path}, " in line]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", "label\ttext\ngood\tvery fine\nbad\tdull\n"),
        ("a.tsv", "text\tlabel\nvery fine\tgood\ndull\tbad"),
        ("a.csv", "text,label\nvery fine,good\ndull,bad\n"),
        ("a.csv", "text;label\nvery fine;good\ndull;bad\n"),
        ("A.TSV", "\ufefflabel\ttext\r\ngood\tvery fine\r\n\r\nbad\tdull\r\n"),
    ],
)
def test_columns_are_found_by_their_names(table, name, content):
    found = text_table(table(content, name))
    assert held(found) == [("very fine", "good"), ("dull", "bad")]
    assert found.notes == []
    assert found.problems == []


def test_tab_separated_files_are_read_without_quoting(table):
    found = text_table(table('label\ttext\ngood\t"Fine", he said\nbad\t"never closed\ngood\ta,b;c\n'))
    assert [text for text, _ in held(found)] == ['"Fine", he said', '"never closed', "a,b;c"]


def test_only_a_line_feed_ends_a_row(table):
    found = text_table(table("label\ttext\ngood\tone\u2028still one\x0bstill\u0085still\n"))
    assert held(found) == [("one\u2028still one\x0bstill\u0085still", "good")]


def test_cells_of_csv_are_quoted_and_may_have_several_lines(table):
    path = table('text,label\n"a, b\nc ""d""",good\ne,bad\n', "a.csv")
    assert held(text_table(path)) == [('a, b\nc "d"', "good"), ("e", "bad")]
    assert [line for line, _ in read_rows(path)[0]] == [1, 2, 4]


def test_columns_are_guessed_where_nothing_names_them_and_it_is_said(table):
    rows = "good\tI liked it a lot\nbad\tI did not\ngood\tyes\nbad\tno\n"
    found = text_table(table(rows))
    assert len(held(found)) == 4
    assert found.notes == [
        "columns of reviews.tsv were guessed: text in column 2, label in column 1; the first line is an example already"
    ]
    found = text_table(table("stars\tworte\n" + rows))
    assert len(held(found)) == 4
    assert found.notes[0].endswith("the first line was taken as their names")


def test_a_column_that_is_called_otherwise_is_said(table):
    found = text_table(table("Sentiment\tReview\ngood\tfine\nbad\tdull\n"))
    assert found.notes == ["columns of reviews.tsv: text from 'Review', label from 'Sentiment'"]


def test_a_column_is_taken_by_the_name_that_is_given(table):
    path = table("id\tstars\tlabel\ttext\n1\tfive\tx\tfine\n2\tone\tx\tdull\n")
    assert held(text_table(path, label="stars")) == [("fine", "five"), ("dull", "one")]
    with pytest.raises(ValueError, match=r"`label` names a column that the table does not have[\s\S]*nearest: +stars"):
        text_table(path, label="star")


def test_columns_that_cannot_be_told_are_asked_for(table):
    with pytest.raises(ValueError, match=r"holds the label cannot be told[\s\S]*name them in the first line"):
        text_table(table("id\ttext\n1\tfine\n2\tdull\n3\tgood\n4\tbad\n"))
    with pytest.raises(ValueError, match="holds the response cannot be told"):
        pair_table(table("prompt\tother\n1\t2\n"))


def test_a_split_column_divides_and_one_of_other_things_does_not(table):
    found = text_table(table("text\tlabel\tsplit\na\tx\ttrain\nb\ty\tdev\n"))
    assert (held(found, "train"), held(found, "validation")) == ([("a", "x")], [("b", "y")])
    found = text_table(table("text\tlabel\tset\na\tx\tLego\nb\ty\tDuplo\n"))
    assert held(found) == [("a", "x"), ("b", "y")]


def test_every_bad_row_is_listed_with_its_line_before_training(table):
    path = table(
        b"label\ttext\n"
        b"good\tfine\n"
        b"\tno label\n"
        b"good\t  \n"
        b"good\tna\xefve\n"
        b"good\n"
        b"good\ttwo\ttexts\n"
        b"bad\ta\0b\n"
        b"b\xe4d\tlabel of no UTF-8\n" + b"bad\t" + b"x" * 10_000_000 + b"\n"
        b"bad\tdull\n"
    )
    assert sorted(bad_lines(path), key=lambda line: int(line.split(":")[0].split()[1])) == [
        "line 3: has no label",
        "line 4: has no text",
        "line 5: is not UTF-8: byte 0xef after 2 characters",
        "line 6: has 1 cells, and the first line 2",
        "line 7: has 3 cells, and the first line 2",
        "line 8: has a NUL byte after 1 characters",
        "line 9: its label is not UTF-8",
        "line 10: has 10,000,000 characters; more than 1,000,000 are hardly one text",
    ]
    with pytest.warns(UserWarning, match=r"Bad texts left out: 8\.") as warned:
        splits = data.texts(path, batch_size=1, validation=0, on_bad_rows="skip")
    assert "line 9: its label is not UTF-8" in str(warned[0].message)
    assert splits.counts == {"train": {"bad": 1, "good": 1}}
    assert len(splits.skipped) == 8
    assert splits.train.describe(1) == f"{path}, line 11"


def test_bad_quotes_of_csv_cost_their_row_only(table):
    path = table('text,label\na,good\n"b"c,bad\nd,bad\n"never closed,good\n', "a.csv")
    assert bad_lines(path) == [
        "line 3: ',' expected after '\"'",
        "line 5: a quote opens here and is never closed",
    ]


def test_long_cells_of_csv_are_read_and_the_limit_of_others_is_left_alone(table):
    before = csv.field_size_limit()
    found = text_table(table(f"text,label\n{'x' * 200_000},good\ny,bad\n", "a.csv"))
    assert len(held(found)[0][0]) == 200_000
    assert csv.field_size_limit() == before


def test_a_split_that_is_none_is_listed_with_the_nearest(table):
    path = table("text\tlabel\tsplit\na\tx\ttrain\nb\ty\ttets\nc\ty\ttrain\n")
    assert bad_lines(path) == ["line 3: 'tets' is no split; perhaps 'test'"]


@pytest.mark.parametrize("content", ["", "\n\n", " \t \n"])
def test_an_empty_table_says_so(table, content):
    with pytest.raises(ValueError, match="The table is empty"):
        text_table(table(content))


def test_a_table_in_utf_16_says_so(table):
    with pytest.raises(ValueError, match=r"The table is not UTF-8[\s\S]*UTF-16"):
        text_table(table("label\ttext\ngood\tfine\n".encode("utf-16")))


def test_pairs_are_read_by_their_names(table):
    found = pair_table(table("id\tInstruction\tresponse\n1\tSay hello\tHello\n2\tCount\t1 2 3\n"))
    assert found.splits["whole"].prompts == ["Say hello", "Count"]
    assert found.splits["whole"].responses == ["Hello", "1 2 3"]
    assert found.notes == ["columns of reviews.tsv: prompt from 'Instruction', response from 'response'"]
