"""The spec: plain data, checked when it is made."""

import json

import keras
import pytest

from keras_transfer.adapters.lora import LoRA


def test_a_spec_survives_json():
    spec = LoRA(rank=4, alpha=16, targets=["query", "*/value"], ranks={"value": 2}, blocks="top:2", dora=True)
    assert LoRA.from_dict(json.loads(spec.to_json())) == spec


def test_alpha_is_pefts_default_whatever_the_rank():
    assert (LoRA(rank=8).alpha_or_default, LoRA(rank=64).alpha_or_default) == (8.0, 8.0)
    assert LoRA(rank=4, alpha=3).alpha_or_default == 3


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rank": 0}, "`rank` of a LoRA is out of range.\n  given:     0\n  expected:  an integer of at least 1"),
        ({"rank": 2.0}, "`rank`"),
        ({"rank": True}, "`rank`"),
        ({"alpha": -1}, "`alpha`"),
        ({"alpha": float("inf")}, "`alpha`"),
        ({"dropout": 1.0}, "`dropout`"),
        ({"dora": 1}, "`dora`"),
        ({"scaling": "rslore"}, "nearest:   rslora"),
        ({"biases": "al"}, "nearest:   all"),
        ({"factors": "Keras"}, "nearest:   keras"),
        ({"targets": []}, "`targets`"),
        ({"targets": ["query", ""]}, "`targets`"),
        ({"ranks": {"query": 0}}, "ranks['query']"),
        ({"dora": True, "factors": "keras"}, 'to mend:   factors="paper"'),
    ],
)
def test_what_is_out_of_range_is_said_at_once(fields, words):
    with pytest.raises(ValueError) as raised:
        LoRA(**fields)
    assert words in str(raised.value)


def test_layers_as_targets_cannot_be_written_down():
    spec = LoRA(targets=keras.layers.Dense(2, name="query"))
    with pytest.raises(ValueError, match="name them by patterns"):
        spec.to_dict()


def test_a_spec_reads_as_a_sentence():
    spec = LoRA(rank=16, alpha=32, targets=["query", "value"], dropout=0.1, ranks={"value": 4}, blocks="top:4")
    assert str(spec) == "LoRA rank 16, alpha 32, on query, value, in top:4, value at rank 4, dropout 0.1"
