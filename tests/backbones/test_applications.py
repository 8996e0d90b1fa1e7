"""The 40 bodies of keras.applications: names, sides, conventions, weights, and what goes wrong with them."""

import os
import pathlib
import urllib.error

import keras
import numpy as np
import pytest

from keras_transfer.backbones import applications, preprocessing
from keras_transfer.backbones.blocks import blocks
from keras_transfer.backbones.graph import leaves


class Drawn:
    """A body as Keras draws it, with what Keras asked for on the way; no variable has a value, so even B7 is cheap."""

    def __init__(self, name, monkeypatch):
        def get_file(fname, *_, **__):
            self.file = fname
            return "nowhere.h5"

        obtain_input_shape = keras.src.applications.imagenet_utils.obtain_input_shape

        def obtain(input_shape, default_size, *arguments, **keywords):
            self.side = default_size
            return obtain_input_shape(input_shape, default_size, *arguments, **keywords)

        monkeypatch.setattr("keras.src.utils.file_utils.get_file", get_file)
        monkeypatch.setattr("keras.src.applications.imagenet_utils.obtain_input_shape", obtain)
        monkeypatch.setattr("keras.Model.load_weights", lambda *_, **__: None)
        keras.utils.clear_session(free_memory=False)
        self.name = name
        self.side = None
        with keras.StatelessScope(initialize_variables=False):
            self.body = applications.build(name, weights="imagenet")


@pytest.fixture(scope="module", params=applications.names())
def drawn(request):
    with pytest.MonkeyPatch.context() as monkeypatch:
        return Drawn(request.param, monkeypatch)


def test_there_are_forty():
    public = [name for name in dir(keras.applications) if name[0].isupper()]
    assert sorted(applications.names()) == sorted(public)


def test_keras_asks_for_the_file_that_we_name(drawn):
    assert drawn.file == applications.weights_file(drawn.name).name


def test_the_default_side_is_the_constructors(drawn):
    side = drawn.side
    if drawn.name in ("MobileNet", "MobileNetV2"):  # these take whatever they are given as their default
        with keras.StatelessScope(initialize_variables=False):
            side = getattr(keras.applications, drawn.name)(weights=None).input_shape[1]
    if drawn.name.startswith("MobileNetV3"):  # it has none, but its weights do
        side = int(drawn.file.split("_")[4])
    assert applications.image_size(drawn.name) == side


def test_a_body_is_called_by_its_name_and_ends_in_a_map(drawn):
    side = applications.image_size(drawn.name)
    assert drawn.body.name == drawn.name
    assert drawn.body.input_shape == (None, side, side, 3)
    assert len(drawn.body.output_shape) == 4


def test_a_body_scales_its_own_input_where_its_convention_says_so(drawn):
    scales = bool(preprocessing.scaling_operations(drawn.body))
    assert scales == (applications.convention(drawn.name) == "identity")


def test_every_layer_is_in_exactly_one_block(drawn):
    found = blocks(drawn.body)
    held = [id(layer) for block in found for layer in block.layers]
    assert len(held) == len(set(held))
    assert set(held) == {id(leaf) for layer in drawn.body.layers for leaf in leaves(layer)}
    variables = [id(variable) for block in found for variable in block.variables]
    assert len(variables) == len(set(variables))
    assert set(variables) == {id(variable) for variable in drawn.body.weights}
    assert all(block.variables for block in found)


def test_blocks_are_named_once_and_a_bare_body_has_no_head(drawn):
    found = blocks(drawn.body)
    assert len(set(found.names)) == len(found)
    assert found.head is None
    assert 13 <= len(found) <= 102


def test_a_cut_needs_nothing_of_the_blocks_above_it(drawn):
    found = blocks(drawn.body)
    for place in (0, len(found) // 2, len(found) - 2):
        lower = keras.Model(drawn.body.inputs, found[place].cut)
        needed = {id(leaf) for layer in lower.layers for leaf in leaves(layer)}
        below = {id(layer) for block in found[: place + 1] for layer in block.layers}
        assert needed <= below


def test_the_last_cut_is_the_output(drawn):
    assert blocks(drawn.body)[-1].output is drawn.body.output


@pytest.mark.parametrize("name", applications.names())
def test_the_convention_is_the_familys_own(name):
    module = getattr(keras.applications, getattr(keras.applications, name).__module__.rpartition(".")[2])
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 5, 4, 3)).astype("float32")
    ours = preprocessing.apply(applications.convention(name), keras.ops.convert_to_tensor(pixels))
    np.testing.assert_allclose(ours, module.preprocess_input(pixels.copy()), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("EfficientNetB0", "mixed_bfloat16"),
        ("EfficientNetV2B0", "mixed_float16"),
        ("EfficientNetV2S", "mixed_bfloat16"),
        ("ConvNeXtTiny", "mixed_bfloat16"),
        ("MobileNetV3Small", "mixed_float16"),
    ],
)
def test_a_bodys_own_scaling_is_in_float32_under_any_policy(name, policy):
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3)).astype("float32")

    def scaled(dtype_policy):
        keras.config.set_dtype_policy(dtype_policy)
        with keras.StatelessScope():
            body = applications.build(name, weights=None, image_size=32)
        bottom = keras.Model(body.input, preprocessing.scaling_operations(body)[-1].output)
        outer = keras.Input((32, 32, 3), dtype="float32")
        return keras.Model(outer, bottom(outer))(pixels)

    mixed = scaled(policy)
    assert keras.backend.standardize_dtype(mixed.dtype) == "float32"
    np.testing.assert_array_equal(mixed, scaled("float32"))


