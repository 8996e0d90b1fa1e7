"""What a model keeps of itself in its own configuration."""

import json
import subprocess
import sys

import keras
import keras_hub
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from readers import PREPROCESSORS, SENTENCES, bert, gpt2, model_of

from keras_transfer import card

both_backends = pytest.mark.both_backends


@both_backends
@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=20), min_size=2, max_size=20))
def test_any_names_come_back_from_a_layers_configuration(names):
    layer = keras.layers.Activation("linear", dtype=card.policy({"classes": names}))
    again = keras.layers.Activation.from_config(layer.get_config())
    assert card.read(keras.Sequential([keras.Input((2,)), again])) == {"classes": names}


@both_backends
def test_the_card_survives_saving_loading_cloning_and_compiling(tmp_path):
    names = ["c++", "a.*", 'quote "', "naïve", "back\\slash", "{brace}", "line\nbreak"]
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Activation("linear", dtype=card.policy({"classes": names}))]
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    loaded.compile("sgd", "mse")
    assert card.class_names(loaded) == tuple(names)
    assert card.class_names(keras.models.clone_model(loaded)) == tuple(names)


@both_backends
def test_the_card_changes_no_dtype():
    for policy in ("float32", "mixed_float16"):
        keras.config.set_dtype_policy(policy)
        layer = keras.layers.Activation("linear", dtype=card.policy({"classes": [".*", "a"]}))
        assert layer(keras.ops.ones((1, 2), "float16")).dtype in ("float32", keras.ops.ones(1).dtype)
        assert layer.compute_dtype == "float32"


@both_backends
def test_a_model_without_a_card_has_no_names():
    assert card.class_names(keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])) is None


@both_backends
def test_a_model_without_a_card_has_no_preprocessor():
    assert card.preprocessor(keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])) is None


@both_backends
@pytest.mark.parametrize("family", PREPROCESSORS)
def test_a_preprocessor_comes_back_from_the_card(family):
    preprocessor = PREPROCESSORS[family](24)
    model = model_of(preprocessor)
    again = card.preprocessor(keras.models.clone_model(model))
    assert again.sequence_length == 24
    for own, theirs in zip(*(keras.tree.flatten(layer(SENTENCES)) for layer in (preprocessor, again)), strict=True):
        np.testing.assert_array_equal(own, theirs)
    assert card.class_names(model) == ("bad", "good")


@both_backends
def test_a_preprocessor_is_built_once_for_each_model():
    model = model_of(bert())
    assert card.preprocessor(model) is card.preprocessor(model)
    assert card.preprocessor(model) is not card.preprocessor(model_of(bert()))


@both_backends
def test_what_is_written_is_json_and_the_same_every_time():
    first, second = (json.dumps(card.write_preprocessor(gpt2())) for _ in range(2))
    assert first.replace("_1", "") == second.replace("_1", "")
    assert len(first) < 8000


@both_backends
def test_a_tokenizer_without_a_vocabulary_is_refused():
    empty = keras_hub.models.BertTextClassifierPreprocessor(keras_hub.models.BertTokenizer(), sequence_length=8)
    with pytest.raises(ValueError, match="BertTokenizer cannot be kept with the model: it has no vocabulary"):
        card.policy({}, preprocessor=empty)


def test_a_saved_model_reads_the_same_in_another_process_that_has_nothing_but_the_file(tmp_path):
    model = model_of(bert())
    model.save(tmp_path / "model.keras")
    code = (
        "import sys, keras; from keras_transfer.data.model_inputs import prediction_batches;"
        f"model = keras.saving.load_model({str(tmp_path / 'model.keras')!r});"
        f"[(numbers, x)] = prediction_batches(model, {SENTENCES!r}, batch_size=9);"
        "print([x['token_ids'][numbers.tolist().index(row)].tolist() for row in range(5)])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    preprocessor = bert()
    preprocessor.sequence_length = 24
    assert json.loads(run.stdout.splitlines()[-1]) == np.array(preprocessor(SENTENCES)["token_ids"]).tolist()
