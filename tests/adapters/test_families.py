"""Families beyond those of `tests/test_families.py`: unchanged at the start, and a `.keras` file opens as it was."""

import keras
import numpy as np
import pytest
from adapters import families, small

from keras_transfer.adapters.attach import add_lora

FAMILIES = ["clip", "dinov2", "esm", "gpt_neo_x", "mit", "flux"]


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
