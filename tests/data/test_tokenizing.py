"""A preprocessor's own rows, without their padding and with it again."""

import itertools

import keras
import keras_hub
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from readers import PREPROCESSORS, SENTENCES, bert, gpt2, model_of

from keras_transfer.data import tokenizing
from keras_transfer.data.tokenizing import check_kept, pack, pack_whole, prediction_batches, preprocessor_of

pytestmark = pytest.mark.both_backends


def columns(preprocessor, texts, length):
    """What a preprocessor itself gives at a length, by column."""
    preprocessor.sequence_length = length
    x, y, weight = keras.utils.unpack_x_y_sample_weight(preprocessor(texts, y=None))
    given = {**x, **({} if y is None else {"y": y, "sample_weight": weight})}
    return {name: keras.ops.convert_to_numpy(column) for name, column in given.items()}


def assert_same(ours, theirs):
    assert set(ours) == set(theirs)
    for name, column in theirs.items():
        assert ours[name].dtype == column.dtype
        np.testing.assert_array_equal(ours[name], column, err_msg=name)


@pytest.mark.parametrize("family", PREPROCESSORS)
@pytest.mark.parametrize("max_length", [10, 100])
def test_padded_to_any_length_a_row_is_what_the_preprocessor_gives_at_that_length(family, max_length):
    preprocessor = PREPROCESSORS[family](64)
    packed = pack(preprocessor, SENTENCES, max_length)
    assert preprocessor.sequence_length == 64
    for number, text in enumerate(SENTENCES):
        own_length = int(packed.lengths[number])
        for length in {own_length, own_length + 1, max_length}:
            if length <= max_length:
                assert_same(packed.padded([number], length), columns(preprocessor, [text], length))
    assert_same(packed.padded(range(5), max_length), columns(preprocessor, SENTENCES, max_length))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=5), st.integers(3, 40))
def test_any_text_keeps_its_tokens(texts, max_length):
    preprocessor = bert()
    packed = pack(preprocessor, texts, max_length)
    assert_same(packed.padded(range(len(texts)), max_length), columns(preprocessor, texts, max_length))


@pytest.mark.parametrize("family", ["BERT", "DistilBERT", "RoBERTa"])
@pytest.mark.parametrize("max_length", [10, 100])
def test_texts_that_are_read_together_are_segments_of_one_row(family, max_length):
    preprocessor = PREPROCESSORS[family](64)
    pairs = list(zip(SENTENCES, SENTENCES[::-1], strict=True))
    packed = pack(preprocessor, pairs, max_length)
    apart = columns(preprocessor, (SENTENCES, SENTENCES[::-1]), max_length)
    assert_same(packed.padded(range(5), max_length), apart)
    assert packed.cut == (5 if family == "RoBERTa" else 3) * (max_length == 10)
    first, row = (SENTENCES[3],), pack(preprocessor, [pairs[3]], 100)
    length = int(row.lengths[0])
    assert length > pack(preprocessor, first, 100).lengths[0]
    alone = columns(preprocessor, tuple([text] for text in pairs[3]), length)
    assert_same(row.padded([0], length), alone)


def test_rows_of_one_text_and_of_two_are_not_mixed():
    with pytest.raises(ValueError, match=r"one text and tuples of 2"):
        pack(bert(), ["the film", ("the film", "was good")])


def test_a_reader_of_one_text_keeps_no_two_apart():
    with pytest.raises(ValueError, match=r"GPT2CausalLMPreprocessor reads one text[\s\S]*2 texts in each row"):
        pack(gpt2(), [("the film", "was good")])


def test_lengths_count_every_token_and_what_is_cut_is_counted():
    packed = pack(bert(), ["the", "the film", "the film was", "the film was good"], 5)
    assert packed.lengths.tolist() == [3, 4, 5, 5]
    assert packed.cut == 1
    assert packed.features["token_ids"][: packed.offsets[1]].tolist() == [2, 12, 3]


def test_many_texts_are_packed_as_few_are(monkeypatch):
    whole = pack(bert(), SENTENCES, 12)
    monkeypatch.setattr(tokenizing, "_AT_A_TIME", 2)
    parts = pack(bert(), SENTENCES, 12)
    np.testing.assert_array_equal(whole.offsets, parts.offsets)
    np.testing.assert_array_equal(whole.features["token_ids"], parts.features["token_ids"])
    assert whole.cut == parts.cut == 1


def test_no_texts_are_packed_to_no_rows():
    assert len(pack(bert(), [], 8)) == 0


def test_a_row_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="A row does not fit"):
        pack(bert(), ["the film was"], 8).padded([0], 4)