def test_a_misspelt_body_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="nearest:   'EfficientNetV2B0'"):
        applications.build("EficientNetV2B0", weights=None)
    with pytest.raises(ValueError, match="nearest:   'MobileNetV2'"):
        applications.convention("mobilenetv2")
    with pytest.raises(ValueError, match="one of ConvNeXtTiny, "):
        applications.image_size("zzz")


@pytest.mark.parametrize(
    ("name", "option", "words"),
    [
        ("MobileNetV2", {"alhpa": 0.35}, "nearest:   'alpha'"),
        ("VGG16", {"depth": 3}, "none: this body has no options"),
        ("VGG16", {"include_top": True}, "kt.image_classifier puts the head on it"),
        ("VGG16", {"pooling": "avg"}, "the head pools"),
        ("VGG16", {"input_shape": (32, 32, 3)}, "pass image_size"),
        ("VGG16", {"classes": 3}, "pass them to kt.image_classifier"),
        ("MobileNetV3Small", {"include_preprocessing": False}, "always included"),
        ("MobileNet", {"dropout": 0.3}, "in the classifier that a body does not have"),
    ],
)
def test_an_option_that_the_body_does_not_take(name, option, words):
    with pytest.raises(ValueError, match=words):
        applications.build(name, weights=None, image_size=32, **option)


@pytest.mark.parametrize("image_size", [0, -3, (32,), (32, 32, 3), "32", 32.5])
def test_a_size_that_is_none(image_size):
    with pytest.raises((ValueError), match="`image_size` is a side or a"):
        applications.build("VGG16", weights=None, image_size=image_size)


def test_pictures_need_not_be_square():
    assert applications.build("VGG16", weights=None, image_size=(32, 64)).output_shape == (None, 1, 2, 512)


def test_channels_first_is_refused():
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(ValueError, match="set_image_data_format\\('channels_last'\\)"):
            applications.build("VGG16", weights=None, image_size=32)
    finally:
        keras.config.set_image_data_format("channels_last")


# Weights


@pytest.fixture
def keras_home(tmp_path, monkeypatch):
    """An empty Keras folder, and no network."""

    def urlretrieve(*_, **__):
        raise urllib.error.URLError("no network in this test")

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))
    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", urlretrieve)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "options", "file"),
    [
        ("MobileNet", {"alpha": 0.25, "image_size": 128}, "mobilenet_2_5_128_tf_no_top.h5"),
        ("MobileNet", {}, "mobilenet_1_0_224_tf_no_top.h5"),
        ("MobileNet", {"alpha": 0.5}, "mobilenet_5_0_224_tf_no_top.h5"),
        (
            "MobileNetV2",
            {"alpha": 1, "image_size": 96},
            "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_96_no_top.h5",
        ),
        (
            "MobileNetV3Small",
            {"minimalistic": True},
            "weights_mobilenet_v3_small_minimalistic_224_1.0_float_no_top_v2.h5",
        ),
        ("MobileNetV3Large", {"alpha": 0.75}, "weights_mobilenet_v3_large_224_0.75_float_no_top_v2.h5"),
        ("VGG16", {}, "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"),
        ("ResNet50V2", {}, "resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5"),
        ("EfficientNetV2B0", {}, "efficientnetv2-b0_notop.h5"),
    ],
)
def test_without_network_and_file_one_error_says_what_to_put_where(keras_home, name, options, file):
    with keras.StatelessScope(initialize_variables=False), pytest.raises(FileNotFoundError) as caught:
        applications.build(name, **options)
    message = str(caught.value)
    assert f"The ImageNet weights of {name} are not on this machine" in message
    assert f"put {file} into {keras_home / 'models'}" in message
    assert "no network in this test" in message


@pytest.mark.filterwarnings("default:.*is not in:UserWarning")
def test_at_a_side_without_weights_of_its_own_a_mobilenet_takes_those_for_224(keras_home):
    file = applications.weights_file("MobileNetV2", image_size=100)
    assert file == keras_home / "models" / "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
    with pytest.raises(FileNotFoundError, match=file.name):
        applications.build("MobileNetV2", image_size=100)


def test_keras_own_checks_of_the_options_come_through(keras_home):
    with pytest.raises(ValueError, match="alpha must be one of"):
        applications.build("MobileNetV2", alpha=0.3)
    with pytest.raises(ValueError, match="at least 75x75"):
        applications.build("InceptionV3", image_size=32)


