"""Keras' own files: whatever writes an adapted model, nothing is merged, zeroed or dropped."""

import os
import pathlib
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from adapters import families, small

from keras_transfer import state
from keras_transfer.adapters import layers
from keras_transfer.adapters.attach import active, add_lora, adopt_lora, names
from keras_transfer.adapters.files import save_adapter
from keras_transfer.adapters.switch import merge_adapter, set_adapter

KINDS = {
    "paper": {"targets": ["query", "wide", "words"]},
    "keras": {"targets": ["query", "wide", "words"], "factors": "keras", "alpha": 32},
    "dora": {"targets": "all-linear", "dora": True, "scaling": "rslora", "dropout": 0.1},
}


def _adapted(fields=KINDS["paper"], stir=True, **options):
    model = small.transformer()
    add_lora(model, rank=2, train=[model.get_layer("head")], seed=0, **fields, **options)
    if stir:
        small.stir(model)
    return model


def _state(model):
    """Every number but the counters of random generators, which Keras does not save."""
    return [small.array(variable) for _, variable in state.walk(model) if not state.is_seed(variable)]


def _same(one, other):
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.both_backends
@pytest.mark.parametrize("kind", KINDS)
def test_weights_files_keep_every_number(kind, tmp_path):
    model = _adapted(KINDS[kind])
    model.save_weights(tmp_path / "adapted.weights.h5")
    saved, answers = _state(model), small.outputs(model)
    for variable in model.trainable_variables:
        variable.assign(variable * 0 + 1)
    model.load_weights(tmp_path / "adapted.weights.h5")
    assert _same(_state(model), saved)
    np.testing.assert_array_equal(small.outputs(model), answers)
    assert all(np.any(small.array(v)) for v in layers.factor_variables(model, "default"))


@pytest.mark.both_backends
@pytest.mark.parametrize("kind", KINDS)
def test_a_keras_file_opens_as_it_was(kind, tmp_path):
    model = small.compiled(_adapted(KINDS[kind]), eagerly=True)
    small.train(model, epochs=1)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert _same(_state(again), _state(model))
    assert [v.path for v in again.trainable_variables] == [v.path for v in model.trainable_variables]
    np.testing.assert_array_equal(small.outputs(again), small.outputs(model))
    specs = [layers.adapters_of(layer)["default"].spec for layer in layers.adapted_layers(again)]
    assert specs == [layers.adapters_of(layer)["default"].spec for layer in layers.adapted_layers(model)]


