"""A run that is broken off and goes on ends where an unbroken one ends, to the last bit.

Here a run is broken off by an exception within its process, at moments that are chosen; `test_kills.py` kills processes
at random ones.
"""

import dataclasses
import errno
import functools
import hashlib
import importlib
import json
import os
import signal

import keras
import numpy as np
import pytest
from bodies import classifier, dark_and_light
from breaking_off import BreakOff, BrokenOff

import keras_transfer as kt
from keras_transfer import state
from keras_transfer.training import checkpoints, stages
from keras_transfer.training.checkpoints import Checkpoints
from keras_transfer.training.keeper import Keeper
from keras_transfer.training.snapshot import Position

both_backends = pytest.mark.both_backends

# How far a start gets before it is broken off; what it did at the end of an epoch is done anew by the next.
# JAX compiles for seconds at each.
STEPS = 2 if keras.backend.backend() == "tensorflow" else 5
fitting = importlib.import_module("keras_transfer.training.fit")  # `kt.fit` is the function


def _three_stages():
    """A stage that moves the body, one that pulls it back and averages it, and an adapter: all that is to come back.

    Steps of two passes (`sam`) are in the middle one, whose dropout both passes share.
    """
    adapters = kt.LoRA(rank=2, targets="block[12]_conv", dropout=0.2)
    kept_near = {"l2_sp": 20.0, "ema": 0.8, "sam": 0.1, "batch_norm": "adapt", "patience": 1, "safeguard": True}
    return kt.Plan(
        [
            kt.Stage("top:1", 1, "away", start="probe", learning_rate=0.01),
            kt.Stage("top:2", 2, "near", learning_rate=0.01, **kept_near),
            kt.Stage("head", 2, "lora", adapters=adapters, learning_rate=0.01, ema=0.5),
        ]
    )


def _one_stage(**options):
    return kt.Plan([kt.Stage("top:1", 3, **{"learning_rate": 0.01, **options})])


def _model():
    return classifier(depth=2, dropout=0.2)


