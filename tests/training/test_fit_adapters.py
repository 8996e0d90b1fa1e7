"""Adapters, biases and norms as stages of a plan: what trains, what must not, and what is left in the model."""

import dataclasses

import keras
import numpy as np
import pytest
from bodies import classifier, dark_and_light, pictures

import keras_transfer as kt
from keras_transfer import state
from keras_transfer.adapters import attach

pytestmark = pytest.mark.both_backends


def _fit(model, *stages, **options):
    return kt.fit(model, dark_and_light(), kt.Plan(stages), verbose=False, **options)


def _values(model):
    return dict(zip([identity.path for identity in state.identities(model)], state.values(model), strict=True))


def _moved(model, before):
    return [
        path for path, value in _values(model).items() if path in before and not np.array_equal(value, before[path])
    ]


def test_only_factors_and_head_move_and_merged_it_is_a_stock_model_with_the_same_answers():
    model = classifier()
    before = _values(model)
    run = _fit(model, kt.Stage("head", 2, adapters=kt.LoRA(rank=2, targets="block[23]_conv")))
    assert [path for path in _moved(model, before) if "seed" not in path] == ["head/kernel", "head/bias"]
    assert {variable.path.split("/")[-1] for variable in model.trainable_variables} == {
        "lora_a_default", "lora_b_default", "kernel", "bias",
    }  # fmt: skip
    assert {row.block for row in run.audits[0].moved if row.weights} == {"block2", "block3", "head"}
    with_adapter = kt.predict(model, pictures())
    kt.merge_adapter(model)
    np.testing.assert_allclose(kt.predict(model, pictures()), with_adapter, atol=1e-6)
    assert {type(layer).__module__.split(".")[0] for layer in state.sublayers(model)} == {"keras"}


def test_a_second_stage_goes_on_with_the_same_adapter_and_blocks_below_the_lowest_run_as_at_inference():
    model = classifier()
    stages = [
        kt.Stage("head", 1, name=name, adapters=kt.LoRA(rank=2, targets="block2_conv")) for name in ("1st", "2nd")
    ]
    assert len(_fit(model, *stages).audits) == 2
    assert sum("lora_a" in variable.path for variable in model.trainable_variables) == 1
    dropouts = {layer.name: layer for layer in state.sublayers(model) if isinstance(layer, keras.layers.Dropout)}
    ones = np.ones((1, 1000), "float32")
    dropped = {name: bool(np.any(np.asarray(layer(ones, training=True)) == 0)) for name, layer in dropouts.items()}
    assert dropped["block1_drop"] is False
    assert dropped["block2_drop"] is True


def test_another_adapter_of_the_same_name_is_refused_before_anything_trains():
    model = classifier()
    before = state.values(model)
    stages = [
        kt.Stage("head", 1, name=f"rank {rank}", adapters=kt.LoRA(rank, targets="block3_conv")) for rank in (2, 3)
    ]
    with pytest.raises(ValueError, match="asks for other adapters than stage 'rank 2'"):
        _fit(model, *stages)
    assert not attach.names(model)
    for value, was in zip(state.values(model), before, strict=True):
        np.testing.assert_array_equal(value, was)


def test_another_adapter_than_the_model_carries_is_refused():
    model = classifier()
    kt.add_lora(model, rank=2, targets="block3_conv")
    with pytest.raises(ValueError, match="another one than the stage asks for"):
        _fit(model, kt.Stage("head", 1, adapters=kt.LoRA(3, targets="block3_conv")))


def test_a_stage_without_adapters_is_refused_on_a_model_that_carries_some():
    model = classifier()
    kt.add_lora(model, targets="block3_conv")
    with pytest.raises(ValueError, match="carries adapters beside them"):
        _fit(model, kt.Stage("head", 1))


def test_the_same_seed_draws_and_drops_the_same_and_a_fresh_base_loads_what_was_trained(tmp_path):
    first, second, fresh = classifier(), classifier(), classifier()
    for model in (second, fresh):
        model.set_weights(first.get_weights())
    stage = kt.Stage("head", 2, adapters=kt.LoRA(rank=2, targets="block[23]_conv", dropout=0.3, biases="adapted"))
    for model in (first, second):
        _fit(model, stage, seed=3)
    for one, other in zip(state.values(first), state.values(second), strict=True):
        np.testing.assert_array_equal(one, other)
    kt.save_adapter(first, tmp_path)
    kt.load_adapter(fresh, tmp_path)
    np.testing.assert_array_equal(kt.predict(fresh, pictures()), kt.predict(first, pictures()))


