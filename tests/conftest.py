"""What every test may use: the shared real data where it exists, and a fixed seed."""

import atexit
import gc
import os
import pathlib
import shutil
import tempfile

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "Agg")
# Threads of scikit-learn that wait for each other on cores that are busy take minutes for what takes a second.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"


def _lend_keras_home() -> None:
    """Points KERAS_HOME at a scratch folder whose `models/` links to the shared weights.

    Keras reads the variable once, when imported, and writes its settings there: so a copy, and before any import.
    """
    home = pathlib.Path(tempfile.mkdtemp(prefix="keras_home_"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    (home / "models").mkdir()
    for weights in (SHARED / "keras_home" / "models").glob("*"):
        (home / "models" / weights.name).symlink_to(weights)
    os.environ["KERAS_HOME"] = str(home)


def _keep_features_apart() -> None:
    """What `fit` keeps of frozen bodies goes to a scratch folder, and not among the user's."""
    folder = tempfile.mkdtemp(prefix="features_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["KERAS_TRANSFER_CACHE"] = folder


def _compile_once() -> None:
    """JAX compiles for speed of compiling, and keeps what it has compiled for every test of the run.

    Nearly all of a test's time on JAX is spent on compiling small programs that run a few times. The variables are
    read when JAX is imported; processes that tests or pytest-xdist start inherit them, and the folder.
    """
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="compiled_")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


_lend_keras_home()
_keep_features_apart()
_compile_once()


def pytest_collection_finish():
    """Everything that has been imported leaves the garbage collector's sight.

    Keras collects whenever a weight is taken off a layer, and adapters look through all objects for models around
    theirs: half a second each time, over a million objects of TensorFlow's.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _fresh_keras():
    """Every test starts from the same seed and the default precision, with no layer names taken."""
    import keras  # not above: the process that hands the tests out to others would wait for it, and has no use for it

    keras.utils.clear_session(free_memory=False)
    keras.config.set_dtype_policy("float32")
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder of real pictures, texts and weights; tests that need it are skipped, loudly, without it."""
    if not SHARED.is_dir():
        pytest.skip(f"NOT TESTED: the shared data folder is missing: {SHARED}")
    return SHARED


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved in this test, so that what stands on them can be read."""
    from matplotlib.figure import Figure

    figures, save = [], Figure.savefig

    def savefig(figure, *arguments, **options):
        save(figure, *arguments, **options)
        figures.append(figure)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return figures