def test_whole_texts_are_cut_into_windows_that_leave_nothing_out():
    preprocessor = gpt2()
    packed = pack_whole(preprocessor, SENTENCES, 7)
    rows = packed.padded(range(len(packed)), 7)
    taught = rows["y"][rows["sample_weight"].astype(bool)]
    end = preprocessor.tokenizer.end_token_id
    expected = [[*np.asarray(preprocessor.tokenizer(text)).tolist(), end] for text in SENTENCES]
    assert taught.tolist() == list(itertools.chain(*expected))
    assert rows["sample_weight"].any(axis=1).all()
    assert packed.cut == 0


def test_texts_that_are_packed_apart_give_the_same_windows(monkeypatch):
    together = pack_whole(gpt2(), SENTENCES, 7)
    monkeypatch.setattr(tokenizing, "_groups", lambda texts: ([text] for text in texts))
    apart = pack_whole(gpt2(), SENTENCES, 7)
    np.testing.assert_array_equal(together.offsets, apart.offsets)
    np.testing.assert_array_equal(together.targets["y"], apart.targets["y"])


def test_long_texts_are_packed_alone_and_short_ones_together():
    groups = list(tokenizing._groups(["a", "b", "c" * 999_999, "d", "e" * 10]))
    assert [len(group) for group in groups] == [2, 1, 2]


def test_a_window_goes_on_where_the_last_one_ended():
    packed = pack_whole(gpt2(), [SENTENCES[4]], 8)
    rows = packed.padded([0, 1], 8)
    np.testing.assert_array_equal(rows["y"][0, :-1], rows["token_ids"][0, 1:])
    assert rows["y"][0, -1] == rows["token_ids"][1, 0]


def test_predictions_read_every_text_once_the_short_with_the_short():
    model = model_of(bert(64))
    texts = ["the film " * count for count in (1, 20, 2, 19, 1)]
    batches = list(prediction_batches(model, texts, batch_size=2))
    assert [numbers.tolist() for numbers, _ in batches] == [[0, 4], [2, 3], [1]]
    assert [x["token_ids"].shape for _, x in batches] == [(2, 8), (2, 40), (1, 48)]
    assert set(batches[0][1]) == {"token_ids", "padding_mask"}
    assert_same(
        {name: x[:1] for name, x in batches[1][1].items()},
        {name: column for name, column in columns(bert(), [texts[2]], 40).items() if name in batches[1][1]},
    )


def test_a_task_of_keras_hub_has_its_own_preprocessor():
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=30, num_layers=1, num_heads=2, hidden_dim=4, intermediate_dim=8
    )
    preprocessor = bert()
    assert preprocessor_of(keras_hub.models.BertTextClassifier(backbone, 2, preprocessor)) is preprocessor


def test_a_model_that_reads_no_text_says_so():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)], name="numbers")
    with pytest.raises(ValueError, match="Nothing says how the model 'numbers' reads text"):
        next(prediction_batches(model, ["the"], batch_size=1))


def test_a_model_that_takes_what_its_preprocessor_does_not_give_is_refused():
    model = model_of(PREPROCESSORS["DistilBERT"](), "token_ids", "segment_ids")
    with pytest.raises(ValueError, match=r"takes inputs that its preprocessor does not give[\s\S]*segment_ids"):
        next(prediction_batches(model, ["the"], batch_size=1))


@pytest.mark.parametrize("family", PREPROCESSORS)
def test_a_preprocessor_reads_the_same_once_it_is_saved_and_loaded(family):
    check_kept(PREPROCESSORS[family]())


def test_a_setting_that_keras_hub_does_not_save_is_noticed():
    """KerasHub 0.32 leaves `split_on_cjk` out of the configuration of a `WordPieceTokenizer`."""
    with pytest.raises(ValueError, match=r"reads otherwise once it is saved and loaded[\s\S]*我爱你"):
        check_kept(bert(split_on_cjk=False))


def test_padding_on_the_left_is_refused():
    class LeftPadded(keras_hub.models.BertTextClassifierPreprocessor):
        def build(self, input_shape):
            super().build(input_shape)
            self.packer.padding_side = "left"

    with pytest.raises(ValueError, match=r"LeftPadded does not pad on the right"):
        pack(LeftPadded(bert().tokenizer, sequence_length=8), ["the"])


def test_a_preprocessor_of_pictures_is_refused():
    with pytest.raises(ValueError, match="does not say to what length it packs a text"):
        pack(keras_hub.models.ViTImageClassifierPreprocessor(), ["the"])
