"""Which layers a spec means: rules, patterns, layers, blocks, ranks; and the words where it means none."""

import re

import keras
import pytest
from adapters import families, small

from keras_transfer.adapters.lora import LoRA
from keras_transfer.adapters.places import places
from keras_transfer.adapters.targets import attention, select


def _paths(model, head=(), **fields):
    return [target.place.path for target in select(model, LoRA(**fields), head=head).targets]


def _error(model, **fields):
    with pytest.raises(ValueError) as raised:
        select(model, LoRA(**fields))
    return str(raised.value)


FAMILIES = {
    "bert": (4, {"query", "value"}),
    "distil_bert": (4, {"query", "value"}),
    "roberta": (4, {"query", "value"}),
    "gpt2": (4, {"query", "value"}),
    "t5": (12, {"query_projector", "value_projector"}),
    "gemma": (4, {"query", "value"}),
    "llama": (4, {"query", "value"}),
    "qwen3": (4, {"query", "value"}),
    "mixtral": (4, {"query", "value"}),
    "vit": (4, {"query", "value"}),
    "deit": (4, {"query", "value"}),
    "dinov2": (4, {"query", "value"}),
    "blip2": (12, {"query", "value"}),
    # Both towers; and the attention that pools, though it is called `head`.
    "clip": (8, {"query", "value"}),
    "siglip_vision": (6, {"query", "value"}),
    # None of these gets an adapter from KerasHub's `enable_lora`.
    "swin": (2, {"attention_qkv"}),
    "dinov3": (4, {"q_proj", "v_proj"}),
    "esm": (4, {"q_dense_layer", "v_dense_layer"}),
    "roformer_v2": (4, {"q_dense_layer", "v_dense_layer"}),
    "gpt_neo_x": (2, {"query_key_value"}),
    "smollm3": (4, {"q_proj", "v_proj"}),
    "vit_det": (2, {"qkv"}),
    "mit": (4, {"q", "v"}),
    "flux": (2, {"qkv"}),
    "sam": (1, {"qkv"}),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_means_queries_and_values_in_every_family(family):
    count, names = FAMILIES[family]
    paths = _paths(getattr(families, family)(), targets="attention")
    assert len(paths) == count
    assert {path.rsplit("/", 1)[-1] for path in paths} == names


@pytest.mark.parametrize("family", ["f_net", "mobile_net"])
def test_a_body_without_attention_says_so(family):
    message = _error(getattr(families, family)(), targets="attention")
    assert "has no attention projections" in message
    assert ('targets="all-linear"' in message) == (family == "f_net")
    assert "for instance targets=" in message


def test_a_body_of_convolutions_says_which_pattern_would_do():
    body = families.mobile_net()
    example = re.search("for instance targets='(.*)'", _error(body, targets="all-linear"))[1]
    assert _paths(body, targets=example) == [example]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("q_proj", "k_proj", "v_proj", "o_proj"), ["q_proj", "v_proj"]),
        (("query_dense", "key_dense", "value_dense"), ["query_dense", "value_dense"]),
        (("attention_qkv", "attention_proj"), ["attention_qkv"]),
        (("in_proj_qkv", "in_proj_z"), ["in_proj_qkv"]),
        (("c_attn", "c_proj"), []),
        (("receptance", "key", "value"), ["receptance", "value"]),
        (("query", "key"), ["query"]),
        (("query_proj", "text_proj"), []),
        (("value_head", "policy_head"), []),
        (("kv_proj", "q_proj"), ["kv_proj", "q_proj"]),
    ],
)
def test_a_projection_is_known_by_its_name_and_its_neighbours(names, found):
    inside = keras.Sequential([keras.Input((4,)), *(keras.layers.Dense(4, name=name) for name in names)], name="layer")
    model = keras.Sequential([keras.Input((4,)), inside])
    assert [place.name for place in attention(places(model))] == found


