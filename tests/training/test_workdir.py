"""Who may use a workdir, and which run may go on in it."""

import json
import os
import signal
import subprocess
import sys

import keras
import pytest
from bodies import classifier, dark_and_light

import keras_transfer as kt
from keras_transfer.training import workdir as workdirs
from keras_transfer.training.workdir import Workdir

RUN = {"plan": {"stages": [{"learning_rate": 0.001}]}, "data": "abc", "seed": 0}


def _open(folder, run=RUN, *, restart=False):
    with Workdir.opened(folder, run, restart=restart) as home:
        home.checkpoints.write({"step": 1})
        return home


def test_the_same_run_is_let_in_again(tmp_path):
    _open(tmp_path)
    with Workdir.opened(tmp_path, RUN, restart=False) as home:
        assert home.checkpoints.read_last() == {"step": 1}


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({**RUN, "plan": {"stages": [{"learning_rate": 0.01}]}}, "plan.stages.0.learning_rate: 0.001 there, 0.01 here"),
        ({**RUN, "data": "xyz"}, "data: another digest"),
        ({**RUN, "seed": 1}, "seed: 0 there, 1 here"),
        ({**RUN, "precision": "mixed_float16"}, "precision: None there, 'mixed_float16' here"),
    ],
    ids=["plan", "data", "seed", "precision"],
)
def test_another_run_is_refused_by_what_differs_and_with_the_way_to_start_afresh(tmp_path, other, named):
    _open(tmp_path)
    with pytest.raises(ValueError, match="holds another run") as error:
        _open(tmp_path, other)
    assert named in str(error.value)
    assert "restart=True" in str(error.value)


def test_a_restart_discards_what_fit_left_and_nothing_else(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    _open(tmp_path)
    (tmp_path / "tensorboard").mkdir()
    for name in ("history.csv", "model.keras"):
        (tmp_path / name).write_text("old")
    other = {**RUN, "seed": 1}
    with Workdir.opened(tmp_path, other, restart=True) as home:
        assert home.checkpoints.read_last() is None
        assert sorted(os.listdir(tmp_path)) == ["lock", "notes.txt", "run.json"]
    assert json.loads((tmp_path / "run.json").read_text())["seed"] == 1


def test_a_workdir_in_use_is_refused_also_for_a_restart(tmp_path):
    with Workdir.opened(tmp_path, RUN, restart=False):
        for restart in (False, True):
            with pytest.raises(ValueError, match=f"(?s)in use.*process {os.getpid()} on "):
                _open(tmp_path, restart=restart)
    _open(tmp_path)


def test_a_live_process_keeps_others_out_and_a_killed_one_leaves_no_lock(tmp_path):
    holds = (
        "import fcntl, pathlib, sys, time; file = open(sys.argv[1], 'a+'); fcntl.flock(file, fcntl.LOCK_EX);"
        "print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", holds, tmp_path / "lock"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match="in use"):
        _open(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _open(tmp_path)


def test_a_workdir_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match="(?s)cannot be written to.*to mend"):
            _open(folder)


def test_a_description_that_cannot_be_read_is_refused(tmp_path):
    _open(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"(?s)cannot be read.*restart=True"):
        _open(tmp_path)


def test_another_machine_or_version_is_said_and_recorded_and_let_in(tmp_path, monkeypatch):
    _open(tmp_path)
    here = workdirs.where()
    monkeypatch.setattr(workdirs, "where", lambda: {**here, "keras": "3.99", "cores": 64})
    with pytest.warns(UserWarning, match="(?s)begun elsewhere") as said:
        _open(tmp_path)
    assert f"keras: '{keras.__version__}' then, '3.99' now" in str(said[0].message)
    assert "cores" in str(said[0].message)
    recorded = json.loads((tmp_path / "run.json").read_text())["where"]
    assert [place["keras"] for place in recorded] == [keras.__version__, "3.99"]


def test_versions_machine_and_threads_are_recorded(tmp_path):
    _open(tmp_path)
    (recorded,) = json.loads((tmp_path / "run.json").read_text())["where"]
    expected = {"keras_transfer", "keras", "backend", "tensorflow", "numpy", "machine", "cores"}
    assert expected <= set(recorded)
    assert any("threads" in name for name in recorded)


# --- what makes a run the one it is ----------------------------------------------------------------------------------


def _identity(*, seed=0, build=classifier, data=None, plan=None):
    keras.utils.set_random_seed(seed)
    model = build()
    plan = plan or kt.Plan([kt.Stage("head", 1)])
    return workdirs.identify(model, data or dark_and_light(), plan, {"seed": 0})


def _differing(one, other):
    return [name for name in one if one[name] != other[name]]


def test_a_model_built_again_is_the_same_although_keras_counts_its_names_up():
    assert _identity() == _identity()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda: {"seed": 1}, ["weights of the model"]),
        (lambda: {"build": lambda: classifier(dropout=0.5)}, ["layers of the model"]),
        (lambda: {"data": dark_and_light(26)}, ["data"]),
        (lambda: {"data": dark_and_light(batch_size=4)}, ["batches"]),
        (lambda: {"data": dark_and_light(augment="light")}, ["batches"]),
        (lambda: {"data": dark_and_light(augment=lambda picture, seed: picture)}, ["batches"]),
        (lambda: {"plan": kt.Plan([kt.Stage("head", 2)])}, ["plan"]),
    ],
    ids=["random weights", "dropout", "data", "batch size", "augmentation", "own augmentation", "plan"],
)
def test_a_change_is_found_where_it_was_made(change, named):
    keras.utils.set_random_seed(0)
    assert _differing(_identity(), _identity(**change())) == named


def test_weights_that_the_plan_draws_anew_may_be_any():
    plan = kt.from_scratch(classifier(), epochs=1)
    assert _identity(seed=0, plan=plan) == _identity(seed=1, plan=plan)


def test_a_function_of_ones_own_is_the_same_in_two_processes():
    def augment(picture, seed):
        return picture

    first, second = (dark_and_light(augment=augment).settings for _ in range(2))
    assert first == second
    assert "0x" not in json.dumps(first)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"restart": True}, "(?s)`restart`.*a workdir"),
        ({"checkpoint_steps": 5}, "(?s)`checkpoint_steps`.*a workdir"),
        ({"checkpoint_steps": 0, "workdir": "never made"}, "from 1 up"),
        ({"checkpoint_seconds": -1, "workdir": "never made"}, "a number of seconds"),
    ],
)
def test_an_argument_that_means_nothing_is_refused(options, message):
    model = classifier()
    with pytest.raises(ValueError, match=message):
        kt.fit(model, dark_and_light(), kt.feature_extraction(model, epochs=1), **options)


def test_the_lock_is_given_back_where_a_run_fails(tmp_path):
    with pytest.raises(RuntimeError), Workdir.opened(tmp_path, RUN, restart=False):
        raise RuntimeError
    _open(tmp_path)
