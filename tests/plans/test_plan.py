import json

import keras
import numpy as np
import pytest

from keras_transfer.plans.plan import Plan, Stage


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("epochs", 0, "at least 1"),
        ("epochs", 2.5, "whole number"),
        ("learning_rate", 0, "positive"),
        ("layer_decay", 1.5, "at most 1"),
        ("layer_decay", 0, "above 0"),
        ("warmup", 1.0, "below 1"),
        ("weight_decay", -1, "0 or a positive"),
        ("schedule", "cosin", "nearest:   cosine"),
        ("optimizer", "AdamW2", "nearest:   adamw"),
        ("batch_norm", "froze", "nearest:   frozen"),
        ("start", "pretrain", "nearest:   pretrained"),
        ("patience", 0, "from 1 up"),
        ("l2_sp", -0.1, "0 or a positive"),
        ("ema", 1.0, "between 0 and 1"),
        ("clip_norm", 0, "None, or a positive number"),
        ("least_steps", -1, "0, or a number of steps"),
        ("augment", "strong", "nearest:   stronger"),
        ("ratios", {"stem": 0}, "leave a block out of `train` to freeze it"),
    ],
)
def test_a_stage_refuses_what_makes_no_sense(argument, value, message):
    with pytest.raises(ValueError, match=message):
        Stage("head", **{"epochs": 1, argument: value})


def test_a_plan_is_the_same_after_a_trip_through_json():
    plan = Plan(
        [
            Stage("head", 3, learning_rate=5e-3, optimizer="sgd"),
            Stage(["top:2", "stem"], 4, "odd", ratios={"stem": 0.5}, batch_norm="adapt", patience=2),
            Stage("all", 2, l2_sp=10.0, ema=0.9, clip_norm=1.0, least_steps=400, augment="stronger"),
        ],
        name="mine",
    )
    assert Plan.from_json(plan.to_json()) == plan
    assert json.loads(plan.to_json())["stages"][1]["train"] == ["top:2", "stem"]


def test_a_plan_says_what_it_will_do():
    text = str(Plan([Stage("head", 3), Stage("all", 10, layer_decay=0.75, ratios={"head": 5})]))
    assert "plan: 2 stages, 13 epochs" in text
    assert "2 all: trains all, 10 epochs, adamw 0.001, cosine, warm-up 10%, layer decay 0.75, head × 5" in text


def test_a_plan_says_how_long_and_on_what():
    text = str(Plan([Stage("head", 3), Stage("all", 10, least_steps=400, augment="stronger")]))
    assert "plan: 2 stages, 13 epochs or more" in text
    assert "2 all: trains all, 10 epochs or 400 steps, adamw" in text
    assert text.endswith("augmented more strongly")


def test_a_plan_says_what_keeps_the_weights_near():
    text = " ".join(str(Plan([Stage("all", 10, weight_decay=0.1, l2_sp=10, ema=0.99, clip_norm=2)])).split())
    kept_near = "weight decay 0.1, L2-SP 10, average of weights 0.99, gradients clipped at norm 2, batch norm frozen"
    assert kept_near in text


def test_two_stages_of_one_name_are_refused():
    with pytest.raises(ValueError, match="Two stages of the plan have one name"):
        Plan([Stage("head", 1), Stage("head", 2)])


def test_a_plan_without_stages_is_refused():
    with pytest.raises(ValueError, match="made of stages"):
        Plan([])


def test_stages_cannot_be_changed_under_a_plans_feet():
    with pytest.raises(AttributeError):
        Stage("head", 1).epochs = 2


def test_one_stage_without_a_list_is_no_plan():
    with pytest.raises(ValueError, match="(?s)made of stages.*given:     Stage"):
        Plan(Stage("head", epochs=1))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"learning_rate": "1e-3"}, "`learning_rate` of a stage"),
        ({"learning_rate": float("inf")}, "`learning_rate` of a stage"),
        ({"learning_rate": keras.optimizers.schedules.CosineDecay(0.1, 10)}, "(?s)`learning_rate`.*`schedule` and"),
        ({"weight_decay": float("nan")}, "`weight_decay` of a stage"),
        ({"patience": "2"}, "`patience` of a stage"),
        ({"patience": 1.5}, "`patience` of a stage"),
        ({"least_steps": 2.5}, "`least_steps` of a stage"),
        ({"epochs": True}, "`epochs` of a stage"),
        ({"epochs": 2.0}, "`epochs` of a stage"),
        ({"ratios": {"head": "3"}}, r"`ratios\['head'\]` of a stage"),
    ],
)
def test_what_is_no_number_of_its_kind_is_refused_by_name(options, words):
    with pytest.raises(ValueError, match=words):
        Stage("head", **{"epochs": 1} | options)


def test_numbers_of_numpy_are_numbers():
    stage = Stage(
        "head", np.int64(3), learning_rate=np.float32(0.5), patience=np.int32(2), ratios={"head": np.float32(2)}
    )
    assert stage == Stage("head", 3, learning_rate=0.5, patience=2, ratios={"head": 2.0})
    plan = Plan([stage])
    assert Plan.from_json(plan.to_json()) == plan
