"""Labelled texts: from every kind of source, divided, and in batches of similar length."""

import itertools
import subprocess
import sys

import keras
import numpy as np
import pytest
from columns import Column
from readers import bert, gpt2, model_of, text_classifier

from keras_transfer import data, predict

WORDS = ["a", "bad", "film", "fine", "good", "it", "not", "the", "very", "was"]


def made_up(count: int = 50):
    """(Texts of 1 to 25 words, each different from all others; labels)."""
    drawn = np.random.default_rng(0)
    texts = [" ".join(drawn.choice(WORDS, 1 + number % 25)) + f" {number}" for number in range(count)]
    return texts, ["good" if number % 3 else "bad" for number in range(count)]


@pytest.fixture
def splits():
    return data.texts(made_up(), batch_size=8, seed=5)


@pytest.fixture
def model():
    return model_of(bert())


def taken(batches, count=None):
    return [keras.tree.map_structure(np.asarray, batch) for batch in itertools.islice(batches, count)]


def assert_same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        keras.tree.map_structure(np.testing.assert_array_equal, one, other)


def test_arrays_are_divided_class_by_class_and_the_same_whatever_their_order():
    texts, labels = made_up()
    splits = data.texts((texts, labels), batch_size=8)
    assert splits.counts == {"train": {"bad": 14, "good": 26}, "validation": {"bad": 3, "good": 7}}
    for turned in (
        (np.array(texts[::-1], object), np.array(labels[::-1])),
        (Column(texts[::-1]), Column(labels[::-1])),
    ):
        again = data.texts(turned, batch_size=8)
        assert set(splits.peek(splits.validation, range(10))) == set(again.peek(again.validation, range(10)))


def test_a_folder_of_tables_is_divided_as_they_are_called(tmp_path):
    for name, rows in (("train", "good\ta\nbad\tb\n"), ("val", "good\tc\nbad\td\n"), ("test", "bad\te\ngood\tf\n")):
        (tmp_path / f"{name}.tsv").write_text("label\ttext\n" + rows)
    (tmp_path / "notes.tsv").write_text("nothing")
    splits = data.texts(tmp_path, batch_size=1)
    assert [(split.name, splits.peek(split, [0, 1]).tolist()) for split in splits.all] == [
        ("train", ["a", "b"]),
        ("validation", ["c", "d"]),
        ("test", ["e", "f"]),
    ]
    assert splits.notes == (f"tables in {tmp_path} that are no splits were passed over: notes.tsv",)


def test_a_folder_of_tables_without_train_asks_which_is_which(tmp_path):
    (tmp_path / "reviews.tsv").write_text("label\ttext\ngood\ta\n")
    with pytest.raises(ValueError, match=r"which splits cannot be told[\s\S]*given: +reviews.tsv"):
        data.texts(tmp_path)


@pytest.mark.parametrize("parts", [[""], ["train", "test"]])
def test_folders_of_text_files_are_classes(tmp_path, parts):
    for part, name, number in itertools.product(parts, ("neg", "pos"), range(3)):
        place = tmp_path / part / name
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.txt").write_text(f"{part} {name} {number}\nsecond line")
    (place / "LICENSE").write_text("free")
    splits = data.texts(tmp_path, batch_size=2, validation=0)
    assert splits.counts["train"] == {"neg": 3, "pos": 3}
    assert splits.peek(splits.train, [0])[0].strip() == f"{parts[0]} neg 0\nsecond line".strip()
    assert splits.train.describe(5) == str(tmp_path / parts[0] / "pos" / "2.txt")
    assert [note for note in splits.notes if "no .txt" in note] == [
        f"files below {place} that are no .txt were passed over: without ending"
    ]


PAIRS = [("a film", "a good film"), ("not bad", "was it"), ("fine", "very fine"), ("the film", "not it")] * 2
FOLLOWS = ["yes", "no", "yes", "no"] * 2