def _start(plan, data, **options):
    """The line that is started again and again, as a fresh process would."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    model = _model()
    return kt.fit(model, data, plan, verbose=False, **options), model


@functools.cache
def _data(count=32):
    """Four steps in an epoch."""
    return dark_and_light(count, augment="light")


_unbroken = {}


def _check_ends_as_unbroken(found, plan, data=None, **options):
    """Holds a run against that of the same plan in one go, which is carried out once for all tests."""
    key = (plan.to_json(), (data or _data()).fingerprint, *options.items())
    if key not in _unbroken:
        _unbroken[key] = _start(plan, data or _data(), **options)
    _check_same(found, _unbroken[key])


def _check_same(one, other):
    (run, model), (expected, expected_model) = one, other
    for identity, there, here in zip(
        state.identities(model), state.values(expected_model), state.values(model), strict=True
    ):
        np.testing.assert_array_equal(there, here, err_msg=identity.path)
    assert [_timeless(row) for row in run.history] == [_timeless(row) for row in expected.history]
    assert list(run.audits) == list(expected.audits)
    assert dataclasses.replace(run.report, cost=None) == dataclasses.replace(expected.report, cost=None)
    np.testing.assert_array_equal(run.probabilities, expected.probabilities)


def _timeless(row):
    return {name: value for name, value in row.items() if name != "seconds"}


@both_backends
def test_broken_off_after_each_single_step_it_ends_where_an_unbroken_run_ends(tmp_path):
    """Where a start does two steps, at the end the run has gone on from both steps in the middle of every epoch."""
    data, positions = _data(24), []
    assert data.steps_per_epoch() == 3
    while True:
        try:
            options = {"workdir": tmp_path, "checkpoint_steps": 1}
            found = _start(_three_stages(), data, callbacks=[BreakOff(after=STEPS)], **options)
            break
        except BrokenOff:
            positions.append(_last_position(tmp_path))
    middles = [(epoch, step) for epoch in range(5) for step in (1, 2)][1:]
    assert [(kept.epoch, kept.step) for kept in positions] == (middles if STEPS == 2 else middles[2::3])
    _check_ends_as_unbroken(found, _three_stages(), data)


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_stages_on_features_go_on_as_they_began(tmp_path, cache):
    adapters = kt.LoRA(rank=2, targets="block2_conv", dropout=0.2)
    plan = kt.Plan([kt.Stage("top:1", 2, start="probe"), kt.Stage("head", 2, "lora", adapters=adapters)])
    options = {"workdir": tmp_path, "cache_views": 2}
    for after in (6, 7):  # in the second epoch of the first stage, and of the second
        with pytest.raises(BrokenOff):
            _start(plan, _data(), callbacks=[BreakOff(after)], checkpoint_steps=1, cache=cache, **options)
    assert _last_position(tmp_path) == Position(stage=1, epoch=3, step=1)
    found = _start(plan, _data(), cache=cache, **options)
    _check_ends_as_unbroken(found, plan, cache="memory", cache_views=2)


def test_a_stage_that_began_on_features_goes_on_with_them_where_they_would_not_be_kept_now(tmp_path, monkeypatch):
    plan = kt.Plan([kt.Stage("top:1", 6)])
    with pytest.raises(BrokenOff):
        _start(plan, _data(), callbacks=[BreakOff(5)], workdir=tmp_path, checkpoint_steps=1)
    monkeypatch.setattr("keras_transfer.training.features._LARGEST", 0.0)
    _check_ends_as_unbroken(_start(plan, _data(), workdir=tmp_path), plan, cache="disk")


def test_a_stage_that_began_without_features_goes_on_without(tmp_path, monkeypatch):
    plan = kt.Plan([kt.Stage("top:1", 6)])
    with monkeypatch.context() as then:
        then.setattr("keras_transfer.training.features._LARGEST", 0.0)
        with pytest.raises(BrokenOff):
            _start(plan, _data(), callbacks=[BreakOff(5)], workdir=tmp_path, checkpoint_steps=1)
    _check_ends_as_unbroken(_start(plan, _data(), workdir=tmp_path), plan, cache="off")


def test_steps_since_the_last_checkpoint_are_done_once_more(tmp_path):
    options = {"workdir": tmp_path, "checkpoint_steps": 3}
    with pytest.raises(BrokenOff):
        _start(_one_stage(), _data(), callbacks=[BreakOff(after=8)], **options)
    assert _last_position(tmp_path) == Position(stage=0, epoch=1, step=2)
    _check_ends_as_unbroken(_start(_one_stage(), _data(), **options), _one_stage())


def _breaking_off(whole, *, call, late):
    """A function that breaks the run off at one of its calls, before or after what it does."""
    calls = []

    def broken(*args, **kwargs):
        calls.append(args)
        if len(calls) == call and not late:
            raise BrokenOff
        found = whole(*args, **kwargs)
        if len(calls) == call:
            raise BrokenOff
        return found

    return broken


def test_broken_off_between_steps_it_ends_where_an_unbroken_run_ends(tmp_path, monkeypatch):
    options = {"workdir": tmp_path, "checkpoint_steps": 3}
    places = [
        (stages, "start_from_probe", 1, True),
        (Checkpoints, "write", 1, False),
        (stages, "audit", 1, False),
        (keras.Model, "evaluate", 2, True),  # validation
        (Checkpoints, "write", 1, True),
        (stages, "safeguard", 1, True),
        (stages.attach, "carry_out", 1, True),
        (stages, "audit", 1, True),
        (fitting, "_write_results", 1, False),
        (fitting, "_write_results", 1, True),
    ]
    for module, name, call, late in places:
        with monkeypatch.context() as patch:
            patch.setattr(module, name, _breaking_off(getattr(module, name), call=call, late=late))
            with pytest.raises(BrokenOff):
                _start(_three_stages(), _data(24), **options)
    _check_ends_as_unbroken(_start(_three_stages(), _data(24), **options), _three_stages(), _data(24))


@pytest.mark.parametrize(("cache", "optimizer", "after"), [("memory", "adamw", 2), ("off", "lion", 6)])
def test_pull_and_average_go_on_in_half_precision_and_on_features(tmp_path, cache, optimizer, after):
    """And with them what an optimizer holds for every weight, and the scale of the loss."""
    plan = _one_stage(l2_sp=20.0, ema=0.8, weight_decay=0.01, optimizer=optimizer)
    options = {"precision": "mixed_float16", "cache": cache}
    kept = {"workdir": tmp_path, "checkpoint_steps": 1, **options}
    with pytest.raises(BrokenOff):
        _start(plan, _data(), callbacks=[BreakOff(after)], **kept)
    _check_ends_as_unbroken(_start(plan, _data(), **kept), plan, **options)


@both_backends
def test_early_stopping_goes_on_waiting_and_goes_back_to_the_same_best_weights(tmp_path):
    # A rate that overshoots: validation loss is best early, and the stage ends before its twelve epochs.
    plan = kt.Plan([kt.Stage("head", 12, learning_rate=30.0, schedule="constant", warmup=0.0, patience=3)])
    unbroken = _start(plan, _data())
    epochs, steps = len(unbroken[0].history), _data().steps_per_epoch()
    assert 4 <= epochs < 12
    options = {"workdir": tmp_path, "checkpoint_steps": 1}
    with pytest.raises(BrokenOff):  # in the last epoch, while it has been waiting for two
        _start(plan, _data(), callbacks=[BreakOff(after=(epochs - 1) * steps + 2)], **options)
    _check_same(_start(plan, _data(), **options), unbroken)


def test_the_last_good_weights_are_those_of_the_last_whole_epoch_before_the_break(tmp_path):
    at_the_end_of_epoch = {}

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            at_the_end_of_epoch[epoch] = state.values(self.model)

    class Spoil(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.get_layer("head").bias.assign([np.nan, 0.0])

    class Catch(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            Catch.trained = self.model

    options = {"workdir": tmp_path, "checkpoint_steps": 1}
    with pytest.raises(BrokenOff):
        _start(_one_stage(), _data(), callbacks=[Watch(), BreakOff(after=5)], **options)
    with pytest.raises(kt.NonFiniteLossError, match="epoch 2, step 2"):
        _start(_one_stage(), _data(), callbacks=[Spoil(), Catch()], **options)
    for (identity, variable), good in zip(state.walk(Catch.trained), at_the_end_of_epoch[0], strict=True):
        np.testing.assert_array_equal(variable.numpy(), good, err_msg=identity.path)


def test_an_epoch_of_a_single_step_is_no_exception(tmp_path):
    data = dark_and_light(10, batch_size=8)
    assert data.steps_per_epoch() == 1
    plan = _one_stage(optimizer="sgd", weight_decay=0.01)
    options = {"workdir": tmp_path, "checkpoint_steps": 1}
    with pytest.raises(BrokenOff):
        _start(plan, data, callbacks=[BreakOff(after=2)], **options)
    _check_ends_as_unbroken(_start(plan, data, **options), plan, data)


def test_a_plan_that_draws_its_weights_goes_on_with_those_that_it_drew(tmp_path):
    plan = kt.Plan([kt.Stage("all", 1, "scratch", start="random", batch_norm="adapt"), kt.Stage("head", 1)])
    options = {"workdir": tmp_path, "checkpoint_steps": 1}
    for after in (2, 4):
        with pytest.raises(BrokenOff):
            _start(plan, _data(), callbacks=[BreakOff(after)], **options)
    _check_ends_as_unbroken(_start(plan, _data(), **options), plan)


def test_a_torn_checkpoint_costs_steps_and_not_the_result(tmp_path):
    options = {"workdir": tmp_path, "checkpoint_steps": 1}
    with pytest.raises(BrokenOff):
        _start(_one_stage(), _data(), callbacks=[BreakOff(after=6)], **options)
    last = sorted((tmp_path / "checkpoints").glob("*.safetensors"))[-1]
    last.write_bytes(last.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="is not whole"):
        found = _start(_one_stage(), _data(), **options)
    _check_ends_as_unbroken(found, _one_stage())


def test_a_full_disk_ends_the_run_with_an_error_and_room_on_it_lets_it_go_on(tmp_path, monkeypatch):
    options = {"workdir": tmp_path, "checkpoint_steps": 2}
    whole, calls = checkpoints.write_whole, []

    def full(path, content):
        calls.append(path)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "The disk is full")
        whole(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write_whole", full)
        with pytest.raises(OSError, match="The disk is full"):
            _start(_one_stage(), _data(), **options)
    assert _last_position(tmp_path) == Position(stage=0, epoch=1)
    _check_ends_as_unbroken(_start(_one_stage(), _data(), **options), _one_stage())


def test_a_finished_run_is_read_and_not_trained_again(tmp_path):
    first = _start(_one_stage(), _data(), workdir=tmp_path)

    class Never(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            raise BrokenOff

    again = _start(_one_stage(), _data(), workdir=tmp_path, callbacks=[Never()])
    _check_ends_as_unbroken(again, _one_stage())
    assert again[0].report == first[0].report  # cost and all
    assert again[0].history == first[0].history
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1
    again[0].plot(tmp_path / "drawn")


def test_a_restart_forgets_the_run_and_trains_anew(tmp_path):
    options = {"workdir": tmp_path, "checkpoint_steps": 1}
    other = _one_stage()
    with pytest.raises(BrokenOff):
        _start(_one_stage(weight_decay=0.1), _data(), callbacks=[BreakOff(after=6)], **options)
    with pytest.raises(ValueError, match=r"(?s)plan.stages.0.weight_decay: 0.1 there, 0.0 here.*restart=True"):
        _start(other, _data(), **options)
    _check_ends_as_unbroken(_start(other, _data(), restart=True, **options), other)


def test_the_model_that_has_been_trained_since_is_not_the_one_that_was_given_first(tmp_path):
    model = _model()
    options = {"workdir": tmp_path, "checkpoint_steps": 1, "verbose": False}
    with pytest.raises(BrokenOff):
        kt.fit(model, _data(), _one_stage(), callbacks=[BreakOff(after=3)], **options)
    with pytest.raises(ValueError, match="(?s)weights of the model.*build the model anew"):
        kt.fit(model, _data(), _one_stage(), **options)


def test_callbacks_see_one_beginning_one_end_and_steps_that_are_counted_on(tmp_path):
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            seen.append("begin")

        def on_epoch_begin(self, epoch, logs=None):
            seen.append(epoch)

        def on_train_batch_end(self, batch, logs=None):
            seen.append((batch,))

        def on_train_end(self, logs=None):
            seen.append("end")

    steps = _data().steps_per_epoch()
    assert steps == 4
    options = {"workdir": tmp_path, "checkpoint_steps": 1}
    with pytest.raises(BrokenOff):
        _start(_one_stage(), _data(), callbacks=[BreakOff(after=6)], **options)
    _start(_one_stage(), _data(), callbacks=[Watch()], **options)
    assert seen == ["begin", 1, (2,), (3,), 2, (0,), (1,), (2,), (3,), "end"]


def test_what_is_left_of_a_stage_is_the_rest_of_an_epoch_and_whole_ones():
    def left(position, steps, last_epoch):
        return [dataclasses.astuple(stretch) for stretch in position.stretches(steps, last_epoch)]

    assert left(Position(0, 0), 4, 3) == [(0, 3, 4, 0)]
    assert left(Position(1, 5, 3), 4, 8) == [(5, 6, 1, 23), (6, 8, 4, 24)]
    assert left(Position(1, 7, 1), 4, 8) == [(7, 8, 3, 29)]


# --- when checkpoints are written ------------------------------------------------------------------------------------


class _Clock:
    """A clock that goes when it is told, and a disk that takes its time."""

    def __init__(self, monkeypatch, *, writing):
        self.now, self.writing, self.written = 1000.0, writing, []
        monkeypatch.setattr("keras_transfer.training.keeper.time.monotonic", lambda: self.now)

    def write(self, content, *, kept):
        self.now += self.writing
        self.written.append(self.now)


class _Nothing:
    def to_dict(self):
        return {}


@pytest.mark.parametrize("writing", [0.01, 0.5, 3.0, 20.0])
def test_checkpoints_take_less_than_two_per_cent_however_slow_the_disk(monkeypatch, writing):
    clock = _Clock(monkeypatch, writing=writing)
    keeper = Keeper(clock, seconds=30, expected_bytes=int(writing * 100e6))
    for _ in range(20_000):
        clock.now += 0.5
        keeper.keep_if_due(_Nothing)
    assert len(clock.written) >= 5
    assert len(clock.written) * writing / (clock.now - 1000) < 0.02
    assert min(np.diff(clock.written)) >= 30


def test_checkpoints_by_steps_come_whatever_they_cost(monkeypatch):
    clock = _Clock(monkeypatch, writing=100.0)
    keeper = Keeper(clock, steps=3)
    for _ in range(10):
        keeper.count_step()
        keeper.keep_if_due(_Nothing)
    assert len(clock.written) == 3


# --- signals ---------------------------------------------------------------------------------------------------------


class Signal(keras.callbacks.Callback):
    """Sends this process a signal at one moment of training."""

    def __init__(self, number, *, step=None, in_validation=False, begin=False):
        super().__init__()
        self._number, self._step, self._in_validation, self._begin = number, step, in_validation, begin
        self.sent = False

    def _send(self):
        self.sent = True
        os.kill(os.getpid(), self._number)

    def on_epoch_begin(self, epoch, logs=None):
        if self._begin and epoch == 1:
            self._send()

    def on_train_batch_end(self, batch, logs=None):
        self._step = None if self._step is None else self._step - 1
        if self._step == 0:
            self._send()

    def on_test_begin(self, logs=None):
        if self._in_validation and not self.sent:
            self._send()


@pytest.mark.parametrize(
    ("moment", "steps_kept"),
    [
        pytest.param({"step": 6}, 7, id="second epoch", marks=both_backends),
        pytest.param({"in_validation": True}, 3, id="validation"),  # the trained weights, and not their average
        pytest.param({"begin": True}, 3, id="between epochs"),
    ],
)
def test_sigterm_writes_a_checkpoint_and_leaves(tmp_path, capsys, moment, steps_kept):
    """At the end of the step that is running; where none is, with what there was before the last of four."""
    before = signal.getsignal(signal.SIGTERM)
    plan = _one_stage(ema=0.8 if "in_validation" in moment else None)
    told = Signal(signal.SIGTERM, **moment)
    with pytest.raises(SystemExit) as left:
        _start(plan, _data(), workdir=tmp_path, callbacks=[told])
    assert left.value.code == 143
    assert "start the same line again" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGTERM) is before
    assert _last_position(tmp_path) == Position(0, *divmod(steps_kept, 4))
    _check_ends_as_unbroken(_start(plan, _data(), workdir=tmp_path), plan)


def _last_position(folder):
    facts = json.loads((folder / "run.json").read_text())
    del facts["where"]
    run = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return Position(**Checkpoints(folder / "checkpoints", run).read_last()["position"])


def test_ctrl_c_leaves_a_checkpoint_too(tmp_path):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # where tests run in parallel it is ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            _start(_one_stage(), _data(), workdir=tmp_path, callbacks=[Signal(signal.SIGINT, step=2)])
    finally:
        signal.signal(signal.SIGINT, before)
    assert _last_position(tmp_path) == Position(0, 0, 3)
    _check_ends_as_unbroken(_start(_one_stage(), _data(), workdir=tmp_path), _one_stage())


def test_sigterm_before_anything_was_trained_leaves_at_once(tmp_path, monkeypatch, capsys):
    def told(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(stages, "start_from_probe", told)
        with pytest.raises(SystemExit):
            _start(_three_stages(), _data(24), workdir=tmp_path)
    assert "there was nothing yet" in capsys.readouterr().out
    assert not (tmp_path / "checkpoints").exists()


def test_sigterm_between_stages_keeps_the_stages_that_are_done(tmp_path, monkeypatch):
    def told(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(stages.attach, "carry_out", told)
        with pytest.raises(SystemExit):
            _start(_three_stages(), _data(24), workdir=tmp_path)
    assert _last_position(tmp_path) == Position(stage=2, epoch=3)
    _check_ends_as_unbroken(_start(_three_stages(), _data(24), workdir=tmp_path), _three_stages(), _data(24))


def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        run, _ = _start(_one_stage(), _data(), workdir=tmp_path, callbacks=[Signal(signal.SIGTERM, step=2)])
        assert len(run.history) == 3
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
