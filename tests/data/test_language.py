"""Texts for language models: windows of documents, and prompts with the loss on the response only."""

import keras
import numpy as np
import pytest
from readers import SENTENCES, bart, bert, gemma, gpt2, model_of, t5

from keras_transfer import data

PROMPTS = ["the film was", "was it a good film", "not", "a film"]
RESPONSES = [" good", " very good", " bad", ", fine"]


def rows(batches):
    """Every row as (tokens, next tokens, weights)."""
    found = []
    for x, y, weight in batches:
        found += list(zip(*(np.asarray(column) for column in (x["token_ids"], y, weight)), strict=True))
    return found


def written(preprocessor, row):
    """What the weighted next tokens of a row say, the end token left out."""
    _, following, weight = row
    tokens = following[weight.astype(bool)]
    return preprocessor.tokenizer.detokenize(tokens[tokens != preprocessor.tokenizer.end_token_id].tolist())


@pytest.mark.both_backends
@pytest.mark.parametrize("reader", [gpt2, gemma])
def test_the_loss_is_on_the_response_and_its_end_only(reader):
    preprocessor = reader(64)
    splits = data.prompts((PROMPTS, RESPONSES), separator="", batch_size=2, validation=0)
    found = rows(splits.evaluation_batches(splits.train, model_of(preprocessor)))
    assert [written(preprocessor, row).strip() for row in found] == [response.strip() for response in RESPONSES]
    for _, following, weight in found:
        assert following[np.flatnonzero(weight)[-1]] == preprocessor.tokenizer.end_token_id


def test_a_token_that_reaches_from_prompt_to_response_is_learnt():
    """ "t" + "he" is the one token "the" in GPT-2's way of joining bytes, and no token of the prompt."""
    preprocessor = gpt2(16)
    splits = data.prompts((["a t", "b"], ["he", "c"]), separator="", batch_size=1, validation=0)
    row = rows(splits.evaluation_batches(splits.train, model_of(preprocessor)))[0]
    assert written(preprocessor, row) == "the"


def test_the_separator_belongs_to_the_prompt():
    preprocessor = gpt2(64)
    splits = data.prompts((PROMPTS, RESPONSES), separator="\n", batch_size=4, validation=0)
    assert splits.peek(splits.train, [0])[0] == "the film was\n good"
    found = rows(splits.evaluation_batches(splits.train, model_of(preprocessor)))
    assert [written(preprocessor, row) for row in found] == RESPONSES


def test_prompts_that_leave_no_room_are_listed():
    splits = data.prompts((["a " * 20, "b"], ["c", "d"]), batch_size=1, validation=0)
    with pytest.raises(ValueError, match=r"1 prompts of train leave no room[\s\S]*prompts\[0\]"):
        splits.training_batches(model_of(gpt2(16)))


def test_prompts_come_from_tables_folders_and_mappings(tmp_path):
    for name in ("train", "test"):
        (tmp_path / f"{name}.tsv").write_text(f"prompt\tresponse\nHello {name}\tHi\nBye {name}\tCiao\n")
    for source in (tmp_path, {"train": tmp_path / "train.tsv", "test": tmp_path / "test.tsv"}):
        splits = data.prompts(source, batch_size=1, validation=0)
        assert splits.peek(splits.test, [1])[0] == "Bye test\nCiao"
        assert splits.classes == ()
    with pytest.raises(ValueError, match=r"There is no such folder[\s\S]*alpaca"):
        data.prompts("alpaca")


def test_prompts_and_responses_may_come_one_by_one():
    splits = data.prompts((iter(["Hello", "Bye"]), iter(["Hi", "Ciao"])), batch_size=1, validation=0)
    assert splits.peek(splits.train, [0, 1]).tolist() == ["Hello\nHi", "Bye\nCiao"]
    with pytest.raises(ValueError, match="2 prompts, 1 responses"):
        data.prompts((iter(["Hello", "Bye"]), iter(["Hi"])))


def test_bad_pairs_are_listed(tmp_path):
    (tmp_path / "a.tsv").write_text("prompt\tresponse\nHello\t\n\tHi\nBye\tCiao\n")
    with pytest.raises(ValueError, match=r"line 2: its response has no text\n.*line 3: its prompt has no text"):
        data.prompts(tmp_path / "a.tsv")
    with pytest.raises(ValueError, match="not as many responses as prompts"):
        data.prompts((["a"], []))


