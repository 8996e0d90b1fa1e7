"""A preprocessor's own rows, without their padding and with it again."""

import itertools

import keras_hub
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from readers import PREPROCESSORS, SENTENCES, assert_same, bert, columns, gpt2

from keras_transfer.data import packing
from keras_transfer.data.packing import pack, pack_whole

pytestmark = pytest.mark.both_backends


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
    monkeypatch.setattr(packing, "_AT_A_TIME", 2)
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
    monkeypatch.setattr(packing, "_groups", lambda texts: ([text] for text in texts))
    apart = pack_whole(gpt2(), SENTENCES, 7)
    np.testing.assert_array_equal(together.offsets, apart.offsets)
    np.testing.assert_array_equal(together.targets["y"], apart.targets["y"])


def test_long_texts_are_packed_alone_and_short_ones_together():
    groups = list(packing._groups(["a", "b", "c" * 999_999, "d", "e" * 10]))
    assert [len(group) for group in groups] == [2, 1, 2]


def test_a_window_goes_on_where_the_last_one_ended():
    packed = pack_whole(gpt2(), [SENTENCES[4]], 8)
    rows = packed.padded([0, 1], 8)
    np.testing.assert_array_equal(rows["y"][0, :-1], rows["token_ids"][0, 1:])
    assert rows["y"][0, -1] == rows["token_ids"][1, 0]


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
