"""A model's graph as data, and a guard on the private side of Keras that it is read from."""

import keras
import pytest

from keras_transfer.backbones import graph
from keras_transfer.backbones.segments import segments


def _names(steps):
    return [step.operation.name for step in steps]


def test_keras_still_keeps_its_graph_where_we_read_it():
    inputs = keras.Input((4,))
    outputs = keras.layers.Dense(2)(inputs)
    model = keras.Model(inputs, outputs)
    nodes = [node for depth in model._nodes_by_depth.values() for node in depth]
    assert sorted(node.is_input for node in nodes) == [False, True]
    node = next(node for node in nodes if not node.is_input)
    assert node.input_tensors == [inputs]
    assert node.output_tensors == [outputs]
    assert node.operation is model.layers[-1]
    sequential = keras.Sequential([inputs, keras.layers.Dense(2)])
    assert sequential._functional.inputs == sequential.inputs


@pytest.mark.parametrize("model", [keras.Sequential([keras.layers.Dense(2)]), keras.layers.Dense(2)])
def test_what_has_no_graph_is_refused(model):
    assert not graph.has_graph(model)
    with pytest.raises(ValueError, match=r"keras.Model\(inputs, outputs\)"):
        graph.steps(model)


def test_a_shared_layer_has_several_steps():
    one, other = keras.Input((4,)), keras.Input((4,))
    shared = keras.layers.Dense(2, name="shared")
    model = keras.Model([one, other], keras.layers.Add(name="sum")([shared(one), shared(other)]))
    assert _names(graph.steps(model)) == ["shared", "shared", "sum"]
    parts = graph.flatten(model).parts
    assert [len(part.layers) for part in parts] == [1, 0, 1]
    assert [part.weighted for part in parts] == [True, True, False]


def _cells():
    """Cells that read the two before them, the upper of which is read late, as NASNet's."""
    inputs = keras.Input((4,))
    before = keras.layers.Dense(4, name="low_stem")(inputs)
    x = keras.layers.Dense(4, name="high_stem")(before)
    for cell in range(3):
        adjusted = keras.layers.Dense(4, name=f"adjust_a_{cell}")(before)
        adjusted = keras.layers.Dense(4, name=f"adjust_b_{cell}")(adjusted)
        worked = keras.layers.Dense(4, name=f"work_a_{cell}")(x)
        worked = keras.layers.Dense(4, name=f"work_b_{cell}")(worked)
        before, x = x, keras.layers.Add(name=f"sum_{cell}")([worked, adjusted])
    return keras.Model(inputs, x)


def test_a_step_stands_next_to_the_one_that_needs_it():
    cells = [name.rpartition("_")[2] for name in _names(graph.steps(_cells()))]
    assert cells == ["stem", "stem", *"0" * 5, *"1" * 5, *"2" * 5]


def test_the_order_is_the_same_after_saving_and_loading(tmp_path):
    model = _cells()
    model.save(tmp_path / "model.keras")
    assert _names(graph.steps(keras.saving.load_model(tmp_path / "model.keras"))) == _names(graph.steps(model))


def test_cells_that_read_the_last_two_are_cut_where_two_are_alive():
    parts = graph.flatten(_cells()).parts
    found = segments(parts)
    assert [(segment.parts[-1].name, len(segment.cut)) for segment in found] == [
        ("low_stem", 1),
        ("high_stem", 2),
        ("sum_0", 2),
        ("sum_1", 2),
        ("sum_2", 1),
    ]


def test_a_mask_computed_from_the_inputs_does_not_count_as_alive():
    tokens = keras.Input((6,), dtype="int32")
    mask = keras.ops.cast(keras.ops.not_equal(tokens, 0), "float32")[:, :, None]
    x = keras.layers.Embedding(9, 4, name="embedding")(tokens)
    for number in range(2):
        x = keras.layers.Dense(4, name=f"dense_{number}")(x) * mask
    found = segments(graph.flatten(keras.Model(tokens, x)).parts)
    weighted = [[part.name for part in segment.parts if part.weighted] for segment in found]
    assert [names for names in weighted if names] == [["embedding"], ["dense_0"], ["dense_1"]]


def test_nested_models_are_opened_and_their_tensors_known_on_both_sides():
    inner_input = keras.Input((4,))
    inner = keras.Model(inner_input, keras.layers.Dense(3, name="low")(inner_input), name="inner")
    outer_input = keras.Input((4,))
    outer = keras.Model(outer_input, keras.layers.Dense(2, name="high")(inner(outer_input)))
    flat = graph.flatten(outer)
    assert [(part.name, [model.name for model in part.within]) for part in flat.parts] == [
        ("low", ["inner"]),
        ("high", []),
    ]
    assert {model.name for model, _ in flat.tensors[flat.parts[0].outputs[0]]} == {"inner", outer.name}
    assert flat.parts[1].inputs == flat.parts[0].outputs
