"""A model in two parts comes to the same as in one, wherever it falls in two."""

import keras
import numpy as np
import pytest
from adapters import families
from bodies import classifier, pictures, residual_body

import keras_transfer as kt
from keras_transfer.backbones import cut as cutting
from keras_transfer.backbones import freezing
from keras_transfer.backbones.cut import INPUTS, KEPT, InputsOf, deepest_cut


def _woken(model, top):
    """The model with the uppermost `top` blocks awake, and its cut."""
    freezing.wake(model, [layer for block in kt.blocks(model)[-top:] for layer in block.layers])
    return deepest_cut(model)


def _in_parts(found, x, training=False):
    return _the_rest(found, x, found.below(x), training)


def _the_rest(found, x, below, training=False):
    return found.above(below, {name: x[name] for name in found.reads}, training)


def _whole(model, x):
    return keras.tree.flatten(model(x, training=False))


def _assert_same_in_parts(whole, found, x, below=None):
    parts = keras.tree.flatten(_the_rest(found, x, found.below(x) if below is None else below))
    assert len(whole) == len(parts)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=1e-5, atol=1e-5)


FAMILIES = (
    "bert", "distil_bert", "roberta", "gpt2", "gpt_neo_x", "esm", "roformer_v2", "t5", "f_net", "gemma", "llama",
    "qwen3", "mixtral", "smollm3", "vit", "deit", "dinov2", "siglip_vision", "dinov3", "swin", "vit_det", "mit",
    "clip", "flux", "sam", "blip2",
)  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_every_keras_hub_body_comes_to_the_same_in_two_parts(family):
    body = getattr(families, family)()
    generator = np.random.default_rng(0)
    for variable in body.trainable_variables:
        variable.assign(generator.normal(0, 0.3, variable.shape))
    x = families.batch(body)
    whole = _whole(body, x)
    for top in range(1, min(len(kt.blocks(body)), 4)):
        found = _woken(body, top)
        below = found.below(x)
        _assert_same_in_parts(whole, found, x, below)
        assert found.comes_to_the_same(x, below)


@pytest.mark.parametrize("name", ["MobileNetV2", "EfficientNetV2B0", "NASNetMobile", "ResNet50", "DenseNet121"])
def test_bodies_of_keras_applications_come_to_the_same_in_two_parts(name):
    model = kt.image_classifier(name, 3, weights=None, image_size=32)
    x = pictures(2, 32)
    whole = _whole(model, x)
    for top in (1, 3):
        _assert_same_in_parts(whole, _woken(model, top), x)


@pytest.mark.both_backends
def test_below_a_head_the_features_are_kept_pooled():
    model = classifier()
    found = _woken(model, 1)
    assert found.shapes == ((None, 8),)
    x = pictures()
    np.testing.assert_array_equal(
        np.asarray(found.below(x)[0]), np.asarray(keras.Model(model.input, model.get_layer("pool").output)(x))
    )


@pytest.mark.both_backends
def test_in_training_what_is_above_drops_and_what_is_below_does_not():
    model = classifier()
    found, x = _woken(model, 2), pictures()
    np.testing.assert_array_equal(np.asarray(found.below(x)[0]), np.asarray(found.below(x)[0]))
    assert not np.array_equal(np.asarray(_in_parts(found, x, True)), np.asarray(_in_parts(found, x, True)))


def test_an_attention_mask_is_made_anew_and_not_kept():
    found = _woken(families.bert(), 2)
    assert found.shapes == ((None, None, 8),)
    assert found.reads == ("padding_mask",)


@pytest.mark.parametrize(("family", "inside"), [("vit", True), ("deit", True), ("bert", False)])
def test_a_layer_that_holds_a_stack_is_cut_inside(family, inside):
    body = getattr(families, family)()
    found = _woken(body, 1)
    assert found.is_inside_a_layer is inside
    assert not inside or not deepest_cut(body, inside_layers=False).is_inside_a_layer


def test_where_everything_trains_there_is_no_cut():
    model = classifier()
    assert _woken(model, len(kt.blocks(model))) is None


