"""Every family of bodies: unchanged at the start, exactly the adapter trains, and a `.keras` file opens as it was."""

import keras
import numpy as np
import pytest
from adapters import families, small

from keras_transfer import state
from keras_transfer.adapters import layers
from keras_transfer.adapters.attach import add_lora

FAMILIES = [
    *("bert", "distil_bert", "roberta", "gpt2", "t5", "gemma", "llama", "qwen3", "vit", "swin", "dinov2", "dinov3"),
    *("blip2", "esm", "gpt_neo_x", "mit", "flux"),
]


def _answers(model):
    return [small.array(tensor) for tensor in keras.tree.flatten(model(families.batch(model), training=False))]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_body_keeps_its_outputs_and_its_adapter(family, tmp_path):
    body = getattr(families, family)()
    before = _answers(body)
    table = add_lora(body, rank=2)
    assert all(np.array_equal(one, other) for one, other in zip(before, _answers(body), strict=True))
    assert len(body.trainable_variables) == 2 * len(table)
    small.stir(body, width=1.0)
    adapted = _answers(body)
    assert max(np.abs(one - other).max() for one, other in zip(before, adapted, strict=True)) > 1e-4
    body.save(tmp_path / "body.keras")
    again = keras.models.load_model(tmp_path / "body.keras")
    assert all(np.array_equal(one, other) for one, other in zip(adapted, _answers(again), strict=True))
    assert len(again.trainable_variables) == len(body.trainable_variables)


@pytest.mark.parametrize("family", ["bert", "t5", "swin"])
def test_a_body_learns_with_nothing_but_its_adapter(family):
    body = getattr(families, family)()
    add_lora(body, rank=2)
    inputs = families.batch(body)
    outputs = keras.tree.flatten(body.output)[0]
    width = int(np.prod([side or families.LENGTH for side in outputs.shape[1:]]))
    flat = keras.layers.Reshape((width,))(outputs)
    wanted = np.random.default_rng(1).normal(size=(families.BATCH, width))
    model = keras.Model(body.input, flat)
    model.compile(keras.optimizers.Adam(0.003), "mse")
    before = {id(v): small.array(v) for v in layers.base_variables(body) if not state.is_seed(v)}
    losses = model.fit(inputs, wanted, epochs=6, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    for variable in layers.base_variables(body):
        assert state.is_seed(variable) or np.array_equal(small.array(variable), before[id(variable)])
    for variable in body.trainable_variables:
        assert np.any(small.array(variable)), variable.path
