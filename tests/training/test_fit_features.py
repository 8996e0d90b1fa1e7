"""Frozen work done once comes to the same as frozen work done in every epoch."""

import functools

import keras
import keras_hub
import numpy as np
import pytest
from adapters import families
from bodies import classifier, dark_and_light, pictures
from vocabularies import byte_pairs, word_pieces

import keras_transfer as kt
from keras_transfer import state
from keras_transfer.backbones import cut
from keras_transfer.data import pipeline
from keras_transfer.training import cache, features, stages

# Features come out of other batches than the model's own, and each rounds in its way.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Where features are kept in a test: nothing is there before it."""
    monkeypatch.setenv("KERAS_TRANSFER_CACHE", str(tmp_path / "features"))
    return tmp_path / "features"


def _stages(*names, **options):
    """Stages of gradient descent. Adam takes steps of full size on gradients that are nothing but rounding, such as
    those of a bias before a batch norm and of the bias of attention's keys, and so goes its own way in every run that
    rounds in another."""
    options = {"learning_rate": 0.1, "optimizer": "sgd"} | options
    return kt.Plan([kt.Stage(name, 3, **options) for name in names])


def _residual():
    return classifier(dropout=0.4), dark_and_light(30)


def _stochastic_depth():
    """Whole branches drop out, as in EfficientNet."""
    pixels = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, name="stem_conv")(pixels)
    for number in range(3):
        y = keras.layers.Conv2D(8, 3, padding="same", name=f"block{number}_conv")(x)
        y = keras.layers.BatchNormalization(name=f"block{number}_bn")(y)
        y = keras.layers.Dropout(0.5, noise_shape=(None, 1, 1, 1), name=f"block{number}_drop")(y)
        x = keras.layers.Add(name=f"block{number}_add")([x, y])
    model = kt.image_classifier(keras.Model(pixels, x), ["dark", "light"], preprocessing="tf")
    return model, dark_and_light(30)


def _vit():
    body = keras_hub.models.ViTBackbone(
        image_shape=(16, 16, 3), patch_size=8, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, dropout_rate=0.3
    )
    return kt.image_classifier(body, ["dark", "light"], preprocessing="tf", dropout=0.4), dark_and_light(30)


def _bert():
    tokenizer = word_pieces()
    body = keras_hub.models.BertBackbone(
        tokenizer.vocabulary_size(), num_layers=2, num_heads=2, hidden_dim=8, intermediate_dim=16, dropout=0.3,
        max_sequence_length=24,
    )  # fmt: skip
    reader = keras_hub.models.BertTextClassifierPreprocessor(tokenizer, sequence_length=24)
    words = np.array(["good", "bad", "film", "the", "was", "very"])
    generator = np.random.default_rng(0)
    texts = [" ".join(words[generator.integers(0, 6, length)]) for length in generator.integers(2, 20, 40)]
    labels = ["good" if "good" in text else "bad" for text in texts]
    buckets = (12, 24) if keras.backend.backend() == "tensorflow" else (24,)  # JAX compiles for seconds for each
    data = kt.data.texts((texts, labels), batch_size=8, buckets=buckets)
    return kt.text_classifier(body, data.classes, preprocessor=reader, dropout=0.4), data


def _gpt2():
    tokenizer = byte_pairs()
    body = keras_hub.models.GPT2Backbone(
        tokenizer.vocabulary_size(), num_layers=2, num_heads=2, hidden_dim=16, intermediate_dim=32,
        max_sequence_length=24,
    )  # fmt: skip
    reader = keras_hub.models.GPT2CausalLMPreprocessor(tokenizer, sequence_length=24)
    texts = [f"a fine film it was and not a bad one, {number}" for number in range(12)]
    return kt.causal_lm(body, preprocessor=reader), kt.data.texts(texts, label=False, batch_size=4)


def _trained(make, plan, **options):
    keras.utils.set_random_seed(0)
    model, data = make()
    run = kt.fit(model, data, plan, verbose=False, **options)
    return state.values(model), run, model


