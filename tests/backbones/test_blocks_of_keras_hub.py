"""Blocks of KerasHub's transformers: one for the embeddings, one for each layer."""

import keras
import pytest

from keras_transfer.backbones.blocks import blocks
from keras_transfer.backbones.graph import leaves

models = pytest.importorskip("keras_hub").models

TEXT = {"vocabulary_size": 20, "num_layers": 3, "num_heads": 2, "hidden_dim": 4, "intermediate_dim": 8}


def _vit(layers=3):
    size = {"image_shape": (16, 16, 3), "patch_size": 8, "num_heads": 2, "hidden_dim": 4, "mlp_dim": 8}
    return models.ViTBackbone(num_layers=layers, **size)


def _bert():
    return models.BertBackbone(max_sequence_length=8, **TEXT)


def _check(found, model):
    held = [id(layer) for block in found for layer in block.layers]
    assert len(held) == len(set(held))
    assert set(held) == {id(leaf) for layer in model.layers for leaf in leaves(layer)}
    assert sum(block.parameters for block in found) == model.count_params()


def test_vit_is_opened_although_it_hides_its_layers_in_one():
    body = _vit()
    found = blocks(body)
    assert found.names == (
        "vit_patching_and_embedding",
        "transformer_block_1",
        "transformer_block_2",
        "transformer_block_3",
    )
    _check(found, body)
    assert [block.output is None for block in found] == [False, True, True, False]
    assert found[1].output_shape == (None, 5, 4)
    # Where vit_encoder calls its own dropout cannot be seen: it is frozen as long as anything in it is.
    assert "dropout" in [layer.name for layer in found[1].layers]
    assert "ln" in found[3].layers[-1].name


def test_vit_of_one_layer_is_one_block():
    assert blocks(_vit(layers=1)).names == ("patching_and_embedding", "encoder")


def test_vit_under_a_classifier():
    body = _vit()
    pixels = keras.Input((16, 16, 3))
    by_hand = keras.Model(pixels, keras.layers.Dense(3)(body(pixels)[:, 0]))
    assert blocks(by_hand).names == (*blocks(body).names, "head")
    task = models.ViTImageClassifier(backbone=_vit(), num_classes=2, preprocessor=None)
    assert blocks(task).names == (*blocks(body).names, "head")
    _check(blocks(task), task)


def test_bert():
    body = _bert()
    found = blocks(body)
    assert found.names == ("embedding", *(f"transformer_layer_{n}" for n in range(3)), "pooled_dense")
    _check(found, body)
    assert found[3].output_shape == (None, None, 4)
    assert all(block.output is not None for block in found)


@pytest.mark.parametrize("output", ["pooled_output", "sequence_output"])
def test_bert_under_a_classifier(output):
    body = _bert()
    x = body(body.input)[output]
    model = keras.Model(body.input, keras.layers.Dense(2)(x if output == "pooled_output" else x[:, 0]))
    assert blocks(model).names == (*blocks(body).names, "head")
    _check(blocks(model), model)


def test_the_bert_task_of_keras_hub():
    task = models.BertTextClassifier(backbone=_bert(), num_classes=2, preprocessor=None)
    assert blocks(task).names[-2:] == ("pooled_dense", "head")
    _check(blocks(task), task)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_t5_carries_its_position_bias_across_the_cuts():
    body = models.T5Backbone(**TEXT)
    found = blocks(body)
    layers = [f"transformer_{half}_layer_{number}" for half in ("encoder", "decoder") for number in range(3)]
    assert list(found.names) == ["token_embedding", *layers]
    assert [len(block.cut) for block in found] == [1, 2, 2, 1, 3, 3, 1]
    _check(found, body)


def test_a_causal_model_whose_embedding_is_its_head_has_none_of_its_own():
    body = models.GPT2Backbone(max_sequence_length=8, **TEXT)
    assert blocks(body).names == ("token_embedding", *(f"transformer_layer_{number}" for number in range(3)))
    task = models.GPT2CausalLM(backbone=body, preprocessor=None)
    assert blocks(task).names == blocks(body).names
    assert blocks(task).head is None