@pytest.mark.parametrize(
    "texts",
    [PAIRS, [list(pair) for pair in PAIRS], np.array(PAIRS), [tuple(part.encode() for part in pair) for pair in PAIRS]],
    ids=["tuples", "lists", "array", "bytes"],
)
def test_texts_that_are_read_together_come_as_tuples(texts, model):
    splits = data.texts((texts, FOLLOWS), batch_size=2, validation=0)
    assert splits.train.examples.texts == PAIRS
    assert splits.peek(splits.train, [0]).tolist() == ["a film | a good film"]
    x, y = splits.without_pictures(splits.train, model, np.arange(3))
    preprocessor = bert(x["token_ids"].shape[1])
    expected = preprocessor(tuple(map(list, zip(*PAIRS[:3], strict=True))), y=None)
    for name, column in x.items():
        np.testing.assert_array_equal(column, keras.ops.convert_to_numpy(expected[name]), err_msg=name)
    assert y.tolist() == [1, 0, 1]


def test_a_table_may_hold_what_is_read_together_in_several_columns(tmp_path):
    lines = ["id\tpremise\thypothesis\tlabel"]
    lines += [
        f"{n}\t{one}\t{other}\t{label}" for n, ((one, other), label) in enumerate(zip(PAIRS, FOLLOWS, strict=True))
    ]
    (tmp_path / "pairs.tsv").write_text("\n".join(lines))
    splits = data.texts(tmp_path / "pairs.tsv", text=("premise", "hypothesis"), batch_size=2, validation=0)
    assert splits.train.examples.texts == PAIRS
    assert splits.fingerprint == data.texts((PAIRS, FOLLOWS), batch_size=2, validation=0).fingerprint
    with pytest.raises(
        ValueError, match=r"names a column that the table does not have[\s\S]*'hypotesis'[\s\S]*'hypothesis'"
    ):
        data.texts(tmp_path / "pairs.tsv", text=("premise", "hypotesis"))


def test_which_of_two_texts_is_bad_is_said():
    pairs = [*PAIRS, ("a film", " "), ("a\0film", "it")]
    with pytest.raises(ValueError, match=r"texts\[8\]: its text 2 of 2 has no text\n.*its text 1 of 2 has a NUL byte"):
        data.texts((pairs, [*FOLLOWS, "yes", "no"]))
    assert len(data.texts((pairs, [*FOLLOWS, "yes", "no"]), on_bad_rows="skip", validation=0, batch_size=2).train) == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": ("premise",)}, "`text` names no columns"),
        ({"text": ("premise", "premise")}, "`text` names no columns"),
        ({"text": 3}, "`text` names no columns"),
        ({"text": ("premise", "hypothesis"), "label": False}, r"reads one text[\s\S]*kt.data.prompts"),
    ],
)
def test_columns_that_cannot_be_read_together_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        data.texts("pairs.tsv", **options)


@pytest.mark.parametrize("source", [PAIRS, (["a film", "it was"], ["yes", "no"])], ids=["pairs", "texts and labels"])
def test_a_language_model_is_given_one_text_in_a_row(source):
    with pytest.raises(ValueError, match=r"A language model reads one text[\s\S]*2 texts in a row"):
        data.texts(source, label=False)


def test_rows_with_another_number_of_texts_are_listed():
    with pytest.raises(ValueError, match=r"texts\[3\]: has 1 texts to be read together, and the first row 2"):
        data.texts(([*PAIRS[:3], "a film", *PAIRS[4:]], FOLLOWS))
    with pytest.raises(ValueError, match=r"texts\[1\]: has 0 texts to be read together, and the first row 1"):
        data.texts((["a film", ()], ["yes", "no"]))
    single = [first for first, _ in PAIRS]
    with pytest.raises(ValueError, match=r"do not have as many texts[\s\S]*2 in a row of train, 1 in a row of test"):
        data.texts({"train": (PAIRS, FOLLOWS), "test": (single, FOLLOWS)}, batch_size=2, validation=0)