def _assert_same(one, other):
    for value, expected in zip(one[0], other[0], strict=True):
        np.testing.assert_allclose(value, expected, **TOLERANCE)
    for row, expected in zip(one[1].history, other[1].history, strict=True):
        np.testing.assert_allclose(row["loss"], expected["loss"], rtol=1e-4)
        np.testing.assert_allclose(row["val_loss"], expected["val_loss"], rtol=1e-4)
    np.testing.assert_allclose(one[1].probabilities, other[1].probabilities, atol=1e-4)


@functools.cache
def _without(make):
    """The run that those on features are held against; it is carried out once for all of them."""
    return _trained(make, _stages("head", "top:1"), cache="off")


@pytest.mark.parametrize(
    ("make", "way"),
    [
        pytest.param(_residual, "memory", marks=pytest.mark.both_backends),
        (_residual, "disk"),
        (_stochastic_depth, "memory"),
        (_vit, "memory"),
        pytest.param(_bert, "disk", marks=pytest.mark.both_backends),
    ],
    ids=lambda value: getattr(value, "__name__", value).strip("_"),
)
def test_the_weights_are_those_of_training_without(make, way):
    """Dropout below the cut (silent) and above it (the same, drawn from the same seeds); two cuts in one run."""
    _assert_same(_trained(make, _stages("head", "top:1"), cache=way), _without(make))


def test_lora_on_the_upper_layers_alone():
    adapters = kt.LoRA(rank=2, targets="transformer_layer_1*", dropout=0.2)
    plan = _stages("head", adapters=adapters)
    once, always = _trained(_bert, plan, cache="memory"), _trained(_bert, plan, cache="off")
    _assert_same(once, always)
    assert any("lora_b" in identity.path and np.any(value) for identity, value in zip(
        state.identities(once[2]), once[0], strict=True))  # fmt: skip


def test_batch_norm_that_adapts_above_the_cut_has_the_same_statistics():
    plan = _stages("top:1", batch_norm="adapt")
    _assert_same(_trained(_residual, plan, cache="memory"), _trained(_residual, plan, cache="off"))


def test_the_probe_and_the_safeguard_go_by_features_as_well():
    plan = _stages("head", start="probe", safeguard=True)
    once, always = _trained(_residual, plan, cache="memory"), _trained(_residual, plan, cache="off")
    _assert_same(once, always)
    shares = [run.audits[0].interpolation.share for _, run, _ in (once, always)]
    np.testing.assert_allclose(*shares, rtol=1e-3)


def _augmented():
    return classifier(dropout=0.4), dark_and_light(30, augment="strong")


def test_with_a_version_for_every_epoch_augmentation_is_what_it_is_without():
    plan = _stages("head", "top:1")
    _assert_same(_trained(_augmented, plan, cache="memory", cache_views=6), _trained(_augmented, plan, cache="off"))


def test_with_two_versions_the_epochs_take_them_in_turn(monkeypatch):
    taken = []
    rows = features.Store.rows
    monkeypatch.setattr(features.Store, "rows", lambda self, *of: taken.append((of[0].name, of[1])) or rows(self, *of))
    _trained(_augmented, _stages("head"), cache="memory", cache_views=2)
    assert {view for name, view in taken if name == "train"} == {0, 1}


@pytest.mark.parametrize(
    ("way", "data"),
    [
        pytest.param("memory", _augmented, id="memory, versions"),
        pytest.param("disk", _residual, id="disk, as they are"),
    ],
)
def test_features_held_by_tensorflow_are_those_read_row_by_row(monkeypatch, way, data):
    """Small sets are gathered from memory, others read; three epochs take two versions in turn, the first again."""
    used = []
    for name in ("gathered_batches", "ordered_batches"):
        make = getattr(pipeline, name)
        monkeypatch.setattr(
            pipeline, name, lambda *args, make=make, **options: used.append(make.__name__) or make(*args, **options)
        )
    held = _trained(data, _stages("head"), cache=way, cache_views=2)
    assert set(used) == {"gathered_batches", "ordered_batches"}
    used.clear()
    monkeypatch.setattr(features, "_WHOLE", 0)
    read = _trained(data, _stages("head"), cache=way, cache_views=2)
    assert not used
    for value, expected in zip(held[0], read[0], strict=True):
        np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(held[1].probabilities, read[1].probabilities)