def test_a_model_without_a_graph_has_no_cut():
    class Subclassed(keras.Model):
        def call(self, x):
            return x

    assert deepest_cut(Subclassed()) is None


def test_looking_up_embeddings_and_scaling_pixels_is_no_work():
    body = families.bert()
    assert not _woken(body, len(kt.blocks(body)) - 1).works
    assert _woken(body, 1).works


def test_a_layer_that_is_called_below_and_above_is_computed_in_both_places():
    x = inputs = keras.Input((4,))
    shared = keras.layers.Dense(4, name="shared")
    x = keras.layers.Dense(4, name="middle")(shared(x))
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(shared(x)))
    freezing.wake(model, [model.get_layer("head"), model.get_layer("middle")])
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    found = deepest_cut(model)
    assert [layer.name for layer in found.layers] == ["shared"]
    _assert_same_in_parts(_whole(model, x), found, x)


def test_a_layer_with_an_adapter_that_trains_is_above_the_cut():
    model = classifier()
    kt.add_lora(model, kt.LoRA(rank=2, targets="block2_conv"))
    assert {layer.name for layer in deepest_cut(model).layers}.isdisjoint({"block2_conv", "block3_conv"})


def test_an_activity_regularizer_is_not_left_out():
    x = inputs = keras.Input((4,))
    for name, regularizer in (("low", None), ("middle", "l2"), ("head", None)):
        x = keras.layers.Dense(4, name=name, activity_regularizer=regularizer)(x)
    model = keras.Model(inputs, x)
    freezing.wake(model, [model.get_layer("head")])
    assert [layer.name for layer in deepest_cut(model).layers] == ["low"]


@pytest.mark.both_backends
def test_a_model_takes_what_was_kept_and_its_inputs_still_and_is_left_as_it_was():
    model = classifier()
    found, x = _woken(model, 2), pictures()
    before, spec = np.asarray(model(x)), model.input_spec
    with found.taken():
        np.testing.assert_allclose(np.asarray(model({KEPT: {"0": found.below(x)[0]}})), before, atol=1e-6)
        np.testing.assert_array_equal(np.asarray(model(x)), before)
    assert "call" not in vars(model)
    assert [(s.shape, s.name) for s in model.input_spec] == [(s.shape, s.name) for s in spec]


def test_inputs_beside_what_was_kept_go_in_by_name():
    body = families.bert()
    found, x = _woken(body, 2), families.batch(body)
    with found.taken():
        given = {
            KEPT: {"0": found.below(x)[0]},
            INPUTS: {"padding_mask": keras.ops.convert_to_tensor(x["padding_mask"])},
        }
        made = keras.tree.flatten(body(given))
    np.testing.assert_allclose(np.asarray(made[0]), np.asarray(keras.tree.flatten(body(x))[0]), atol=1e-6)


@pytest.mark.both_backends
def test_the_inputs_of_a_layer_are_read_from_pictures_and_from_what_was_kept():
    model = classifier()
    found, x = _woken(model, 2), pictures()
    read = InputsOf(model, model.get_layer("head"))
    expected = keras.Model(model.input, model.get_layer("pool").output).predict(x, verbose=0)
    np.testing.assert_allclose(read.predict(x, verbose=0), expected, atol=1e-6)
    with found.taken():
        kept = {KEPT: {"0": np.asarray(found.below(x)[0])}}
        np.testing.assert_allclose(read.predict(kept, verbose=0), expected, atol=1e-6)


def _signature(top=1, **changes):
    keras.utils.set_random_seed(3)
    body = residual_body(**changes)
    return _woken(kt.image_classifier(body, ["a", "b"], preprocessing="tf"), top).signature


def test_the_signature_follows_from_what_lies_below_alone():
    assert _signature() == _signature()
    assert len({_signature(), _signature(top=2), _signature(width=4), _signature(depth=2)}) == 4


def test_the_signature_knows_neither_the_head_nor_names_of_layers():
    keras.utils.set_random_seed(3)
    body = residual_body()
    one = kt.image_classifier(body, ["a", "b"], preprocessing="tf")
    other = kt.image_classifier(body, ["a", "b", "c"], preprocessing="tf", dropout=0.5)
    assert _woken(one, 1).signature == _woken(other, 1).signature