def test_columns_are_named_where_there_are_columns(tmp_path):
    single = [first for first, _ in PAIRS]
    with pytest.raises(ValueError, match="not all of the source has columns"):
        data.texts((single, FOLLOWS), text=("premise", "hypothesis"))
    for name in FOLLOWS[:2]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.txt").write_text("a film")
    with pytest.raises(ValueError, match="not all of the source has columns"):
        data.texts(tmp_path, text=("premise", "hypothesis"))


def test_more_texts_than_the_model_has_segments_are_refused():
    """JAX looks up NaN for the third segment of two."""
    reader = text_classifier()
    triples = [(*pair, "it was") for pair in PAIRS]
    splits = data.texts((triples, FOLLOWS), batch_size=2, validation=0)
    with pytest.raises(ValueError, match=r"does not tell so many texts apart[\s\S]*3 texts in a row[\s\S]*at most 2"):
        splits.training_batches(reader)
    with pytest.raises(ValueError, match=r"does not tell so many texts apart"):
        predict(reader, triples)


def test_words_are_counted_in_every_text_of_a_row():
    splits = data.texts((PAIRS, FOLLOWS), batch_size=2, validation=0)
    assert [splits._words(splits.train, number) for number in range(4)] == [5, 4, 3, 4]


def test_two_lists_are_no_texts_that_are_read_together():
    with pytest.raises(ValueError, match=r"not as many labels as texts[\s\S]*\[\(first, second\), …\]"):
        data.texts(((["a", "b", "c"], ["d", "e", "f"]), ["x", "y", "x"]))
    with pytest.raises(ValueError, match=r"8 texts, 7 labels(?![\s\S]*\[\(first)"):
        data.texts((PAIRS, FOLLOWS[:7]))
    with pytest.raises(ValueError, match="0 texts, 1 labels"):
        data.texts(([], ["x"]))


def test_a_text_file_beside_the_classes_is_listed(tmp_path):
    for name in ("neg", "pos"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(name)
    (tmp_path / "loose.txt").write_text("?")
    with pytest.raises(ValueError, match=r"loose.txt: lies beside the folders of the classes"):
        data.texts(tmp_path)


def test_a_mapping_gives_each_split_its_source(tmp_path):
    (tmp_path / "a.tsv").write_text("label\ttext\ngood\ta\nbad\tb\n")
    splits = data.texts(
        {"train": tmp_path / "a.tsv", "test": (["c", "d"], ["bad", "good"])}, batch_size=1, validation=0
    )
    assert splits.counts == {"train": {"bad": 1, "good": 1}, "test": {"bad": 1, "good": 1}}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ((["a", "b"], ["x"]), "not as many labels as texts"),
        (42, "nothing that texts can be read from"),
        (["a", "b", "c"], "nothing that texts can be read from"),
        ((["a", 7, None], ["x", "y", "x"]), r"texts\[1\]: is no text but int 7\n.*texts\[2\]: is no text but NoneType"),
        ("no/such/place.tsv", "There is no such folder or table"),
    ],
)
def test_what_is_no_source_says_so(source, message):
    with pytest.raises(ValueError, match=message):
        data.texts(source)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 0}, "`max_length` is no length"),
        ({"buckets": [0]}, "`buckets` are no lengths"),
        ({"on_bad_rows": "ignore"}, "`on_bad_rows` is not known"),
        ({"batch_size": 1000}, "`batch_size` does not fit"),
        ({"validation": 1.5}, "`validation` is no part"),
    ],
)
def test_settings_that_mean_nothing_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        data.texts(made_up(), **options)


def test_the_table_shows_classes_and_lengths(splits):
    assert str(splits).splitlines()[:7] == [
        "class  train  validation",
        "bad       14           3",
        "good      26           7",
        "all       40          10",
        "words       ≤8  ≤16  ≤32",
        *[line for line in str(splits).splitlines() if line.startswith(("train ", "validation "))],
    ]
    assert "the model's length, batches of 8, seed 5" in str(splits)


