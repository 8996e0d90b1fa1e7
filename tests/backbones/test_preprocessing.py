"""The four conventions: right, in float32, saved with the model, and never applied twice."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_transfer.backbones import preprocessing

MODES = {"tf": "tf", "caffe": "caffe", "torch": "torch"}


def _pixels(count=2, side=8):
    return np.random.default_rng(0).uniform(0, 255, (count, side, side, 3)).astype("float32")


def _body(*bottom):
    return keras.Sequential(
        [keras.Input((8, 8, 3)), *bottom, keras.layers.Conv2D(4, 3), keras.layers.ReLU()], name="mine"
    )


def _classifier(preprocess):
    pixels = keras.Input((8, 8, 3), dtype="float32")
    x = keras.layers.GlobalAveragePooling2D()(_body()(preprocessing.apply(preprocess, pixels)))
    return keras.Model(pixels, keras.layers.Dense(3, dtype="float32")(x))


@pytest.mark.both_backends
@pytest.mark.parametrize("convention", MODES)
def test_a_convention_is_that_of_keras(convention):
    ours = preprocessing.apply(convention, keras.ops.convert_to_tensor(_pixels()))
    theirs = keras.applications.imagenet_utils.preprocess_input(_pixels(), mode=MODES[convention])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(ours), theirs, rtol=1e-5, atol=2e-5)


def test_identity_adds_nothing():
    pixels = keras.Input((8, 8, 3))
    assert preprocessing.apply("identity", pixels) is pixels


@pytest.mark.both_backends
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("convention", MODES)
def test_it_computes_in_float32_under_any_policy(convention, policy):
    keras.config.set_dtype_policy(policy)
    pixels = keras.Input((8, 8, 3), dtype="float32")
    model = keras.Model(pixels, preprocessing.apply(convention, pixels))
    theirs = keras.applications.imagenet_utils.preprocess_input(_pixels(), mode=MODES[convention])
    scaled = model(_pixels())
    assert keras.backend.standardize_dtype(scaled.dtype) == "float32"
    np.testing.assert_allclose(keras.ops.convert_to_numpy(scaled), theirs, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("given", ["mean and variance", "adapted"])
def test_a_layer_of_ones_own_is_brought_to_float32_with_its_constants(given):
    def normalization(policy):
        keras.config.set_dtype_policy(policy)
        if given == "adapted":
            layer = keras.layers.Normalization()
            layer.adapt(_pixels())
        else:
            layer = keras.layers.Normalization(mean=[123.675, 116.28, 103.53], variance=[3409.976, 3262.694, 3291.891])
            layer.build((None, 8, 8, 3))
        return keras.Sequential([keras.Input((8, 8, 3)), layer])

    wanted = normalization("float32")(_pixels())
    scaled = preprocessing.apply(normalization("mixed_bfloat16"), keras.ops.convert_to_tensor(_pixels()))
    assert keras.backend.standardize_dtype(scaled.dtype) == "float32"
    # Keras adapts in the precision of the layer, so the statistics themselves are coarser.
    np.testing.assert_allclose(scaled, wanted, rtol=1e-5 if given != "adapted" else 0.02, atol=0.02)


def test_it_is_saved_with_the_model_and_loads_where_we_are_not_installed(tmp_path):
    for convention in MODES:
        model = _classifier(convention)
        model.save(tmp_path / f"{convention}.keras")
        np.save(tmp_path / f"{convention}.npy", model(_pixels()))
    np.save(tmp_path / "pixels.npy", _pixels())
    script = """
import pathlib, sys, keras, numpy as np
folder = pathlib.Path(sys.argv[1])
for path in folder.glob("*.keras"):
    logits = keras.saving.load_model(path)(np.load(folder / "pixels.npy"))
    np.testing.assert_array_equal(logits, np.load(path.with_suffix(".npy")))
assert not any(name.startswith("keras_transfer") for name in sys.modules)
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, capture_output=True)