@pytest.mark.parametrize("change", ["weight", "statistic", "setting", "precision"])
def test_whatever_changes_below_changes_the_signature(change):
    model = classifier()
    before = _woken(model, 1).signature
    if change == "weight":
        model.get_layer("residual").get_layer("block1_conv").bias.assign_add([1e-7] + [0] * 7)
    elif change == "statistic":
        model.get_layer("residual").get_layer("block1_bn").moving_mean.assign_add([1e-7] + [0] * 7)
    elif change == "setting":
        model.get_layer("residual").get_layer("block1_bn").epsilon = 0.1
    else:
        model.get_layer("residual").get_layer("block1_conv").dtype_policy = "mixed_bfloat16"
    assert deepest_cut(model).signature != before


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda x: keras.ops.clip(x, 0, 1), lambda x: keras.ops.clip(x, 0, 100)),
        (lambda x: keras.ops.transpose(x, (0, 1, 2, 3)), lambda x: keras.ops.transpose(x, (0, 2, 1, 3))),
        (lambda x: x * np.zeros((16, 16, 3), "float32"), lambda x: x * np.eye(16, dtype="float32")[..., None]),
    ],
    ids=["bounds", "axes", "a constant"],
)
def test_the_settings_of_operations_are_part_of_the_signature(one, other):
    def signature(operation):
        keras.utils.set_random_seed(0)
        pixels = keras.Input((16, 16, 3))
        body = keras.Model(pixels, keras.layers.Conv2D(4, 3)(operation(pixels)))
        return _woken(kt.image_classifier(body, ["a", "b"], preprocessing="identity"), 1).signature

    assert signature(one) == signature(one)
    assert signature(one) != signature(other)


class _Own(keras.layers.Layer):
    def call(self, x):
        return x * 2


@pytest.mark.parametrize(
    "layer",
    [keras.layers.Lambda(lambda x: x), keras.layers.Activation(lambda x: x), _Own()],
    ids=["lambda", "activation", "class"],
)
def test_what_is_known_by_its_name_only_is_no_identity(layer):
    def is_identified(*layers):
        pixels = keras.Input((16, 16, 3))
        x = keras.layers.Conv2D(4, 3)(pixels)
        for layer in layers:
            x = layer(x)
        return _woken(kt.image_classifier(keras.Model(pixels, x), ["a", "b"], preprocessing="tf"), 1).is_identified

    assert is_identified()
    assert is_identified(keras.layers.Activation("relu"))
    assert not is_identified(layer)


def test_a_stack_that_does_more_than_hand_on_does_not_come_to_the_same():
    """Not even under a head at zero, which makes the same of everything."""

    class Cell(keras.layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.dense = keras.layers.Dense(4)

        def call(self, x):
            return self.dense(x)

    class Summing(keras.layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.cells = [Cell(name=f"cell{number}") for number in range(3)]

        def call(self, x):
            total = 0
            for cell in self.cells:
                x = cell(x)
                total += x
            return total

    inputs = keras.Input((4,))
    head = keras.layers.Dense(2, name="head", kernel_initializer="zeros")
    model = keras.Model(inputs, head(Summing(name="summing")(inputs)))
    x = np.random.default_rng(0).normal(size=(2, 4)).astype("float32")
    found = _woken(model, 2)
    assert found.is_inside_a_layer
    assert not found.comes_to_the_same(x, found.below(x))
    found = _woken(model, 1)
    assert found.comes_to_the_same(x, found.below(x))


def test_a_stack_whose_layers_hand_on_several_tensors_is_not_cut_inside():
    class Two(keras.layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.dense = keras.layers.Dense(4)

        def call(self, x):
            return self.dense(x), x

    class Stack(keras.layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.low, self.high = Two(name="low"), Two(name="high")

        def call(self, x):
            return self.high(self.low(x)[0])[0]

    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(Stack(name="stack")(inputs)))
    found = _woken(model, 2)
    assert found.is_inside_a_layer
    with pytest.raises(cutting.NotCutError, match="low hands on 2 tensors"):
        found.below(np.zeros((1, 4), "float32"))
