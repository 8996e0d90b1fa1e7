"""The structure that design and README promise, checked on the imports themselves."""

import ast
import functools
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "keras_transfer"

# The steps of the data's path: a module imports only from its own step and those before it.
STEPS = [
    "errors",
    "arguments",
    "formatting",
    "digests",
    "state",
    "card",
    "data",
    "backbones",
    "builders",
    "adapters",
    "plans",
    "evaluation",
    "training",
    "study",
]

# One door per outside library. Those that every module may use: keras and numpy.
DOORS = {
    "tensorflow": {"data/pipeline.py", "training/sharpness.py"},
    "jax": {"training/sharpness.py"},
    "tensorflow_datasets": {"data/tfds.py"},
    "keras_hub": {"backbones/hub.py"},
    "PIL": {"data/decoding.py"},
    "sklearn": {
        "data/digits.py",
        "evaluation/report.py",
        "training/linear_probe.py",
        "study/clusters.py",
        "study/plane.py",
    },
    "scipy": {"study/intervals.py", "training/linear_probe.py"},
    "threadpoolctl": {"training/linear_probe.py"},
    "safetensors": {
        "adapters/files.py",
        "adapters/peft.py",
        "training/checkpoints.py",
        "training/feature_store.py",
    },
    "matplotlib": {f"evaluation/plots/{name}.py" for name in ("curves", "fonts", "map", "matrix", "methods", "sheet")},
}
FREE = {"keras", "numpy", "keras_transfer"}

MODULES = sorted(PACKAGE.rglob("*.py"))


def _name(path):
    return path.relative_to(PACKAGE).as_posix()


@functools.cache
def _nodes(path):
    return list(ast.walk(ast.parse(path.read_text())))


@functools.cache
def _imports(path):
    """(module, whether it is imported when the file is) for every import statement of a file."""
    return list(_found_imports(path))


def _found_imports(path):
    inside_functions = {
        id(inner)
        for node in _nodes(path)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
    }
    for node in _nodes(path):
        at_once = id(node) not in inside_functions
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, at_once
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                # `from keras_transfer.plans import fates` names a module too.
                is_module = (ROOT / node.module.replace(".", "/")).is_dir()
                yield (f"{node.module}.{alias.name}" if is_module else node.module), at_once


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_a_module_imports_only_from_steps_above_it(path):
    step = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if step == "__init__":
        return
    for module, _ in _imports(path):
        if module.startswith("keras_transfer."):
            other = module.split(".")[1]
            assert STEPS.index(other) <= STEPS.index(step), f"{_name(path)} ({step}) imports {module}"


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_an_outside_library_has_one_door(path):
    for module, _ in _imports(path):
        library = module.split(".")[0]
        if library not in FREE and library not in sys.stdlib_module_names:
            assert _name(path) in DOORS.get(library, ()), f"{_name(path)} imports {module}"


@pytest.mark.parametrize(("library", "door"), [(library, door) for library in DOORS for door in sorted(DOORS[library])])
def test_every_door_is_used(library, door):
    assert library in {module.split(".")[0] for module, _ in _imports(PACKAGE / door)}


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_nothing_private_of_keras_is_imported(path):
    assert not [module for module, _ in _imports(path) if ".src" in module]


def test_every_step_has_its_folder_or_file():
    found = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if not path.name.startswith(("_", "py."))}
    assert found == set(STEPS)


def test_no_room_is_without_a_name():
    assert not [_name(path) for path in MODULES if path.stem in {"utils", "helpers", "common", "misc"}]


def test_nothing_imports_a_recipe_or_a_benchmark():
    for path in [*MODULES, *(ROOT / "recipes").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")]:
        for module, _ in _imports(path):
            assert module.split(".")[0] not in {"recipes", "benchmarks", "tests"}, f"{path} imports {module}"


def test_the_library_raises_and_never_asserts():
    for path in MODULES:
        assert not [node for node in _nodes(path) if isinstance(node, ast.Assert)], path


def test_every_public_name_has_a_docstring_with_an_example():
    import keras_transfer

    callables = {
        name: getattr(keras_transfer, name) for name in keras_transfer.__all__ if name not in ("data", "cache")
    }
    examples = {name for name, member in callables.items() if ">>>" in (member.__doc__ or "")}
    errors = {name for name, member in callables.items() if isinstance(member, type) and issubclass(member, Exception)}
    # A block is shown in the example of `Blocks`, and what a function hands back in that of the function.
    handed_back = {"Adaptation", "Agreement", "Clusters", "LearningRates", "Neighbours", "Run", "Soup"}
    assert set(callables) - examples - errors == {"Block"} | handed_back


def test_import_is_light():
    """What is large loads when first used; TensorFlow too, where it is not the backend."""
    print_heavy = (
        "print([name for name in ('tensorflow', 'keras_hub', 'tensorflow_datasets', 'sklearn.linear_model',"
        "'sklearn.metrics', 'sklearn.datasets', 'matplotlib.figure') if name in sys.modules])"
    )
    code = f"import sys, keras; {print_heavy}; import keras_transfer; {print_heavy}"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    of_keras, of_ours = run.stdout.splitlines()[-2:]
    assert of_ours == of_keras
