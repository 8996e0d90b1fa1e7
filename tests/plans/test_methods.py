import keras
import pytest
from bodies import classifier

import keras_transfer as kt
from keras_transfer.plans.fates import fates

pytestmark = pytest.mark.both_backends


def _ratios(model, stage):
    return {fate.block.name: fate.ratio for fate in fates(model, stage)}


# name of the plan: plan, then what it says of every block in every stage; None is frozen
PLANS = {
    "feature extraction": (
        lambda model: kt.feature_extraction(model),
        [{"stem": None, "block1": None, "block2": None, "block3": None, "head": 1.0}],
    ),
    "staged": (
        lambda model: kt.staged_fine_tuning(model, layer_decay=0.5, ratios={}),
        [
            {"stem": None, "block1": None, "block2": None, "block3": None, "head": 1.0},
            {"stem": 0.0625, "block1": 0.125, "block2": 0.25, "block3": 0.5, "head": 1.0},
        ],
    ),
    "staged, top two": (
        lambda model: kt.staged_fine_tuning(model, unfreeze="top:2", layer_decay=0.5, ratios={"head": 5}),
        [
            {"stem": None, "block1": None, "block2": None, "block3": None, "head": 1.0},
            {"stem": None, "block1": None, "block2": 0.25, "block3": 0.5, "head": 5.0},
        ],
    ),
    "by name": (
        lambda model: kt.Plan([kt.Stage(["stem", "block2"], 1, ratios={"stem": 0.3})]),
        [{"stem": 0.3, "block1": None, "block2": 1.0, "block3": None, "head": 1.0}],
    ),
    "from scratch": (
        lambda model: kt.from_scratch(model),
        [{"stem": 1.0, "block1": 1.0, "block2": 1.0, "block3": 1.0, "head": 1.0}],
    ),
}


@pytest.mark.parametrize("name", PLANS)
def test_every_block_has_exactly_one_fate_in_every_stage(name):
    make, expected = PLANS[name]
    model = classifier()
    assert [_ratios(model, stage) for stage in make(model)] == expected


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_never_touches_the_model(name):
    model = classifier()
    before = [variable.trainable for variable in model.variables]
    optimizer = model.optimizer
    PLANS[name][0](model)
    assert before == [variable.trainable for variable in model.variables]
    assert model.optimizer is optimizer


def test_gradual_unfreezing_wakes_block_after_block_from_the_top():
    model = classifier()
    plan = kt.staged_fine_tuning(model, epochs=(2, 8), unfreeze="gradual")
    assert [(stage.train, stage.epochs) for stage in plan] == [
        ("head", 2),
        ("top:1", 2),
        ("top:2", 2),
        ("top:3", 2),
        ("top:4", 2),
    ]


@pytest.mark.parametrize("epochs", [1, 2, 3, 5, 7])
def test_gradual_unfreezing_spends_all_epochs_and_ends_with_the_whole_body(epochs):
    model = classifier()
    plan = kt.staged_fine_tuning(model, epochs=(1, epochs), unfreeze="gradual")
    assert plan.epochs == 1 + epochs
    assert plan.stages[-1].train == "top:4"


def test_a_misspelt_block_is_an_error_with_the_nearest_and_the_list():
    with pytest.raises(ValueError, match=r"nearest: +'?block2'?\n.*stem, block1, block2, block3") as error:
        kt.staged_fine_tuning(classifier(), unfreeze="blok2")
    assert "bottom to top" in str(error.value)


def test_a_ratio_for_a_frozen_block_is_an_error():
    model = classifier()
    with pytest.raises(ValueError, match="does not train"):
        fates(model, kt.Stage("top:1", 1, ratios={"stem": 0.1}))


@pytest.mark.parametrize("epochs", [5, (1, 2, 3)])
def test_staged_fine_tuning_has_two_lengths(epochs):
    with pytest.raises(ValueError, match="has two parts"):
        kt.staged_fine_tuning(classifier(), epochs=epochs)


def test_a_model_made_by_hand_has_a_head_too():
    pixels = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu")(pixels)
    x = keras.layers.Conv2D(4, 3, activation="relu")(x)
    outputs = keras.layers.Dense(2, name="mine")(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(pixels, outputs)
    found = _ratios(model, kt.feature_extraction(model).stages[0])
    assert found.pop("head") == 1.0
    assert set(found.values()) == {None}
    assert len(found) == 2


def test_an_argument_that_neither_the_method_nor_a_stage_has_is_named_with_the_nearest():
    with pytest.raises(TypeError, match="nearest: *weight_decay"):
        kt.feature_extraction(classifier(), wieght_decay=0.1)


def test_epochs_that_are_asked_for_are_exact_and_those_that_are_not_are_enough_for_small_data():
    by_default, asked = (kt.staged_fine_tuning(classifier(), **options) for options in ({}, {"epochs": (3, 10)}))
    assert [stage.epochs for stage in by_default.over(7)] == [3, 58]
    assert [stage.epochs for stage in by_default.over(1000)] == [3, 10]
    assert [stage.epochs for stage in asked.over(7)] == [3, 10]


def test_steps_of_gradual_unfreezing_share_the_least_steps():
    plan = kt.staged_fine_tuning(classifier(), unfreeze="gradual")
    assert [stage.least_steps for stage in plan] == [0, 100, 100, 100, 100]
