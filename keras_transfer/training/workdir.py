"""The folder of a run: who may use it, which run it holds, and where that was carried out."""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from keras_transfer import card, digests, state
from keras_transfer.adapters import base_identity
from keras_transfer.data.splits import Splits
from keras_transfer.errors import explain
from keras_transfer.plans.plan import Plan
from keras_transfer.training.checkpoints import Checkpoints
from keras_transfer.training.files import clear_unfinished, save_model, write_whole

_RUN, _LOCK, _CHECKPOINTS = "run.json", "lock", "checkpoints"
# What `fit` leaves there. The run's own description goes last: what lies there without one belongs to no run.
_LEFT_BY_FIT = (
    _CHECKPOINTS,
    "tensorboard",
    "history.csv",
    "audit.json",
    "report.json",
    "report.txt",
    "model.keras",
    _RUN,
)
_RESTART = "fit(…, restart=True) discards what the workdir holds and starts afresh"


def identify(model: keras.Model, splits: Splits, plan: Plan, choices: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a run the one it is, as JSON gives it back: with all of it equal, it ends in the same weights.

    Args:
        model: as it is given to `fit`, before anything is done to it.
        splits: the data.
        plan: the plan.
        choices: the other arguments of `fit` that decide about the weights.
    """
    facts = {
        "plan": plan.to_dict(),
        "data": splits.fingerprint,
        "classes": list(splits.classes),
        "batches": splits.settings,
        **choices,
        "layers of the model": digests.of_json([base_identity.architecture(model), card.read(model)]),
        # Drawn anew at once, they are the same whatever they were.
        "weights of the model": None if plan.stages[0].start == "random" else _weights_digest(model),
    }
    return json.loads(json.dumps(facts))


@dataclasses.dataclass(frozen=True)
class Workdir:
    """A folder that this process alone uses, and the run in it.

    Attributes:
        folder: where the files are.
        checkpoints: those of the run.
    """

    folder: pathlib.Path
    checkpoints: Checkpoints

    @classmethod
    @contextlib.contextmanager
    def opened(cls, folder: str | os.PathLike, identity: Mapping[str, Any], *, restart: bool) -> Iterator["Workdir"]:
        """The folder, locked for as long as the context lasts; a process that is killed leaves no lock behind.

        Args:
            folder: made where it is not there.
            identity: of the run that is to be carried out, from `identify`.
            restart: whether to discard what it holds of another run, or of this one.

        Raises:
            ValueError: where it cannot be written to, where a live process uses it, or where it holds another run.
        """
        folder = pathlib.Path(folder)
        with _locked(folder):
            clear_unfinished(folder)
            if restart:
                _discard(folder)
            _claim(folder, identity)
            run = digests.of_json(identity)
            yield cls(folder, Checkpoints(folder / _CHECKPOINTS, run))

    def write(self, name: str, content: str) -> None:
        """Writes a file of the run, whole or not at all."""
        write_whole(self.folder / name, content)

    def save_model(self, model: keras.Model) -> None:
        """Writes the model, whole or not at all."""
        save_model(model, self.folder / "model.keras")


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
    import fcntl  # there is none on Windows, where runs without a workdir still go

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / _LOCK, "a+")  # noqa: SIM115 - closed below
    except OSError as error:
        raise ValueError(
            explain(
                "The workdir cannot be written to.",
                given=f"{folder} ({error.strerror or error})",
                expected="a folder that this process may write to, or a place where it may make one",
                to_mend="give another folder, or workdir=None to keep nothing",
            )
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise ValueError(
                explain(
                    "The workdir is in use.",
                    given=f"{folder}, by {lock.read().strip() or 'another process'}",
                    expected="a workdir of its own for each run at a time",
                    to_mend="wait until that run is done, end it, or give another folder",
                )
            ) from error
        except OSError as error:
            warnings.warn(
                f"{folder} lies where files cannot be locked ({error.strerror}): nothing keeps a second run out of it",
                stacklevel=5,
            )
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {platform.node()}\n")
        lock.flush()
        yield


def _discard(folder: pathlib.Path) -> None:
    for name in _LEFT_BY_FIT:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _claim(folder: pathlib.Path, identity: Mapping[str, Any]) -> None:
    """Writes down the run that is to be carried out, or finds that it is the one that was.

    Raises:
        ValueError: where it is another one.
    """
    path, here = folder / _RUN, where()
    written = _read_run(path) if path.exists() else {**identity, "where": []}
    _check_same(folder, written, identity)
    there = written["where"][-1] if written["where"] else here
    if there != here:
        changed = [
            f"{key}: {there.get(key)!r} then, {here.get(key)!r} now" for key in here if there.get(key) != here[key]
        ]
        warnings.warn(
            explain(
                f"The run in {folder} was begun elsewhere; it goes on, but need not end in the same bits.",
                given="\n".join(changed) or "other facts",
                expected="the same machine, versions and threads, for the weights of an unbroken run to the last bit",
            ),
            stacklevel=6,
        )
    if written["where"][-1:] != [here]:
        write_whole(path, json.dumps({**identity, "where": [*written["where"], here]}, indent=2))


def _read_run(path: pathlib.Path) -> dict[str, Any]:
    try:
        written = json.loads(path.read_text())
        return {**written, "where": list(written.get("where", []))}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            explain(
                "The workdir holds a run that cannot be read.",
                given=f"{path}: {error}",
                expected="the file that an earlier call of fit wrote",
                to_mend=_RESTART,
            )
        ) from error


def _check_same(folder: pathlib.Path, written: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    differences = []
    for key, value in identity.items():
        found = base_identity.first_difference(written.get(key), value, key)
        if found is not None:
            place, there, here = found
            differences.append(
                f"{place}: another digest" if key in _DIGESTS else f"{place}: {there!r} there, {here!r} here"
            )
    if not differences:
        return
    to_mend = f"{_RESTART}; or give another workdir"
    if len(differences) == 1 and differences[0].startswith("weights of the model"):
        to_mend = (
            "build the model anew, just as for the first start (a model that has been trained since is another one, and"
            f" so is one whose random weights had no keras.utils.set_random_seed before). Or: {to_mend}"
        )
    raise ValueError(
        explain(
            "The workdir holds another run.",
            given=f"{folder}, in which differ\n" + "\n".join(differences),
            expected=f"the same in all of: {', '.join(identity)}; then that run goes on",
            to_mend=to_mend,
        )
    )


_DIGESTS = ("data", "layers of the model", "weights of the model")


def where() -> dict[str, Any]:
    """The versions, machine and threads on which the same run ends in the same bits."""
    from keras_transfer.data import pipeline

    try:
        ours = importlib.metadata.version("keras_transfer")
    except importlib.metadata.PackageNotFoundError:
        ours = "not installed"
    return json.loads(
        json.dumps({"keras_transfer": ours, **pipeline.engine(), **base_identity.machine(), **_processor()})
    )


def _processor() -> dict[str, str]:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {}
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {"processor": models[0]} if models else {}


def _weights_digest(model: keras.Model) -> str:
    # Without the seeds, which `fit` sets itself.
    return digests.of_arrays(variable.numpy() for _, variable in state.walk(model) if not state.is_seed(variable))