@pytest.mark.both_backends
def test_a_batch_is_what_the_preprocessor_gives_at_the_batchs_length(splits, model):
    for batches, split in (
        (splits.training_batches(model, epochs=1), splits.train),
        (splits.evaluation_batches(splits.validation, model), splits.validation),
    ):
        seen = []
        for x, y in batches:
            preprocessor = bert(x["token_ids"].shape[1])
            texts = {
                tuple(row): number
                for number, row in enumerate(
                    np.asarray(preprocessor(list(splits.peek(split, range(len(split)))))["token_ids"]).tolist()
                )
            }
            numbers = [texts[tuple(row)] for row in np.asarray(x["token_ids"]).tolist()]
            np.testing.assert_array_equal(y, split.labels[numbers])
            seen += numbers
        assert sorted(seen) == list(range(len(split)))


def test_every_epoch_has_the_same_number_of_batches_and_each_row_once(splits, model):
    assert splits.steps_per_epoch(model) == splits.steps_per_epoch() == 5
    batches = taken(splits.training_batches(model, epochs=3))
    assert [len(y) for _, y in batches] == [8] * 15
    rows = [
        {tuple(row[row != 0]) for x, _ in batches[first : first + 5] for row in x["token_ids"]} for first in (0, 5, 10)
    ]
    assert rows[0] == rows[1] == rows[2]


@pytest.mark.parametrize("first_step", range(0, 16, 3))
def test_from_any_step_on_the_batches_are_those_of_an_unbroken_run(splits, model, first_step):
    unbroken = taken(splits.training_batches(model, epochs=3))
    assert_same(taken(splits.training_batches(model, epochs=3, first_step=first_step)), unbroken[first_step:])


def test_the_order_is_a_function_of_seed_and_epoch(splits, model):
    def epochs(**options):
        batches = taken(splits.training_batches(model, epochs=2, **options))
        return batches[:5], batches[5:]

    assert_same(epochs()[0], epochs(seed=5)[0])
    first, second = epochs()
    other, _ = epochs(seed=6)
    for different in (second, other):
        assert any(
            a["token_ids"].shape != b["token_ids"].shape or (a["token_ids"] != b["token_ids"]).any()
            for (a, _), (b, _) in zip(first, different, strict=True)
        )