class _Steps(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.at_once, self.seen = self.model.steps_per_execution, []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(batch)


@pytest.mark.parametrize("data", [_residual, _bert], ids=["gathered", "computed"])
def test_several_steps_at_once_are_those_taken_one_by_one(monkeypatch, data):
    """The head's dropout, Adam's counts and the metrics' sums go on from step to step."""
    monkeypatch.setattr(stages, "FEWEST_STEPS", 1)
    compiled = []
    compile_model = keras.Model.compile
    monkeypatch.setattr(
        keras.Model, "compile", lambda self, *args, **options: compiled.append(options) or compile_model(
            self, *args, **options
        )
    )  # fmt: skip
    plan = kt.Plan([kt.Stage("head", 3, learning_rate=1e-2)])
    at_once = _trained(data, plan, cache="memory")
    if keras.backend.backend() == "tensorflow":
        assert max(options.get("steps_per_execution", 1) for options in compiled) > 1
    watch = _Steps()
    one_by_one = _trained(data, plan, cache="memory", callbacks=[watch])
    steps = 3 if data is _residual else 4
    assert (watch.at_once, watch.seen) == (1, list(range(steps)) * 3)
    for value, expected in zip(at_once[0], one_by_one[0], strict=True):
        np.testing.assert_array_equal(value, expected)
    for row, expected in zip(at_once[1].history, one_by_one[1].history, strict=True):
        assert {**row, "seconds": 0} == {**expected, "seconds": 0}
    assert at_once[2].steps_per_execution == 1


def test_with_no_versions_pictures_are_as_they_are():
    once = _trained(_augmented, _stages("head"), cache="memory", cache_views=0)
    _assert_same(once, _trained(_residual, _stages("head"), cache="off"))


def _computed(monkeypatch):
    """The splits whose features are computed from now on."""
    found = []
    compute = features.Store.computed
    monkeypatch.setattr(
        features.Store, "computed", lambda self, *of: found.append((of[0].name, of[1])) or compute(self, *of)
    )
    return found


def test_another_head_another_plan_and_another_run_use_what_is_there(monkeypatch):
    found = _computed(monkeypatch)
    first = _trained(_residual, _stages("head"), cache="disk")
    assert sorted(found) == [("train", None), ("validation", None)]
    again = _trained(_residual, _stages("head"), cache="disk")
    for value, expected in zip(again[0], first[0], strict=True):
        np.testing.assert_array_equal(value, expected)
    _trained(_residual, _stages("head", learning_rate=1e-3, weight_decay=0.1), cache="disk")
    _trained(lambda: (classifier(dropout=0.0), dark_and_light(30, batch_size=4)), _stages("head"), cache="disk")
    assert len(found) == 2


def test_whatever_the_features_follow_from_makes_others(monkeypatch):
    found = _computed(monkeypatch)

    def computes(body=0, count=30, augment="strong", stage="head", **options):
        def make():
            keras.utils.set_random_seed(body)
            return classifier(), dark_and_light(count, augment=augment)

        found.clear()
        _trained(make, _stages(stage), cache="disk", cache_views=1, **options)
        return ("train", 0) in found

    assert computes()
    assert not computes()
    assert computes(count=28), "data"
    assert computes(body=1), "body"
    assert computes(seed=1), "seed of augmentation"
    assert computes(augment="light"), "augmentation"
    assert computes(stage="top:1"), "cut"


def test_auto_keeps_what_pays_and_says_so(capsys, folder):
    model, data = _residual()
    kt.fit(model, data, _stages("head"))
    said = capsys.readouterr().out
    assert "features: 8 numbers an example, from" in said
    assert f"1 pass over train instead of 3, 0.0 MB in {folder}" in said
    assert len(cache.entries()) == 2


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        (kt.Plan([kt.Stage("head", 1)]), "1 pass over train instead of 1 saves nothing"),
        (kt.Plan([kt.Stage("all", 2)]), "nothing that takes work lies below what trains"),
    ],
)
def test_auto_keeps_nothing_where_it_does_not_pay_and_says_so(capsys, plan, why):
    model, data = _residual()
    kt.fit(model, data, plan)
    assert f"features: not kept, {why}" in capsys.readouterr().out
    assert not cache.entries()


