"""KerasHub's bodies that see pictures, under the head of `kt.image_classifier`."""

import keras
import keras_hub
import numpy as np
import pytest
from adapters import families

import keras_transfer as kt

models = keras_hub.models


def _pictures(side=families.SIDE):
    return np.random.default_rng(0).uniform(0, 255, (3, side, side, 3)).astype("float32")


def _features(model, x):
    return np.asarray(keras.Model(model.input, model.get_layer("head_dropout").input)(x))


def _siglip():
    size = {"hidden_dim": 8, "num_layers": 2, "num_heads": 2, "intermediate_dim": 16}
    return models.SigLIPBackbone(
        models.SigLIPVisionEncoder(patch_size=8, image_shape=(16, 16, 3), **size),
        models.SigLIPTextEncoder(vocabulary_size=20, embedding_dim=8, max_sequence_length=6, **size),
    )


def _resnet():
    return models.ResNetBackbone(
        input_conv_filters=[64], input_conv_kernel_sizes=[3], stackwise_num_filters=[64], stackwise_num_blocks=[1],
        stackwise_num_strides=[1], block_type="basic_block",
    )  # fmt: skip


@pytest.mark.parametrize(
    "family", [pytest.param("vit", marks=pytest.mark.both_backends), "deit", "dinov2", "dinov3", "swin", "mit"]
)
def test_every_family_has_a_frozen_body_and_a_head(family):
    model = kt.image_classifier(getattr(families, family)(), ["ant", "bee"], preprocessing="torch")
    assert [variable.path for variable in model.trainable_variables] == ["head/kernel", "head/bias"]
    assert kt.blocks(model).names[-1] == "head"
    assert sum(block.parameters for block in kt.blocks(model)) == model.count_params()
    x = _pictures()
    np.testing.assert_array_equal(_features(model, x), _features(model, x))
    assert kt.predict(model, x.astype("uint8")).shape == (3, 2)


@pytest.mark.parametrize(("family", "pooled"), [("vit", "first"), ("dinov3", "first"), ("swin", "mean")])
def test_the_head_sees_the_class_token_where_there_is_one(family, pooled):
    body = getattr(families, family)()
    x = _pictures()
    tokens = np.asarray(body(x if not isinstance(body.input, dict) else dict.fromkeys(body.input, x)))
    expected = {"first": tokens[:, 0], "mean": tokens.mean(axis=1)}
    for pooling, meant in [("auto", pooled), ("first", "first"), ("mean", "mean")]:
        model = kt.image_classifier(body, 2, preprocessing="identity", pooling=pooling)
        np.testing.assert_allclose(_features(model, x), expected[meant], rtol=1e-4, atol=1e-5)


def test_of_siglip_only_the_tower_that_sees_is_taken():
    body = _siglip()
    model = kt.image_classifier(body, 2, preprocessing="tf")
    assert model.count_params() == body.vision_encoder.count_params() + model.get_layer("head").count_params()


def _preset(folder, task, backbone, converter):
    preprocessor = task.preprocessor_cls(converter)
    task(backbone=backbone, num_classes=3, preprocessor=preprocessor).save_to_preset(folder)


def test_a_preset_brings_its_preprocessing(tmp_path):
    body = families.vit()
    converter = keras_hub.layers.ViTImageConverter(image_size=(16, 16), scale=1 / 127.5, offset=-1.0)
    _preset(tmp_path, models.ViTImageClassifier, body, converter)
    model = kt.image_classifier(tmp_path, 2)
    expected = kt.image_classifier(body, 2, preprocessing="tf")
    np.testing.assert_allclose(_features(model, _pictures()), _features(expected, _pictures()), rtol=1e-4, atol=1e-5)
    assert model.get_layer("preprocessing").compute_dtype == "float32"


def test_a_body_for_any_size_takes_that_of_its_preset_or_the_one_asked_for(tmp_path):
    converter = keras_hub.layers.ResNetImageConverter(image_size=(20, 24), scale=1 / 255)
    _preset(tmp_path, models.ResNetImageClassifier, _resnet(), converter)
    assert kt.image_classifier(tmp_path, 2).input_shape == (None, 20, 24, 3)
    assert kt.image_classifier(tmp_path, 2, image_size=32).input_shape == (None, 32, 32, 3)


def test_a_converter_serves_as_preprocessing():
    converter = keras_hub.layers.ViTImageConverter(image_size=(99, 99), scale=1 / 127.5, offset=-1.0)
    body = families.vit()
    model = kt.image_classifier(body, 2, preprocessing=converter)
    expected = kt.image_classifier(body, 2, preprocessing="tf")
    np.testing.assert_allclose(_features(model, _pictures()), _features(expected, _pictures()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("body", "options", "message"),
    [
        (families.bert, {"preprocessing": "tf"}, "kt.text_classifier"),
        (families.vit, {}, "Nobody but you knows"),
        (families.vit, {"preprocessing": "tf", "image_size": 32}, "of another size"),
        (families.vit, {"preprocessing": "tf", "pooling": "last"}, "'auto', 'mean' or 'first'"),
        (families.mit, {"preprocessing": "tf", "pooling": "first"}, "'auto', 'mean'"),
        (families.vit_det, {"preprocessing": "tf"}, "twice"),
        (lambda: "vit_bas_patch16_224_imagenet", {}, "nearest: +'vit_base_patch16_224_imagenet'"),
    ],
)
def test_a_mistake_is_said_with_its_mend(body, options, message):
    with pytest.raises(ValueError, match=message):
        kt.image_classifier(body(), 2, **options)


def test_a_preset_that_says_nothing_of_pixels_is_refused(tmp_path):
    families.vit().save_to_preset(tmp_path)
    with pytest.raises(ValueError, match="does not say what pixels"):
        kt.image_classifier(tmp_path, 2)
    assert kt.image_classifier(tmp_path, 2, preprocessing="tf").output_shape == (None, 2)