def test_a_wrapper_around_one_linear_layer_lends_it_its_name():
    wrapped = [
        keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, name="dense")], name=name)
        for name in ("query", "value")
    ]
    model = keras.Sequential([keras.Input((4,)), keras.Sequential(wrapped, name="attention")])
    assert [place.path for place in attention(places(model))] == ["attention/query/dense", "attention/value/dense"]


def test_all_linear_leaves_tables_and_the_head_out():
    assert _paths(small.transformer(), targets="all-linear") == [
        *(f"attention/{name}" for name in ("query", "key", "value", "attention_output")),
        *("wide", "narrow"),
    ]


def test_all_linear_of_a_task_is_that_of_its_body():
    import keras_hub

    body = families.bert()
    task = keras_hub.models.BertTextClassifier(body, num_classes=2)
    inside = [path for path in _paths(task, targets="all-linear")]
    assert len(inside) == 2 * 6 + 1
    assert [path.split("/", 1)[1] for path in inside] == _paths(body, targets="all-linear")
    assert not [path for path in inside if "logits" in path]


def test_the_head_that_a_caller_names_is_left_out_as_well():
    model = small.transformer()
    assert "narrow" not in _paths(model, targets="all-linear", head=[model.get_layer("narrow")])


def test_patterns_match_whole_names_from_the_right():
    model = small.transformer()
    assert _paths(model, targets="query") == ["attention/query"]
    assert _paths(model, targets="attention/q*") == ["attention/query"]
    assert _paths(model, targets=["narrow", "*e"]) == ["attention/value", "wide", "narrow"]
    assert _paths(model, targets="[qv]*") == ["attention/query", "attention/value"]


def test_layers_can_be_given_themselves():
    model = small.transformer()
    assert _paths(model, targets=[model.get_layer("wide")]) == ["wide"]


def test_a_misspelt_pattern_is_answered_with_the_nearest_name():
    message = _error(small.transformer(), targets="qeury")
    assert (
        "`targets` matches no layer.\n  given:       'qeury'\n  nearest:     'query', as in attention/query" in message
    )


def test_one_pattern_of_several_that_matches_nothing_is_an_error():
    assert "'valeu'" in _error(small.transformer(), targets=["query", "valeu"])


def test_a_pattern_for_layers_that_can_carry_none_says_why():
    message = _error(small.convolutional(), targets="depthwise")
    assert "only layers that can carry no adapter" in message
    assert "DepthwiseConv2D has no matrix" in message


def test_a_layer_of_another_model_is_refused():
    assert "it is not part of small" in _error(small.transformer(), targets=[keras.layers.Dense(2, name="stranger")])


def test_ranks_by_pattern():
    found = select(small.transformer(), LoRA(rank=4, ranks={"value": 2, "attention/query": 16})).targets
    assert {target.place.name: target.rank for target in found} == {"query": 16, "value": 2}


def test_a_rank_for_no_target_is_an_error():
    message = _error(small.transformer(), ranks={"vlaue": 2})
    assert "`ranks` names no layer that gets an adapter" in message
    assert "nearest:   value" in message


def test_two_ranks_for_one_target_are_an_error():
    assert "more than one rank" in _error(small.transformer(), ranks={"value": 2, "attention/*": 4})


def test_only_within_the_top_blocks():
    body = families.bert()
    assert _paths(body, blocks="top:1") == [
        f"transformer_layer_1/self_attention_layer/{name}" for name in ("query", "value")
    ]
    assert "'top:1' to 'top:2', of the blocks that hold a target" in _error(body, blocks="top:9")
    assert "None of the targets lies in these blocks" in _error(body, blocks="pooled_dense")
    assert _paths(body, blocks=["transformer_layer_0"])[0].startswith("transformer_layer_0")


def test_what_a_rule_means_but_cannot_have_is_told():
    selection = select(families.sam(), LoRA(targets="attention"))
    paths = [path for path, _ in selection.passed_over]
    assert paths
    assert all(path.startswith("mask_decoder/") for path in paths)
    assert "not built" in selection.passed_over[0][1]