def test_auto_goes_to_memory_where_the_disk_is_too_full_and_nowhere_where_both_are(capsys, monkeypatch, folder):
    monkeypatch.setattr(features, "_free_disk", lambda _: 100)
    model, data = _residual()
    kt.fit(model, data, _stages("head"))
    assert "in memory" in capsys.readouterr().out
    monkeypatch.setattr(features, "_free_memory", lambda: 100)
    model, data = _residual()
    with pytest.warns(UserWarning, match="features of this stage are not kept"):
        kt.fit(model, data, _stages("head"))
    assert "not kept, 0.0 GB are more than half of what is free" in capsys.readouterr().out
    assert not folder.exists()


def test_features_much_larger_than_pictures_are_not_kept_unasked(capsys, monkeypatch):
    monkeypatch.setattr(features, "_LARGEST", 16)
    model, data = _residual()
    kt.fit(model, data, _stages("head"))
    assert "cost more to read" in capsys.readouterr().out


def test_a_function_that_augments_cannot_be_told_from_others_so_it_is_not_kept_on_disk(folder):
    def darker(picture, seed):
        del seed
        return picture * 0.5

    def make():
        return classifier(), dark_and_light(30, augment=darker)

    _assert_same(_trained(make, _stages("head"), cache_views=3), _trained(make, _stages("head"), cache="off"))
    assert not [entry for entry in cache.entries() if "train" in entry.of]
    with pytest.raises(ValueError, match="a function as `augment`"):
        _trained(make, _stages("head"), cache="disk", cache_views=3)


def test_asked_for_and_impossible_is_an_error():
    model, data = _residual()
    before = state.values(model)
    for where in ("disk", "memory"):
        with pytest.raises(ValueError, match="frozen layers below the lowest that trains"):
            kt.fit(model, data, kt.Plan([kt.Stage("all", 2)]), cache=where, verbose=False)
    for value, expected in zip(state.values(model), before, strict=True):
        np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize(
    ("options", "message"), [({"cache": "disc"}, "nearest: *disk"), ({"cache_views": -1}, "no number of versions")]
)
def test_a_wrong_argument_is_refused_before_anything_is_trained(options, message):
    model, data = _residual()
    before = state.values(model)
    with pytest.raises(ValueError, match=message):
        kt.fit(model, data, _stages("head"), verbose=False, **options)
    for value, expected in zip(state.values(model), before, strict=True):
        np.testing.assert_array_equal(value, expected)


@pytest.mark.both_backends
def test_a_callback_sees_one_whole_model_all_the_time():
    seen = []

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append((self.model, self.model.predict(pictures(), verbose=0)))

    model, data = _residual()
    kt.fit(model, data, _stages("head"), cache="memory", callbacks=[Look()], verbose=False)
    assert [found is model for found, _ in seen] == [True] * 3
    np.testing.assert_allclose(seen[-1][1], model.predict(pictures(), verbose=0), atol=1e-6)


def test_half_precision_has_features_of_its_own_and_is_reported_in_full(monkeypatch):
    found = _computed(monkeypatch)
    _trained(_residual, _stages("head"), cache="disk")
    once = _trained(_residual, _stages("head"), cache="disk", precision="mixed_bfloat16")
    assert sorted(name for name, _ in found) == ["train", "train", "validation", "validation"]
    always = _trained(_residual, _stages("head"), cache="off", precision="mixed_bfloat16")
    for value, expected in zip(once[0], always[0], strict=True):
        np.testing.assert_allclose(value, expected, rtol=0.02, atol=0.02)