def test_adapters_of_keras_own_are_adopted():
    model = classifier()
    model.get_layer("residual").get_layer("block3_conv").enable_lora(2)
    before = _values(model)
    plan = kt.lora(model, rank=2, factors="keras", epochs=1)
    run = kt.fit(model, dark_and_light(), plan, verbose=False)
    assert {row.block for row in run.audits[0].moved if row.weights} == {"block3", "head"}
    assert not [path for path in _moved(model, before) if path.endswith("block3_conv/kernel")]


def _transformer_like():
    tokens = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(8, 4, strides=4, name="stem_conv")(tokens)
    for number in (1, 2):
        y = keras.layers.LayerNormalization(name=f"block{number}_norm")(x)
        y = keras.layers.Dense(8, activation="gelu", name=f"block{number}_dense")(y)
        x = keras.layers.Add(name=f"block{number}_add")([x, y])
    return kt.image_classifier(keras.Model(tokens, x, name="normed"), ("dark", "light"), preprocessing="tf")


def test_bitfit_moves_biases_offsets_and_the_head_alone():
    model = _transformer_like()
    before = _values(model)
    kt.fit(model, dark_and_light(), kt.bitfit(model, epochs=2), verbose=False)
    moved = [path for path in _moved(model, before) if "seed" not in path]
    assert "head/kernel" in moved
    assert {path.split("/")[-1] for path in moved if not path.startswith("head")} == {"bias", "beta"}
    assert sum(path.startswith("block1") for path in moved) == 2


def test_norm_tuning_moves_scales_and_offsets_of_layer_norms_and_the_head_alone():
    model = _transformer_like()
    before = _values(model)
    kt.fit(model, dark_and_light(), kt.norm_tuning(model, epochs=2), verbose=False)
    moved = {path for path in _moved(model, before) if "seed" not in path and not path.startswith("head")}
    assert {path.split("/")[-2:][0] + "/" + path.split("/")[-1] for path in moved} == {
        f"block{number}_norm/{kind}" for number in (1, 2) for kind in ("gamma", "beta")
    }


def test_a_body_with_batch_norms_alone_has_no_norms_to_tune():
    with pytest.raises(ValueError, match="batch norms train with batch_norm='affine'"):
        kt.norm_tuning(classifier())


def test_a_target_that_matches_nothing_is_an_error_when_the_plan_is_made():
    with pytest.raises(ValueError, match="nearest:.*block3_conv"):
        kt.lora(classifier(), targets="blok3_conv")


def test_a_plan_with_adapters_comes_back_from_json():
    plan = kt.lora(classifier(), 4, 16, "block*_conv", ranks={"block3_conv": 2}, scaling="rslora")
    assert kt.Plan.from_json(plan.to_json()) == plan
    assert "LoRA rank 4, alpha 16, on block*_conv, block3_conv at rank 2, rsLoRA scaling" in str(plan)


def test_adapters_and_a_part_of_the_bodys_own_weights_do_not_go_together():
    with pytest.raises(ValueError, match="adapters or a part"):
        kt.Stage("all", 1, part="biases", adapters=kt.LoRA())


def test_a_stage_that_adapters_would_be_in_the_way_of_is_refused_before_anything_trains():
    model = classifier()
    before = state.values(model)
    adapted = kt.Stage("head", 1, adapters=kt.LoRA(targets="block3_conv"))
    for later in (kt.Stage("all", 1), dataclasses.replace(adapted, name="anew", start="random")):
        with pytest.raises(ValueError, match="those of stage 'lora head'"):
            _fit(model, adapted, later)
    assert all(np.array_equal(one, other) for one, other in zip(before, state.values(model), strict=True))


def test_the_head_of_a_classifier_made_elsewhere_trains_too():
    """It has no card that names its classes; left out, a head drawn at random would stay as it is."""
    source = classifier()
    model = keras.Model(source.input, keras.layers.Dense(2, name="own")(source.get_layer("head").input))
    assert kt.lora(model, targets="block3_conv").stages[0].train == "head"
