"""Blocks: found in the graph of any functional model, named as people name them."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_transfer.backbones import applications, preprocessing
from keras_transfer.backbones.blocks import blocks
from keras_transfer.backbones.graph import leaves


def _draw(name, image_size=None, **options):
    """A body without values in its variables: drawn in no time."""
    with keras.StatelessScope(initialize_variables=False):
        return applications.build(name, weights=None, image_size=image_size, **options)


def _classify(body, convention="identity", classes=3):
    pixels = keras.Input(body.input_shape[1:])
    x = body(preprocessing.apply(convention, pixels))
    x = keras.layers.Dropout(0.2)(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(pixels, keras.layers.Activation("linear")(keras.layers.Dense(classes, name="scores")(x)))


def _residual(x, name=None, filters=4):
    def named(part):
        return None if name is None else f"{name}_{part}"

    y = keras.layers.Conv2D(filters, 3, padding="same", name=named("conv1"))(x)
    y = keras.layers.BatchNormalization(name=named("bn"))(y)
    y = keras.layers.Dropout(0.1, name=named("drop"))(keras.layers.ReLU(name=named("relu"))(y))
    y = keras.layers.Conv2D(filters, 3, padding="same", name=named("conv2"))(y)
    return keras.layers.Add(name=named("add"))([x, y])


def _own(name="mine"):
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="stem_conv")(pixels)
    x = keras.layers.BatchNormalization(name="stem_bn")(x)
    for number in (1, 2, 3):
        x = _residual(x, f"block{number}")
    return keras.Model(pixels, x, name=name)


def _stages(block, lengths, first=1):
    return [block.format(stage, number) for stage, n in enumerate(lengths, first) for number in range(1, n + 1)]


def _letters(lengths):
    return [f"block{stage}{letter}" for stage, n in enumerate(lengths, 1) for letter in "abcdefgh"[:n]]


# The families of keras.applications


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("MobileNetV2", ["Conv1", "expanded_conv", *(f"block_{n}" for n in range(1, 17)), "Conv_1"]),
        ("MobileNet", ["conv1", *(f"conv_{n}" for n in range(1, 14))]),
        ("MobileNetV3Small", ["conv", "expanded_conv", *(f"expanded_conv_{n}" for n in range(1, 11)), "conv_1"]),
        ("EfficientNetB0", ["stem", *_letters((1, 2, 2, 3, 3, 4, 1)), "top"]),
        ("EfficientNetV2B0", ["stem", *_letters((1, 2, 2, 3, 5, 8)), "top"]),
        ("ResNet50", ["conv1", *_stages("conv{}_block{}", (3, 4, 6, 3), first=2)]),
        ("ResNet50V2", ["conv1", *_stages("conv{}_block{}", (3, 4, 6, 3), first=2)]),
        ("VGG16", _stages("block{}_conv{}", (2, 2, 3, 3, 3))),
        ("InceptionV3", ["conv2d", *(f"conv2d_{n}" for n in range(1, 5)), *(f"mixed{n}" for n in range(11))]),
        (
            "Xception",
            [
                *("block1_conv1", "block1_conv2"),
                *(f"block{n}" for n in range(2, 14)),
                *("block14_sepconv1", "block14_sepconv2"),
            ],
        ),
        (
            "NASNetMobile",
            [
                *("stem", "stem_1", "stem_2", *(f"normal_{n}" for n in range(4))),
                *("reduce_4", *(f"normal_{n}" for n in range(5, 9))),
                *("reduce_8", *(f"normal_{n}" for n in range(9, 13))),
            ],
        ),
    ],
)
def test_the_blocks_of_a_family(name, names):
    assert list(blocks(_draw(name)).names) == names


def test_the_blocks_of_the_larger_families():
    convnext = blocks(_draw("ConvNeXtTiny")).names
    assert convnext[:2] == ("stem", "stage_0_block_0")
    assert "downsampling_1" in convnext
    assert len(convnext) == 1 + 3 + 3 + 9 + 3 + 3
    densenet = blocks(_draw("DenseNet121")).names
    assert len(densenet) == 1 + 6 + 12 + 24 + 16 + 3
    assert {"conv1", "conv2_block1", "pool2", "conv5_block16"} <= set(densenet)


@pytest.mark.parametrize("name", ["NASNetMobile", "InceptionV3"])
def test_names_are_the_same_in_any_session_and_after_loading(name):
    fresh = blocks(_draw(name, 96)).names
    _draw("Xception", 96)  # counts conv2d on
    again = _draw(name, 96)
    assert blocks(again).names == fresh
    with keras.StatelessScope(initialize_variables=False):
        assert blocks(keras.Model.from_config(again.get_config())).names == fresh


@pytest.mark.parametrize("convention", ["identity", "tf", "caffe", "torch"])
def test_a_classifier_has_the_blocks_of_its_nested_body_and_a_head(convention):
    body = _draw("MobileNetV2", 32, alpha=0.35)
    with keras.StatelessScope(initialize_variables=False):
        found = blocks(_classify(body, convention))
    assert found.names == (*blocks(body).names, "head")
    assert [layer.name for layer in found.head.layers if layer.weights] == ["scores"]
    assert found.head.output_shape == (None, 3)
    assert found.body_model is body
    kinds = [type(layer).__name__ for layer in found.body[0].layers]
    assert kinds.count("Rescaling") == (convention != "identity")


@pytest.mark.parametrize("name", ["MobileNet", "VGG16", "EfficientNetB0", "ResNet50", "MobileNetV3Small"])
def test_a_flat_classifier_of_keras_has_a_head_too(name):
    with keras.StatelessScope(initialize_variables=False):
        model = getattr(keras.applications, name)(weights=None)
    found = blocks(model)
    assert found.names == (*blocks(_draw(name)).names, "head")
    assert any(layer.name in ("predictions", "conv_preds", "logits") for layer in found.head.layers)


def test_a_body_that_pools_has_no_head():
    with keras.StatelessScope(initialize_variables=False):
        model = keras.applications.ResNet50(weights=None, include_top=False, pooling="avg", input_shape=(32, 32, 3))
    assert blocks(model).head is None


# What a block is


def test_a_block_has_all_its_layers_its_variables_in_order_and_its_size():
    model = _classify(_own())
    block = blocks(model)["block2"]
    assert [layer.name for layer in block.layers] == [
        f"block2_{part}" for part in ("conv1", "bn", "relu", "drop", "conv2", "add")
    ]
    places = [[v.path for v in model.variables].index(variable.path) for variable in block.variables]
    assert places == sorted(places)
    assert block.parameters == 2 * (4 * 4 * 9 + 4) + 4 * 4
    assert block.output_shape == (None, 6, 6, 4)
    assert block.ratio is None


@pytest.mark.both_backends
def test_the_model_can_be_cut_at_every_block():
    body = _own()
    found = blocks(_classify(body))
    pixels = np.random.default_rng(0).uniform(size=(2, 8, 8, 3)).astype("float32")
    whole = keras.ops.convert_to_numpy(body(pixels))
    for block in found.body:
        lower = keras.Model(body.input, block.output)
        upper_input = keras.Input(block.output_shape[1:])
        below = {layer.name for layer in lower.layers}
        tensors = {id(block.output): upper_input}
        for layer in body.layers:
            if layer.name not in below:
                several = isinstance(layer.input, list)
                tensors[id(layer.output)] = layer(
                    [tensors[id(tensor)] for tensor in layer.input] if several else tensors[id(layer.input)]
                )
        upper = keras.Model(upper_input, tensors[id(body.output)])
        np.testing.assert_allclose(keras.ops.convert_to_numpy(upper(lower(pixels))), whole, rtol=1e-5, atol=1e-6)


def test_whether_a_block_trains_is_told_from_its_weights():
    model = _classify(_own())
    model.get_layer("mine").trainable = False
    found = blocks(model)
    assert [block.trainable for block in found] == [False, False, False, False, True]
    model.get_layer("mine").trainable = True
    found["block1"].layers[1].trainable = False  # a batch normalisation
    assert [block.trainable for block in found] == [True, "partly", True, True, True]


def test_looking_at_blocks_changes_nothing():
    model = _classify(_own())
    model.get_layer("mine").trainable = False
    model.get_layer("mine").layers[1].trainable = True
    before = [layer.trainable for layer in model._flatten_layers()]
    str(blocks(model))
    blocks(model).select("all")
    assert [layer.trainable for layer in model._flatten_layers()] == before


class _Rated(keras.optimizers.SGD):
    def ratio_of(self, variable):
        return {"scores": 1.0, "block3_conv1": 0.5, "block3_bn": 0.25, "block3_conv2": 0.5}.get(
            variable.path.split("/")[0], 0.1
        )


@pytest.mark.parametrize("wrap", [lambda optimizer: optimizer, keras.optimizers.LossScaleOptimizer])
def test_ratios_come_from_the_optimizer(wrap):
    model = _classify(_own())
    model.compile(wrap(_Rated(0.1)))
    model.get_layer("mine").get_layer("stem_conv").trainable = False
    assert [block.ratio for block in blocks(model)] == [0.1, 0.1, 0.1, (0.25, 0.5), 1.0]
    assert "0.25–0.5" in str(blocks(model))


def test_printed_they_are_a_table():
    model = _classify(_own())
    model.get_layer("mine").trainable = False
    assert str(blocks(model)) == (
        "block     layers  parameters  output        trainable  ratio\n"
        "────────────────────────────────────────────────────────────\n"
        "stem           2         128  (-, 6, 6, 4)  no\n"
        "block1         6         312  (-, 6, 6, 4)  no\n"
        "block2         6         312  (-, 6, 6, 4)  no\n"
        "block3         6         312  (-, 6, 6, 4)  no\n"
        "head           4          15  (-, 3)        yes\n"
        "────────────────────────────────────────────────────────────\n"
        "5 blocks      24       1,079"
    )


# Models of one's own


def test_layers_without_names_are_counted_from_nought():
    keras.layers.Conv2D(1, 1)  # takes the first number
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(pixels))
    x = keras.layers.ReLU()(keras.layers.Conv2D(4, 3)(keras.layers.ZeroPadding2D()(x)))
    for _ in range(2):
        x = _residual(x)
    found = blocks(keras.Model(pixels, x))
    assert found.names == ("conv2d", "conv2d_1", "conv2d_2", "conv2d_4")
    assert [type(layer).__name__ for layer in found[1].layers] == ["ZeroPadding2D", "Conv2D", "ReLU"]


def test_a_sequential_with_its_classifier():
    model = keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(4, 3, name="low"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(8, 3, name="high"),
            keras.layers.Flatten(),
            keras.layers.Dense(16),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(10),
        ]
    )
    found = blocks(model)
    assert found.names == ("low", "high", "head")
    assert [type(layer).__name__ for layer in found.body[0].layers] == ["Rescaling", "Conv2D", "MaxPooling2D"]
    assert [type(layer).__name__ for layer in found.head.layers] == ["Flatten", "Dense", "Dropout", "Dense"]


def test_the_head_of_what_has_no_pooling_is_its_last_layer():
    names = [keras.layers.Dense(4, name=name) for name in ("low", "middle", "scores")]
    assert blocks(keras.Sequential([keras.Input((8,)), *names])).names == ("low", "middle", "head")
    flattened = [keras.layers.Flatten(), *(keras.layers.Dense(4, name=name) for name in ("low", "scores"))]
    assert blocks(keras.Sequential([keras.Input((4, 2)), *flattened])).names == ("low", "head")
    assert blocks(keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])).names == ("head",)


def test_a_body_within_a_wrapper_within_a_classifier():
    body = _own()
    wrapped = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Rescaling(1 / 255), body])
    assert blocks(wrapped).names == blocks(body).names
    assert blocks(wrapped).head is None
    found = blocks(_classify(wrapped))
    assert found.names == (*blocks(body).names, "head")
    assert found.body_model is body


def test_pixels_normalised_with_weights_belong_to_the_first_block():
    normalization = keras.layers.Normalization()
    normalization.adapt(np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)))
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.GlobalMaxPooling2D()(_own()(normalization(pixels)))
    found = blocks(keras.Model(pixels, keras.layers.Dense(2)(x)))
    assert found.names == ("stem", "block1", "block2", "block3", "head")
    assert normalization in found[0].layers


def test_layers_that_two_towers_share_are_in_one_block():
    tower = _own("tower")
    one, other = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    pool = keras.layers.GlobalAveragePooling2D()
    x = keras.layers.Concatenate()([pool(tower(one)), pool(tower(other))])
    found = blocks(keras.Model([one, other], keras.layers.Dense(2)(x)))
    assert found.names == ("stem", "block1", "block2", "block3", "head")


def test_recurrent_layers():
    x = tokens = keras.Input((6,), dtype="int32")
    x = keras.layers.Embedding(9, 4)(x)
    x = keras.layers.Bidirectional(keras.layers.LSTM(3, return_sequences=True))(x)
    x = keras.layers.LSTM(3)(x)
    found = blocks(keras.Model(tokens, keras.layers.Dense(2)(x)))
    assert found.names == ("embedding", "bidirectional", "lstm", "head")


def test_reserved_and_repeated_names_are_told_apart():
    x = inputs = keras.Input((4, 4, 2))
    for name in ("head", "a1_x", "b", "a1_y"):
        x = keras.layers.Conv2D(2, 1, name=name)(x)
    assert blocks(keras.Model(inputs, x)).names == ("head_block", "a1", "b", "a1_2")


def test_weights_outside_the_graph_are_an_error():
    model = _own()
    model.forgotten = keras.layers.Dense(2, name="forgotten")
    model.forgotten.build((None, 3))
    with pytest.raises(ValueError, match="forgotten/kernel"):
        blocks(model)


def test_a_model_without_a_graph_is_an_error():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="no graph that could be read"):
        blocks(Own())


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.sampled_from(["conv", "norm", "relu", "residual", "depthwise", "nested", "pool"]), min_size=1, max_size=7
    )
)
def test_every_layer_of_any_model_is_in_exactly_one_block(kinds):
    keras.utils.clear_session(free_memory=False)
    x = inputs = keras.Input((8, 8, 4))
    for place, kind in enumerate(["conv", *kinds]):
        if kind == "residual":
            x = _residual(x, f"stage{place}" if place % 2 else None)
        elif kind == "nested":
            inner = keras.Input((*x.shape[1:3], 4))
            x = keras.Model(inner, _residual(inner))(x)
        else:
            x = {
                "conv": lambda: keras.layers.Conv2D(4, 1),
                "norm": keras.layers.LayerNormalization,
                "relu": keras.layers.ReLU,
                "depthwise": lambda: keras.layers.DepthwiseConv2D(1),
                "pool": lambda: keras.layers.MaxPooling2D(2, padding="same"),
            }[kind]()(x)
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x)))
    found = blocks(model)
    held = [id(layer) for block in found for layer in block.layers]
    every = {id(leaf) for layer in model.layers for leaf in leaves(layer)}
    assert len(held) == len(set(held))
    assert set(held) == every
    assert len(set(found.names)) == len(found)
    assert found.names[-1] == "head"
    assert all(block.output is not None for block in found)


# Choosing


def test_select_takes_words_and_lists_and_keeps_the_order():
    found = blocks(_classify(_own()))

    def names(wanted):
        return [block.name for block in found.select(wanted)]

    assert names("head") == ["head"]
    assert names("all") == ["stem", "block1", "block2", "block3", "head"]
    assert names("top:2") == ["block2", "block3"]
    assert names("block1") == ["block1"]
    assert names(["head", "block1", "top:1", "block3"]) == ["block1", "block3", "head"]


def test_a_misspelt_block_is_answered_with_the_nearest_and_the_list():
    found = blocks(_draw("EfficientNetV2B0"))
    with pytest.raises(ValueError) as caught:
        found.select("blok6h", argument="unfreeze")
    assert str(caught.value) == (
        "`unfreeze` names a block that EfficientNetV2B0 does not have.\n"
        "  given:     'blok6h'\n"
        "  nearest:   'block6h'\n"
        "  its blocks, bottom to top: stem, block1a, …, block6h, top; no head"
    )
    with pytest.raises(ValueError, match="nearest:   'block6h', the block that holds this layer"):
        found.select("block6h_se_reduce")


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("top:0", "'top:1' to 'top:4'"),
        ("top:5", "'top:1' to 'top:4'"),
        ("top:two", "given:     'top:two'"),
        ([], "names no block"),
        (["head", "blok1"], "nearest:   'block1'"),
        ("haed", "nearest:   'head'"),
        (7, "given:     7"),
    ],
)
def test_what_select_does_not_understand(wanted, words):
    with pytest.raises(ValueError, match=words):
        blocks(_classify(_own())).select(wanted if not isinstance(wanted, int) else [wanted])


def test_a_bare_body_has_no_head_to_select():
    with pytest.raises(ValueError, match="no head"):
        blocks(_own()).select("head")


def test_blocks_are_found_by_place_and_by_name():
    found = blocks(_own())
    assert found[0] is found["stem"]
    assert found[-1] is found["block3"]
    assert [block.name for block in found[1:3]] == ["block1", "block2"]
    with pytest.raises(ValueError, match="nearest:   'block2'"):
        found["block_2"]