def test_a_broken_download_is_not_hidden(keras_home):
    file = applications.weights_file("MobileNetV2", alpha=0.35)
    file.parent.mkdir()
    file.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(200))
    with pytest.raises(ValueError, match="do not open, or do not fit the body of MobileNetV2") as caught:
        applications.build("MobileNetV2", alpha=0.35)
    assert str(file) in str(caught.value)
    assert file.exists()


def test_a_file_of_another_checksum_is_not_hidden(keras_home):
    file = applications.weights_file("ResNet50")
    file.parent.mkdir()
    file.write_bytes(bytes(200))
    with pytest.raises(FileNotFoundError, match="incomplete or altered") as caught:
        applications.build("ResNet50", image_size=32)
    assert file.name in str(caught.value)


def test_weights_from_a_path(tmp_path):
    saved = applications.build("MobileNetV2", weights=None, image_size=32, alpha=0.35)
    path = tmp_path / "mine.weights.h5"
    saved.save_weights(path)
    loaded = applications.build("MobileNetV2", weights=path, image_size=64, alpha=0.35)
    for ours, theirs in zip(loaded.get_weights(), saved.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ValueError, match="built with the same options"):
        applications.build("MobileNetV2", weights=path, image_size=32, alpha=0.5)
    with pytest.raises(ValueError, match="do not fit the body of MobileNet\\."):
        applications.build("MobileNet", weights=str(path), image_size=32)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("imagnet", "nearest:   'imagenet'"),
        ("nowhere.weights.h5", "There is no weights file at this path"),
        (__file__, "This is not a weights file"),
    ],
)
def test_a_path_without_weights(weights, words):
    with pytest.raises(ValueError, match=words):
        applications.build("VGG16", weights=weights, image_size=32)


def test_efficientnet_from_a_path_scales_as_efficientnet_from_imagenet_does(tmp_path, monkeypatch):
    stock = keras.applications.EfficientNetB0(weights=None, include_top=False, input_shape=(32, 32, 3))
    normalization = next(layer for layer in stock.layers if isinstance(layer, keras.layers.Normalization))
    deviation = np.array(preprocessing.IMAGENET_DEVIATION)
    normalization.set_weights([np.array(preprocessing.IMAGENET_MEAN), deviation**2, np.array(0)])
    path = str(tmp_path / "efficientnetb0_notop.weights.h5")
    stock.save_weights(path)
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", lambda *_, **__: path)
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3)).astype("float32")
    from_imagenet = applications.build("EfficientNetB0", weights="imagenet", image_size=32)
    from_path = applications.build("EfficientNetB0", weights=path, image_size=32)
    np.testing.assert_allclose(from_path(pixels), from_imagenet(pixels), rtol=1e-4, atol=1e-5)
    again = str(tmp_path / "again.weights.h5")
    from_path.save_weights(again)
    reloaded = applications.build("EfficientNetB0", weights=again, image_size=32)
    np.testing.assert_array_equal(reloaded(pixels), from_path(pixels))


@pytest.mark.parametrize(
    ("name", "side", "alpha"), [("MobileNetV2", 224, 0.35), ("MobileNetV2", 224, 1.0), ("MobileNet", 128, 0.25)]
)
def test_real_imagenet_weights_are_those_that_keras_loads(shared, name, side, alpha):
    body = applications.build(name, image_size=side, alpha=alpha)
    shape = (side, side, 3)
    stock = getattr(keras.applications, name)(alpha=alpha, include_top=False, input_shape=shape, weights="imagenet")
    for ours, theirs in zip(body.get_weights(), stock.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    file = (
        pathlib.Path(os.environ["KERAS_HOME"])
        / "models"
        / applications.weights_file(name, image_size=side, alpha=alpha).name
    )
    from_path = applications.build(name, image_size=side, alpha=alpha, weights=file)
    np.testing.assert_array_equal(from_path.get_weights()[0], body.get_weights()[0])


def test_the_file_with_the_classifier_does_not_fit_a_body(shared):
    file = shared / "keras_home" / "models" / "mobilenet_2_5_128_tf.h5"
    with pytest.raises(ValueError, match="without its classifier"):
        applications.build("MobileNet", image_size=128, alpha=0.25, weights=file)


def test_with_its_convention_a_real_model_knows_ants_and_bees(shared):
    pictures = [
        keras.utils.img_to_array(keras.utils.load_img(path, target_size=(224, 224), interpolation="bilinear"))
        for kind in ("ants", "bees")
        for path in sorted((shared / "images" / "hymenoptera" / "val" / kind).glob("*.jpg"))[:8]
    ]
    labels = [310] * 8 + [309] * 8  # ImageNet's ant and bee
    stock = keras.applications.MobileNetV2()

    def found(convention):
        scaled = preprocessing.apply(convention, keras.ops.convert_to_tensor(np.stack(pictures)))
        ranked = np.argsort(-np.asarray(stock(scaled)), axis=1)
        return sum(label in row[:5] for label, row in zip(labels, ranked, strict=True))

    assert found(applications.convention("MobileNetV2")) >= 11
    assert found("caffe") <= 3
    assert found("identity") <= 3
