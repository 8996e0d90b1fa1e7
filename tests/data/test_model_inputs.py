"""What a model reads, and the batches in which it is asked."""

import keras
import keras_hub
import pytest
from readers import PREPROCESSORS, assert_same, bert, columns, model_of

from keras_transfer.data.model_inputs import prediction_batches, preprocessor_of

pytestmark = pytest.mark.both_backends


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