def test_a_fresh_process_gives_the_same_batches(splits, model):
    code = (
        "import sys; sys.path[:0] = ['tests', 'tests/data'];"
        "from readers import bert, model_of; from test_texts import made_up; from keras_transfer import data;"
        "splits = data.texts(made_up(), batch_size=8, seed=5);"
        "batches = splits.training_batches(model_of(bert()), epochs=2, first_step=7);"
        "print(splits.fingerprint, [x['token_ids'].numpy().tolist() for x, _ in batches])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ours = [x["token_ids"].tolist() for x, _ in taken(splits.training_batches(model, epochs=2, first_step=7))]
    assert run.stdout.splitlines()[-1] == f"{splits.fingerprint} {ours}"


def test_batches_are_padded_to_the_lengths_that_are_given(model):
    splits = data.texts(made_up(), batch_size=4, buckets=[16, 32], validation=0)
    batches = taken(splits.training_batches(model, epochs=1))
    assert {x["token_ids"].shape[1] for x, _ in batches} == {16, 32}
    assert "padded to 16, 32" in str(splits)


def test_evaluation_goes_in_order_or_the_short_first_with_less_padding(splits, model):
    held = splits.train
    in_order = taken(splits.evaluation_batches(held, model))
    np.testing.assert_array_equal(np.concatenate([y for _, y in in_order]), held.labels)
    quick = taken(splits.evaluation_batches(held, model, in_order=False))
    order = splits.evaluation_order(held, model)
    np.testing.assert_array_equal(np.concatenate([y for _, y in quick]), held.labels[order])
    assert sum(x["token_ids"].size for x, _ in quick) < 0.85 * sum(x["token_ids"].size for x, _ in in_order)
    tokens = [tuple(row[row != 0]) for x, _ in in_order for row in x["token_ids"]]
    assert [tuple(row[row != 0]) for x, _ in quick for row in x["token_ids"]] == [tokens[number] for number in order]


def test_what_is_cut_is_said_and_max_length_cuts(model):
    splits = data.texts(made_up(), batch_size=8, max_length=12)
    with pytest.warns(UserWarning, match=r"\d+ of the 40 texts of train are longer than 12 tokens"):
        batches = taken(splits.training_batches(model, epochs=1))
    assert max(x["token_ids"].shape[1] for x, _ in batches) == 12


def test_more_than_the_model_reads_is_refused(model):
    splits = data.texts(made_up(), max_length=64)
    with pytest.raises(ValueError, match=r"does not read so far[\s\S]*max_length=64[\s\S]*at most 32 tokens"):
        splits.training_batches(model)


def test_a_classifier_on_a_language_model_learns_labels(splits):
    x, y = next(iter(splits.training_batches(model_of(gpt2(512)))))
    assert set(x) == {"token_ids", "padding_mask"}
    assert (y.dtype, y.shape) == ("int64", (8,))


def test_texts_are_tokenized_once(splits, model):
    assert splits.packed(splits.train, model) is splits.packed(splits.train, model)
    assert splits.packed(splits.train, model) is not splits.packed(splits.train, model_of(bert()))


@pytest.mark.both_backends
def test_keras_trains_evaluates_and_predicts_on_the_batches(splits, model):
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    history = model.fit(splits.training_batches(model, epochs=2), epochs=2, steps_per_epoch=5, verbose=0, shuffle=False)
    assert len(history.history["loss"]) == 2
    outputs = model.predict(splits.evaluation_batches(splits.validation, model), verbose=0)
    assert outputs.shape == (10, 2)


def test_a_text_twice_is_said_if_it_has_two_labels_or_is_in_train_and_test():
    twice = data.texts(
        {"train": (["a", "b", "a"], [0, 1, 1]), "test": (["b", "c"], [0, 1])}, batch_size=1, validation=0
    )
    assert "1 texts of train are there a second time, byte for byte, with another label" in twice.notes[0]
    assert "1 of the 2 texts of test are in train too" in twice.notes[1]


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("sst2", {"train": 6920, "validation": 872, "test": 1821}),
        ("trec6", {"train": 4362, "validation": 1090, "test": 500}),
        ("sentences_amazon", {"train": 555, "validation": 138, "test": 297}),
        ("sentences_imdb", {"train": 558, "validation": 139, "test": 300}),
    ],
)
def test_the_shared_sets_are_read_whole(shared, name, counts):
    splits = data.texts(shared / "text" / name)
    assert {split.name: len(split) for split in splits.all} == counts
    assert splits.skipped == ()
    assert not any("guessed" in note for note in splits.notes)


def test_buckets_spare_most_of_the_padding_of_real_sentences(shared):
    splits = data.texts(shared / "text/trec6", batch_size=16)
    model = model_of(bert(128))
    padded = sum(x["token_ids"].shape[0] * x["token_ids"].shape[1] for x, _ in splits.training_batches(model, epochs=1))
    tokens = splits.packed(splits.train, model).lengths.sum()
    assert padded < 1.35 * tokens


def test_a_file_that_is_no_table_is_not_taken_for_the_name_of_a_data_set(tmp_path, monkeypatch):
    (tmp_path / "corpus.txt").write_text("some words")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="(?s)no table.*folder that it lies in"):
        data.texts("corpus.txt", label=False)


@pytest.mark.parametrize(("missing", "shown"), [(None, "None"), (float("nan"), "nan")])
def test_a_label_that_is_missing_is_named_with_its_place(missing, shown):
    with pytest.raises(ValueError, match=f"(?s)one label for each text.*{shown}.* at place 2"):
        data.texts((["one", "two", "three", "four"], [0, 1, missing, 1]), batch_size=1)