def test_the_model_is_whole_again_even_after_an_error():
    class Fail(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise RuntimeError("enough")

    model, data = _residual()
    with pytest.raises(RuntimeError, match="enough"):
        kt.fit(model, data, _stages("head"), cache="memory", callbacks=[Fail()], verbose=False)
    assert "call" not in vars(model)
    assert model.predict(pictures(), verbose=0).shape == (4, 2)


def test_a_language_model_trains_on_features():
    """Windows of a text, targets and weights beside x."""
    plan = _stages("transformer_layer_1")
    once, always = _trained(_gpt2, plan, cache="memory"), _trained(_gpt2, plan, cache="off")
    for value, expected in zip(once[0], always[0], strict=True):
        np.testing.assert_allclose(value, expected, **TOLERANCE)


def test_a_cut_that_does_not_come_to_the_same_is_not_used(monkeypatch, capsys):
    """A layer that holds a stack hides how it calls it: where that is another way, the next lower cut is taken."""
    body = families.deit()
    model = kt.image_classifier(body, ["dark", "light"], preprocessing="tf")
    same = features.Cut.comes_to_the_same
    monkeypatch.setattr(
        features.Cut, "comes_to_the_same", lambda self, *of: not self.is_inside_a_layer and same(self, *of)
    )
    kt.fit(model, dark_and_light(16), _stages("top:1"), cache="memory")
    lower = cut.deepest_cut(model, inside_layers=False)
    assert len(lower.layers) < len(cut.deepest_cut(model).layers)
    assert f"features: {lower};" in capsys.readouterr().out


def test_a_body_that_padding_makes_a_difference_to_is_not_cut(capsys):
    """FNet mixes all places, padding too: what a row comes to depends on the batch that it is in."""
    tokenizer = word_pieces()
    body = keras_hub.models.FNetBackbone(
        tokenizer.vocabulary_size(), num_layers=2, hidden_dim=8, intermediate_dim=16, max_sequence_length=24
    )
    reader = keras_hub.models.BertTextClassifierPreprocessor(tokenizer, sequence_length=24)
    texts = ["good film " * (number % 10 + 1) + str(number) for number in range(20)]
    data = kt.data.texts((texts, ["a", "b"] * 10), batch_size=4, buckets=(8, 16, 24))
    model = kt.text_classifier(body, data.classes, preprocessor=reader)
    kt.fit(model, data, _stages("top:1"))
    assert "not kept, the model does not come to the same" in capsys.readouterr().out


def test_a_body_that_trains_beside_the_pictures_is_not_cut(capsys):
    pixels = keras.Input((16, 16, 3))
    both = [keras.layers.Conv2D(4, 3, name=name)(pixels) for name in ("one", "other")]
    body = keras.Model(pixels, keras.layers.Add()(both))
    model = kt.image_classifier(body, ["dark", "light"], preprocessing="tf")
    name = next(block.name for block in kt.blocks(model) if "other" in {layer.name for layer in block.layers})
    kt.fit(model, dark_and_light(16), _stages(name))
    assert "features: not kept" in capsys.readouterr().out


@pytest.mark.parametrize("augment", ["strong", lambda picture, seed: picture * 0.5], ids=["strong", "function"])
def test_any_other_augmentation_stays_under_a_head_alone(capsys, augment):
    kt.fit(classifier(), dark_and_light(30, augment=augment), kt.Plan([kt.Stage("head", 6)]))
    said = capsys.readouterr().out
    assert "4 passes over train instead of 6" in said
    assert "not augmented" not in said


def test_light_augmentation_is_left_out_under_a_head_alone_and_that_is_said(capsys):
    model = classifier()
    kt.fit(model, dark_and_light(30, augment="light"), _stages("head"))
    assert "of pictures as they are, not augmented (cache_views=4" in capsys.readouterr().out


def test_features_go_when_the_run_does():
    """TensorFlow holds on to every function that a graph has called."""
    import gc
    import weakref

    held = []
    rows = features.feature_store.InMemory.__init__

    def remember(self, batches):
        rows(self, batches)
        held.append(weakref.ref(self))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(features.feature_store.InMemory, "__init__", remember)
        model, data = _residual()
        kt.fit(model, data, _stages("head"), cache="memory", verbose=False)
    del model, data
    keras.utils.clear_session()
    gc.collect()
    assert len(held) == 2
    assert [reference() for reference in held] == [None, None]


def test_features_that_are_cleared_while_they_are_in_use_are_read_on():
    class Clear(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            cache.clear()

    model, data = _residual()
    run = kt.fit(model, data, _stages("head"), cache="disk", callbacks=[Clear()], verbose=False)
    assert len(run.history) == 3
    assert not cache.entries()