@pytest.mark.both_backends
def test_a_run_that_is_stopped_and_continued_ends_where_an_unbroken_one_ends(tmp_path):
    """Resumed from a weights file, Keras' own adapters have both factors at zero and never move again."""
    unbroken = small.compiled(_adapted(stir=False))
    small.train(unbroken, epochs=4)
    stopped = small.compiled(_adapted(stir=False))
    small.train(stopped, epochs=2)
    stopped.save(tmp_path / "stopped.keras")
    continued = keras.models.load_model(tmp_path / "stopped.keras")
    small.train(continued, epochs=2)
    for one, other in zip(_state(unbroken), _state(continued), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
    assert np.any(small.array(continued.trainable_variables[1]))


@pytest.mark.parametrize("weights_only", [True, False])
def test_checkpoints_of_a_callback(weights_only, tmp_path):
    file = str(tmp_path / ("best.weights.h5" if weights_only else "best.keras"))
    model = small.compiled(_adapted(), eagerly=True)
    callback = keras.callbacks.ModelCheckpoint(file, save_weights_only=weights_only, monitor="loss")
    model.fit(small.words(), small.labels(), epochs=1, callbacks=[callback], verbose=0)
    saved = _state(model)
    small.train(model, epochs=2)
    if weights_only:
        model.load_weights(file)
        assert _same(_state(model), saved)
    else:
        assert _same(_state(keras.models.load_model(file)), saved)


def test_early_stopping_brings_the_adapter_back():
    model = small.compiled(_adapted(), rate=1.0, eagerly=True)
    stop = keras.callbacks.EarlyStopping(monitor="loss", patience=1, restore_best_weights=True, start_from_epoch=0)
    best = {}

    class Note(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs):
            if not best or logs["loss"] < best["loss"]:
                best.update(loss=logs["loss"], state=_state(self.model))

    model.fit(small.words(), small.labels(), epochs=20, callbacks=[Note(), stop], verbose=0)
    assert _same(_state(model), best["state"])


def test_backup_and_restore(tmp_path):
    """Keras' BackupAndRestore reads a weights file: with adapters of ours it is what it says."""
    folder = str(tmp_path / "backup")
    model = small.compiled(_adapted(stir=False), eagerly=True)

    class Killed(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    options = {"batch_size": 3, "shuffle": False, "verbose": 0, "epochs": 4}
    backup = keras.callbacks.BackupAndRestore(folder, delete_checkpoint=False)
    with pytest.raises(KeyboardInterrupt):
        model.fit(small.words(), small.labels(), callbacks=[backup, Killed()], **options)
    again = small.compiled(_adapted(stir=False), eagerly=True)
    again.fit(small.words(), small.labels(), callbacks=[keras.callbacks.BackupAndRestore(folder)], **options)
    unbroken = small.compiled(_adapted(stir=False), eagerly=True)
    unbroken.fit(small.words(), small.labels(), **options)
    for one, other in zip(_state(unbroken), _state(again), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_lists_of_weights():
    model, other = _adapted(), _adapted(stir=False)
    other.set_weights(model.get_weights())
    assert _same(_state(other), _state(model))


@pytest.mark.both_backends
def test_a_model_within_a_model(tmp_path):
    body = _adapted()
    inputs = keras.Input((small.LENGTH,), dtype="int32")
    model = keras.Model(inputs, keras.layers.Dense(2, name="top")(body(inputs)))
    model.compile(keras.optimizers.Adam(0.01), "mse")
    model.fit(small.words(), np.ones((6, 2)), verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert _same(_state(again), _state(model))
    assert len(again.trainable_variables) == len(model.trainable_variables)
    assert [v.shape for v in again.optimizer.variables] == [v.shape for v in model.optimizer.variables]


def test_a_model_that_shares_adapted_layers(tmp_path):
    """As one gets by cutting a body and going on from there: no model of it knows of `add_lora`."""
    body = _adapted()
    cut = keras.Model(body.input, keras.layers.Dense(2, name="top")(body.get_layer("pool").output))
    cut.save(tmp_path / "cut.keras")
    again = keras.models.load_model(tmp_path / "cut.keras")
    np.testing.assert_array_equal(small.outputs(again), small.outputs(cut))
    assert _same(_state(again), _state(cut))


@pytest.mark.parametrize("make", ["sequential", "subclass"])
def test_other_kinds_of_models(make, tmp_path):
    if make == "sequential":
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="query"), keras.layers.Dense(2)])
    else:
        model = Subclass()
        model(np.zeros((1, 4)))
    inputs = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    add_lora(model, rank=2, targets="query")
    small.stir(model)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(small.outputs(again, inputs), small.outputs(model, inputs))
    assert again.layers[0] is not model.layers[0]


@keras.saving.register_keras_serializable("tests_of_adapters")
class Subclass(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.first = keras.layers.Dense(3, name="query")

    def call(self, inputs):
        return self.first(inputs)


def test_several_adapters_are_all_in_the_file(tmp_path):
    model = _adapted()
    first = small.outputs(model)
    add_lora(model, rank=3, targets="value", name="second", biases="all", train=[model.get_layer("head")])
    small.stir(model, seed=1)
    model.get_layer("head").bias.assign([1.0, 2.0, 3.0])
    second = small.outputs(model)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert (names(again), active(again)) == (("default", "second"), "second")
    np.testing.assert_array_equal(small.outputs(again), second)
    set_adapter(again, "default")
    np.testing.assert_array_equal(small.outputs(again), first)
    assert [v.path for v in again.trainable_variables if "lora" not in v.path] == ["head/kernel", "head/bias"]


def test_copies_and_pickles_are_adapted_too():
    import copy

    model = _adapted()
    for again in (copy.deepcopy(model), keras.models.clone_model(model)):
        again.set_weights(model.get_weights())
        np.testing.assert_array_equal(small.outputs(again), small.outputs(model))


def _refused(model, file):
    factors = [small.array(variable) for variable in layers.factor_variables(model)]
    with pytest.raises(ValueError) as raised:
        model.load_weights(file)
    assert _same([small.array(variable) for variable in layers.factor_variables(model)], factors)
    return str(raised.value)


def test_the_files_of_base_and_adapted_model_are_not_taken_for_each_other(tmp_path):
    base, model = small.transformer(), _adapted()
    base.save_weights(tmp_path / "base.weights.h5")
    model.save_weights(tmp_path / "adapted.weights.h5")
    message = _refused(model, tmp_path / "base.weights.h5")
    assert "This file does not hold what the adapters of 'small' train beside their factors" in message
    assert "2 values of 'default'" in message
    bare = small.transformer()
    add_lora(bare, rank=2)
    message = _refused(bare, tmp_path / "base.weights.h5")
    assert "does not hold the adapters of the layer 'attention/query'" in message
    assert "the weights of the base alone" in message
    with pytest.raises(ValueError):
        base.load_weights(tmp_path / "adapted.weights.h5")


def test_weights_saved_under_another_adapter_are_refused(tmp_path):
    model = _adapted()
    add_lora(model, name="second", rank=2)
    model.save_weights(tmp_path / "second.weights.h5")
    set_adapter(model, "default")
    assert "were saved while the adapter 'default' did not" in _refused(model, tmp_path / "second.weights.h5")
    set_adapter(model, "second")
    model.load_weights(tmp_path / "second.weights.h5")


def test_base_weights_lie_where_the_base_model_has_them(tmp_path):
    """The class keeps its name, by which Keras lays out its files."""
    import h5py

    base, model = small.transformer(), _adapted()
    base.save_weights(tmp_path / "base.weights.h5")
    model.save_weights(tmp_path / "adapted.weights.h5")

    def groups(file):
        found = []
        with h5py.File(file) as opened:
            opened.visititems(lambda name, item: found.append(name) if name.endswith("vars/0") else None)
        return found

    assert groups(tmp_path / "base.weights.h5") == groups(tmp_path / "adapted.weights.h5")


def _run(code):
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_in_a_fresh_process(tmp_path):
    """Merged, in stock Keras that has never heard of keras_transfer; as a folder, on a base that was built anew."""
    model = _adapted(KINDS["dora"], biases="all")
    for name, values in (("answers", small.outputs(model)), ("words", small.words())):
        np.save(tmp_path / f"{name}.npy", values)
    save_adapter(model, tmp_path / "adapter")
    merge_adapter(model)
    model.save(tmp_path / "merged.keras")
    code = f"""
        import sys, keras, numpy as np
        folder = {str(tmp_path)!r}
        words, answers = np.load(folder + "/words.npy"), np.load(folder + "/answers.npy")
        merged = keras.models.load_model(folder + "/merged.keras")
        assert "keras_transfer" not in sys.modules
        assert np.allclose(merged(words), answers, rtol=1e-4, atol=1e-5)
        sys.path.insert(0, {str(pathlib.Path(__file__).parents[1])!r})
        from adapters import small
        from keras_transfer.adapters.files import load_adapter
        fresh = small.transformer()
        load_adapter(fresh, folder + "/adapter")
        assert np.array_equal(small.outputs(fresh), answers)
    """
    _run(code)


@pytest.mark.parametrize("adopted", [False, True])
def test_a_keras_hub_body_keeps_its_adapters(adopted, tmp_path):
    """Saved by KerasHub, adapters are merged away and everything is trainable."""
    body = families.bert()
    if adopted:
        body.enable_lora(2)
        adopt_lora(body)
    else:
        add_lora(body, rank=2)
    small.stir(body)
    body.save(tmp_path / "body.keras")
    again = keras.models.load_model(tmp_path / "body.keras")
    assert isinstance(again, type(families.bert()))
    assert _same(_state(again), _state(body))
    assert [v.path for v in again.trainable_variables] == [v.path for v in body.trainable_variables]
    assert len(again.trainable_variables) == 8


def test_a_keras_hub_task_keeps_its_adapters(tmp_path):
    import keras_hub

    task = keras_hub.models.BertTextClassifier(families.bert(), num_classes=2)
    add_lora(task, rank=2, train=[task.get_layer("logits")])
    small.stir(task)
    task.save(tmp_path / "task.keras")
    again = keras.models.load_model(tmp_path / "task.keras")
    assert type(again).__name__ == "BertTextClassifier"
    assert _same(_state(again), _state(task))
    assert len(again.trainable_variables) == 10


@pytest.mark.parametrize("method", ["save_to_preset", "export_to_transformers", "save_lora_weights"])
def test_what_would_drop_the_adapter_is_refused(method, tmp_path):
    body = families.bert()
    add_lora(body, rank=2)
    with pytest.raises(ValueError, match="has no place for this adapter"):
        getattr(body, method)(str(tmp_path / "out.lora.h5"))
    merge_adapter(body)
    if method == "save_to_preset":
        body.save_to_preset(str(tmp_path / "preset"))
        again = type(body).from_preset(str(tmp_path / "preset"))
        assert _same(_state(again), _state(body))
