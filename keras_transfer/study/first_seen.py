"""What of a run is seen only while it goes on, or takes long to find: kept beside it, for when it is read again."""

import dataclasses
import json
import pathlib

from keras_transfer import digests
from keras_transfer.study.source import Source
from keras_transfer.study.trial import Trial
from keras_transfer.training.files import write_whole
from keras_transfer.training.run import Run

_OF_THE_RUN = ("memory_bytes", "made_features")


def read(trial: Trial, run: Run, source: Source | None, workdir: pathlib.Path) -> Trial:
    """The trial with what was seen when its run was carried out, where that was earlier.

    Args:
        trial: as it was seen now.
        run: what it came from.
        source: the task whose forgetting is asked for: what was measured on another one is not taken over.
        workdir: of the run.
    """
    try:
        written = json.loads((workdir / "trial.json").read_text())
    except (OSError, ValueError):
        return trial
    if written.get("of") != _digest(run):
        return trial
    seen = {name: written[name] for name in _OF_THE_RUN}
    if source is not None and written.get("source") == source.digest:
        seen["source_accuracy"] = written["source_accuracy"]
    return dataclasses.replace(trial, **seen)


def write(trial: Trial, run: Run, source: Source | None, workdir: pathlib.Path) -> None:
    """Keeps it."""
    seen = {name: getattr(trial, name) for name in (*_OF_THE_RUN, "source_accuracy")}
    of = {"of": _digest(run), "source": None if source is None else source.digest}
    write_whole(workdir / "trial.json", json.dumps(of | seen))


def _digest(run: Run) -> str:
    # The report holds the seconds of each stage, so no two runs have the same.
    return digests.of_json(run.report.to_json())