def test_documents_are_cut_into_windows_and_an_epoch_has_every_window_once():
    model = model_of(gpt2(8))
    splits = data.texts(SENTENCES, label=False, batch_size=4, validation=0)
    windows = splits.packed(splits.train, model)
    assert splits.steps_per_epoch(model) == -(-len(windows) // 4)
    with pytest.raises(ValueError, match="depends on the model"):
        splits.steps_per_epoch()
    batches = list(splits.training_batches(model, epochs=1))
    assert len(batches) == splits.steps_per_epoch(model)
    taught = sum(int(np.sum(weight)) for _, _, weight in batches)
    tokenizer = gpt2().tokenizer
    assert taught == sum(len(tokenizer(text)) + 1 for text in SENTENCES)


def test_a_corpus_is_a_folder_of_text_files_however_deep(tmp_path):
    for name in ("one.txt", "deep/er/two.txt", "README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"the film {name}")
    splits = data.texts(tmp_path, label=False, validation=0)
    assert sorted(splits.peek(splits.train, [0, 1])) == ["the film deep/er/two.txt", "the film one.txt"]
    assert splits.notes == (f"files below {tmp_path} that are no .txt were passed over: .md",)
    assert str(splits).splitlines()[0].split() == ["train"]


def test_documents_are_held_out_whole():
    splits = data.texts([f"document {number}" for number in range(10)], label=False)
    assert [(split.name, len(split)) for split in splits.all] == [("train", 8), ("validation", 2)]
    assert splits.notes == ("validation is 20 % taken off train",)


def test_a_model_that_writes_nothing_is_refused():
    splits = data.texts(SENTENCES, label=False, validation=0)
    with pytest.raises(ValueError, match="data is for a language model, and the model is none"):
        splits.training_batches(model_of(bert(512)))


@pytest.mark.both_backends
def test_a_language_model_of_keras_trains_on_the_batches():
    preprocessor = gpt2(16)
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in ("token_ids", "padding_mask")}
    outputs = keras.layers.Dense(300)(keras.layers.Embedding(300, 8)(inputs["token_ids"]))
    model = keras.Model(inputs, outputs)
    model.preprocessor = preprocessor
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    splits = data.texts(SENTENCES, label=False, batch_size=4, validation=0)
    steps = splits.steps_per_epoch(model)
    history = model.fit(splits.training_batches(model), epochs=5, steps_per_epoch=steps, verbose=0, shuffle=False)
    assert history.history["loss"][-1] < history.history["loss"][0]


def _writer(preprocessor):
    """Takes what a sequence-to-sequence preprocessor gives; only its name and its inputs matter here."""
    names = ("encoder_token_ids", "encoder_padding_mask", "decoder_token_ids", "decoder_padding_mask")
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in names}
    model = keras.Model(inputs, keras.layers.Embedding(300, 4)(inputs["decoder_token_ids"]))
    model.preprocessor = preprocessor
    return model


@pytest.mark.both_backends
@pytest.mark.parametrize("reader", [t5, bart])
def test_a_prompt_is_read_and_a_response_written_as_the_preprocessor_has_it(reader):
    preprocessor = reader()
    splits = data.prompts((PROMPTS, RESPONSES), batch_size=3, validation=0)
    found = {}
    for x, y, weight in splits.evaluation_batches(splits.train, _writer(preprocessor)):
        for name, column in {**x, "y": y, "sample_weight": weight}.items():
            found.setdefault(name, []).extend(np.asarray(column))
    expected, y, weight = preprocessor({"encoder_text": PROMPTS, "decoder_text": RESPONSES})
    expected |= {"y": y, "sample_weight": weight}
    padding = {name: preprocessor.tokenizer.pad_token_id if name.endswith(("ids", "y")) else 0 for name in expected}
    assert set(found) == set(expected)
    for name, rows_of in found.items():
        for row, whole in zip(rows_of, np.asarray(expected[name]), strict=True):
            shared = min(len(row), len(whole))
            np.testing.assert_array_equal(row[:shared], whole[:shared], err_msg=name)
            assert (row[shared:] == padding[name]).all()
            assert (whole[shared:] == padding[name]).all()


def test_neither_text_is_kept_beyond_its_own_length_and_what_is_cut_is_counted():
    splits = data.prompts((["a film " * 9, "a", "a"], ["fine", "a film " * 9, "fine"]), batch_size=3, validation=0)
    with pytest.warns(UserWarning, match="2 of the 3 pairs of train are longer than what is read, or written"):
        packed = splits.packed(splits.train, _writer(t5(reads=12, writes=6)))
    rows_of = packed.padded([0, 1, 2], 12)
    assert rows_of["encoder_padding_mask"].sum(axis=1).tolist()[0] == 12
    assert rows_of["decoder_padding_mask"].sum(axis=1).tolist()[1] == 6
    assert rows_of["decoder_padding_mask"][:, 6:].sum() == 0


def test_texts_alone_are_nothing_for_a_model_that_reads_one_and_writes_another():
    splits = data.texts(SENTENCES, label=False, validation=0)
    with pytest.raises(ValueError, match=r"reads one text and writes another[\s\S]*kt\.data\.prompts"):
        splits.training_batches(_writer(t5()))