def test_a_misspelt_convention_is_answered_with_the_nearest():
    with pytest.raises(ValueError) as caught:
        preprocessing.apply("touch", keras.Input((8, 8, 3)))
    assert str(caught.value) == (
        "`preprocessing` names a convention that does not exist.\n"
        "  given:     'touch'\n"
        "  nearest:   'torch'\n"
        "  expected:  'identity', 'tf', 'caffe', 'torch', or a keras layer"
    )


@pytest.mark.parametrize("wrong", [None, 3, keras.layers.Rescaling, np.array])
def test_what_is_neither_a_name_nor_a_layer(wrong):
    with pytest.raises(ValueError, match="names a convention that does not exist"):
        preprocessing.check(wrong)


@pytest.mark.parametrize(
    "bottom",
    [
        [keras.layers.Rescaling(1 / 255)],
        [keras.layers.Normalization(mean=120.0, variance=3000.0)],
        [keras.layers.RandomFlip(), keras.layers.Rescaling(1 / 127.5, offset=-1)],
    ],
)
@pytest.mark.parametrize("twice", ["tf", "caffe", "torch", keras.layers.Rescaling(1 / 255)])
def test_preprocessing_twice_is_an_error(bottom, twice):
    with pytest.raises(ValueError, match="mine would be preprocessed twice") as caught:
        preprocessing.check(twice, _body(*bottom))
    assert bottom[-1].name in str(caught.value)
    preprocessing.check("identity", _body(*bottom))


def test_preprocessing_twice_is_found_in_a_nested_body_and_in_bare_arithmetic():
    pixels = keras.Input((8, 8, 3))
    nested = keras.Model(pixels, _body(keras.layers.Rescaling(1 / 255))(pixels))
    with pytest.raises(ValueError, match="twice"):
        preprocessing.check("tf", nested)
    scaled = keras.applications.mobilenet_v2.preprocess_input(pixels)
    with pytest.raises(ValueError, match="twice"):
        preprocessing.check("tf", keras.Model(pixels, keras.layers.Conv2D(2, 3)(scaled)))


@pytest.mark.parametrize("layer", [keras.layers.CenterCrop(8, 8), keras.layers.Resizing(8, 8), keras.layers.Identity()])
def test_a_layer_that_only_crops_or_resizes_may_stand_before_scaling(layer):
    preprocessing.check(layer, _body(keras.layers.Rescaling(1 / 255)))


def test_scaling_above_the_first_layer_is_not_preprocessing():
    body = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.Rescaling(0.1)])
    assert preprocessing.scaling_operations(body) == []
    preprocessing.check("tf", body)


def test_a_normalization_that_was_never_adapted_is_an_error():
    with pytest.raises(ValueError, match=r"never adapted.*\n.*\n.*\n.*layer.adapt\(pictures\)"):
        preprocessing.apply(keras.layers.Normalization(), keras.Input((8, 8, 3)))
    inside = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Normalization()])
    with pytest.raises(ValueError, match="never adapted"):
        preprocessing.check(inside)


@pytest.mark.parametrize(
    ("bottom", "expected"),
    [
        ([keras.layers.Rescaling(1 / 255)], True),
        ([keras.layers.Rescaling(1 / 127.5, offset=-1)], True),
        ([keras.layers.Rescaling(1.0, offset=[-103.939, -116.779, -123.68])], True),
        ([keras.layers.Rescaling(1 / 255), keras.layers.Normalization(mean=0.45, variance=0.05)], True),
        ([keras.layers.Normalization(mean=0.45, variance=0.05)], False),
        ([], None),
    ],
)
def test_whether_a_model_expects_0_to_255_is_told_from_its_bottom(bottom, expected):
    assert preprocessing.expects_pixels(_body(*bottom)) is expected


@pytest.mark.parametrize("convention", MODES)
def test_a_classifier_that_we_preprocess_expects_pixels(convention):
    assert preprocessing.expects_pixels(_classifier(convention)) is True
