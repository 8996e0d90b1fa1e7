"""Frozen work done once: what lies below the cut is computed for every example, kept, and trained on."""

import contextlib
import dataclasses
import importlib.metadata
import os
import pathlib
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import keras
import numpy as np

import keras_transfer
from keras_transfer.backbones.cut import INPUTS, KEPT, Below, Cut, NotCutError, deepest_cut
from keras_transfer.data.splits import Batches, Split, Splits
from keras_transfer.errors import explain, nearest
from keras_transfer.training import feature_store
from keras_transfer.training.feature_store import Rows

if TYPE_CHECKING:
    from keras_transfer.data.pipeline import Dataset

Cache = Literal["auto", "off", "memory", "disk"]
CACHES = ("auto", "off", "memory", "disk")
# Features of an example that are larger than this many bytes cost about as much to read as to compute.
_LARGEST = 4e6
# No more than this share of what is free is taken, of the disk and of the memory.
_SHARE = 0.5
# No more than so many bytes are taken from disk into memory.
_WHOLE = 128e6
_BATCH = 32


@dataclasses.dataclass(frozen=True)
class Keeping:
    """How features are kept.

    Attributes:
        cache: `"auto"`, `"off"`, `"memory"` or `"disk"`.
        views: how many augmented versions of each example are kept; 0 is the example as it is.
        folder: where on disk.
    """

    cache: Cache = "auto"
    views: int | None = None
    folder: pathlib.Path = dataclasses.field(default_factory=feature_store.default_folder)

    def __post_init__(self) -> None:
        if self.cache not in CACHES:
            raise ValueError(
                explain(
                    "`cache` names no way to keep features.",
                    given=repr(self.cache),
                    nearest=nearest(str(self.cache), CACHES),
                    expected=", ".join(map(repr, CACHES)),
                )
            )
        if self.views is not None and (not isinstance(self.views, int) or self.views < 0):
            raise ValueError(
                explain(
                    "`cache_views` is no number of versions.",
                    given=repr(self.views),
                    expected="0, for pictures as they are, or how many augmented versions of each to keep",
                )
            )

    def with_views(self, views: int) -> Self:
        """The same, with so many versions where nobody has said how many."""
        return dataclasses.replace(self, views=views) if self.views is None else self

    def as_begun(self, kept_in: str) -> Self:
        """The same, kept where a stage that goes on has kept its features; or not kept, as it has not."""
        return dataclasses.replace(self, cache=kept_in)


class Features(Batches):
    """Data of which a model's frozen part has been computed: x is what was kept of each example.

    It stands where `Splits` do, for a model that is in its `in_use`.

    Attributes:
        cut: where the model is cut.
    """

    def __init__(self, splits: Splits, model: keras.Model, cut: Cut, store: "Store", views: Sequence[int | None]):
        self._splits, self._model, self._store, self._views = splits, model, store, tuple(views)
        self.cut = cut
        self.train, self.validation, self.test = splits.train, splits.validation, splits.test
        self.classes = splits.classes

    @property
    def whole(self) -> Splits:
        return self._splits

    @property
    def kept_in(self) -> str:
        return "memory" if self._store.folder is None else "disk"

    @contextlib.contextmanager
    def in_use(self) -> Iterator[Self]:
        with self.cut.taken():
            yield self

    def training_batches(
        self, model: Any, *, seed: int | None = None, first_step: int = 0, epochs: int | None = None
    ) -> "Dataset":
        from keras_transfer.data import pipeline

        rows_of_step = self._splits.rows_of_step(model, seed=seed)
        steps = self._splits.steps_per_epoch(model)
        last_step = None if epochs is None else max(first_step, epochs * steps)
        count = len(self._views)
        numbers = {epoch % count for epoch in (range(first_step // steps, epochs) if epochs else range(count))}
        whole = self._whole(self.train, [self._views[number] for number in sorted(numbers)])
        if whole is not None:
            places, offset = self._places(self.train), {number: n for n, number in enumerate(sorted(numbers))}

            def rows_of(step: int) -> np.ndarray:
                epoch, rows = rows_of_step(step)
                return places[rows] + offset[epoch % count] * len(places)

            return pipeline.gathered_batches(whole, rows_of, first_step=first_step, last_step=last_step)
        views = {number: self._batch_of(self.train, self._views[number]) for number in numbers}

        def batch(step: int) -> tuple:
            epoch, rows = rows_of_step(step)
            return views[epoch % count](rows)

        example = batch(first_step)
        sides = self._sides(example, self.train, self._views[min(numbers)])
        return pipeline.computed_batches(
            batch, example=example, sides=sides, first_step=first_step, last_step=last_step
        )

    def evaluation_batches(self, split: Split, model: Any, *, in_order: bool = True) -> "Dataset":
        from keras_transfer.data import pipeline

        order = self.evaluation_order(split, model)
        order, size = np.arange(len(order)) if in_order else order, self._splits.batch_size
        whole = self._whole(split, [None])
        if whole is not None:
            return pipeline.ordered_batches(whole, self._places(split)[order], size)
        batch_of = self._batch_of(split, None)

        def batch(step: int) -> tuple:
            return batch_of(order[step * size : (step + 1) * size])

        example = batch(0)
        return pipeline.computed_batches(
            batch,
            example=example,
            sides=self._sides(example, split, None),
            last_step=-(-len(order) // size),
        )

    def _whole(self, split: Split, views: Sequence[int | None]) -> tuple | None:
        """All batches in one, of several versions one after another in the order of `_places`; `None` where that would
        take much memory, or is not of one shape."""
        if self.cut.reads:
            return None
        every = self.evaluation_order(split, self._model)
        _, *targets = self._splits.without_pictures(split, self._model, every)
        if any(target.ndim > 1 for target in targets):
            return None
        kept = [self._store.rows(split, view).whole(_WHOLE / len(views)) for view in views]
        if any(tensors is None for tensors in kept):
            return None
        joined = kept[0] if len(kept) == 1 else [np.concatenate(tensors) for tensors in zip(*kept, strict=True)]
        given = {KEPT: {str(number): tensor for number, tensor in enumerate(joined)}}
        return given, *(np.tile(target, len(views)) for target in targets)

    def _places(self, split: Split) -> np.ndarray:
        """Where in the order of evaluation, in which features are computed, each example stands."""
        return np.argsort(self.evaluation_order(split, self._model), kind="stable")

    def _sides(self, example: tuple, split: Split, view: int | None) -> tuple:
        """The shapes of all batches like this one: layers are made for sides that are known."""
        x, *targets = example
        kept = enumerate(self._store.rows(split, view).sides)
        sides = {KEPT: {str(number): np.array([-1, *shape]) for number, shape in kept}}
        if INPUTS in x:
            sides[INPUTS] = {name: np.full(array.ndim, -1) for name, array in x[INPUTS].items()}
        return sides, *(np.full(array.ndim, -1) for array in targets)

    def evaluation_order(self, split: Split, model: Any) -> np.ndarray:
        return self._splits.evaluation_order(split, model)

    def _batch_of(self, split: Split, view: int | None) -> Callable[[np.ndarray], tuple]:
        """From the numbers of examples to their batch."""
        kept = self._store.rows(split, view)
        places = self._places(split)

        def batch(rows: np.ndarray) -> tuple:
            x, *targets = self._splits.without_pictures(split, self._model, rows)
            given = {KEPT: {str(number): tensor for number, tensor in enumerate(kept.take(places[rows]))}}
            if self.cut.reads:
                given[INPUTS] = {name: x[name] for name in self.cut.reads}
            return given, *targets

        return batch


class Store:
    """The features of some data below one cut: found, or computed and kept."""

    def __init__(self, splits: Splits, model: keras.Model, cut: Cut, *, seed: int, folder: pathlib.Path | None):
        self._splits, self._model, self._seed = splits, model, seed
        self.cut, self.folder = cut, folder
        self._below: Below | None = None
        self._rows: dict[tuple[str, int | None], Rows] = {}

    def rows(self, split: Split, view: int | None) -> Rows:
        if (split.name, view) not in self._rows:
            self._rows[split.name, view] = self._found_or_computed(split, view)
        return self._rows[split.name, view]

    def has(self, split: Split, view: int | None) -> bool:
        """Whether the features of a split are there already."""
        facts = self._facts(split, view)
        return self.folder is not None and facts is not None and feature_store.has(self.folder, facts)

    def size_of(self, split: Split, view: int | None) -> int:
        """The most bytes that an example takes, of features that are there."""
        return self.rows(split, view).largest

    def _found_or_computed(self, split: Split, view: int | None) -> Rows:
        if self.folder is None:
            return feature_store.InMemory(self.computed(split, view))
        shown = "as they are" if view is None else f"as in epoch {view + 1}"
        words = f"{self._model.name}, {len(self.cut.layers)} layers: {split.name}, {shown}"
        return feature_store.kept(
            self.folder, self._facts(split, view), lambda: self.computed(split, view), words=words
        )

    def _facts(self, split: Split, view: int | None) -> dict[str, Any] | None:
        data = self._splits.view_identity(split, self._model, epoch=view, seed=self._seed)
        if data is None:
            return None
        return {
            "below": self.cut.signature,
            "data": data,
            "keras_transfer": keras_transfer.__version__,
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
            "platform": _platform(),
        }

    def computed(self, split: Split, view: int | None) -> Iterator[list[np.ndarray]]:
        """The features of a split, batch by batch, computed anew."""
        if self._below is None or self._below.cut is not self.cut:
            self._below = Below(self.cut)  # one for all splits: it is traced once
        for x in self._splits.view(split, self._model, epoch=view, seed=self._seed, batch_size=_BATCH):
            x = keras.tree.map_structure(np.asarray, x)
            count = len(keras.tree.flatten(x)[0])
            # The last batch is filled up, so that there is one shape to compile for.
            x = keras.tree.map_structure(lambda array, short=_BATCH - count: _repeated(array, short), x)
            made = keras.tree.flatten(self._below.predict_on_batch(x))
            yield [np.asarray(tensor)[:count] for tensor in made]


def _repeated(array: np.ndarray, times: int) -> np.ndarray:
    """The array with its last row repeated."""
    return np.concatenate([array, np.repeat(array[-1:], times, axis=0)]) if times else array


def features(
    model: keras.Model, splits: Splits, keeping: Keeping, *, epochs: range, seed: int, verbose: bool
) -> Features | None:
    """What is kept of the data below the model's cut, for the epochs of a stage; `None` where nothing is to be kept.

    Args:
        model: as the stage trains it.
        splits: the data.
        keeping: how.
        epochs: those of the stage, counted over the plan from 0.
        seed: of the augmentation.
        verbose: whether to say what is kept and why, or why not.

    Raises:
        ValueError: features are asked for, and the model or the data do not allow it.
    """
    if keeping.cache == "off":
        return None
    outcome = _decided(model, splits, keeping, epochs=epochs, seed=seed)
    if isinstance(outcome, _Not):
        if keeping.cache != "auto" and outcome.expected is not None:
            raise ValueError(
                explain(
                    "The features of this stage cannot be kept.",
                    given=f"cache={keeping.cache!r}",
                    expected=outcome.expected,
                    to_mend='cache="auto", which keeps them where that can be done and pays',
                )
            )
        if verbose:
            print(f"features: not kept, {outcome.why}")
        return None
    found, said = outcome
    if verbose:
        print(said)
    return found


@dataclasses.dataclass(frozen=True)
class _Not:
    """Why features are not kept, and what would have to be so.

    Attributes:
        why: the reason.
        expected: what they are kept of; `None` where there is nothing to keep, which nobody is refused.
    """

    why: str
    expected: str | None


def _decided(
    model: keras.Model, splits: Splits, keeping: Keeping, *, epochs: range, seed: int
) -> "tuple[Features, str] | _Not":
    cut = deepest_cut(model)
    if cut is None or not cut.works:
        return _Not("nothing that takes work lies below what trains", None)
    views = _views(splits, keeping)
    needed = list(dict.fromkeys(views[epoch % len(views)] for epoch in epochs))
    if cut.reads and splits.without_pictures(splits.train, model, np.array([0]))[0] is None:
        return _Not("what trains reads the pictures themselves as well", "a body that trains above one place")
    if any(shape[0] is not None for shape in cut.shapes):
        return _Not("what is to be kept is not of single examples", "tensors with a row for each example")
    identified = splits.view_identity(splits.train, model, epoch=needed[0], seed=seed) is not None
    if keeping.cache == "disk" and not (identified and cut.is_identified):
        return _Not("", "nothing that is known by its name only, such as a function as `augment`; or cache='memory'")
    identified = identified and cut.is_identified
    store = Store(splits, model, cut, seed=seed, folder=None if keeping.cache == "memory" else keeping.folder)
    wanted = [(splits.train, view) for view in needed] + [(split, None) for split in splits.all[1:]]
    passes = f"{len(needed)} {'pass' if len(needed) == 1 else 'passes'} over train instead of {len(epochs)}"
    # Not by what lies on disk already: the same line is to come to the same, whatever ran before it.
    if keeping.cache == "auto" and len(needed) >= len(epochs):
        return _Not(f"{passes} saves nothing", "more epochs")
    there = identified and not cut.is_inside_a_layer and all(store.has(split, view) for split, view in wanted)
    tried = (cut, store.size_of(*wanted[0])) if there else _tried(model, cut, splits)
    if tried is None:
        return _Not("the model does not come to the same when it is run in two parts", "a model that can be cut")
    store.cut, size = tried
    total = size * sum(_count(splits, split, model) for split, _ in wanted)
    if keeping.cache == "auto":
        if size > _LARGEST:
            return _Not(f"{size / 1e6:.1f} MB an example cost more to read than they save", "")
        if not identified or (not there and total > _SHARE * _free_disk(keeping.folder)):
            store.folder = None
            if total > _SHARE * _free_memory():
                why = f"{total / 1e9:.1f} GB are more than half of what is free"
                # Said in any case: with more room the same line would train on other versions of the pictures.
                warnings.warn(f"The features of this stage are not kept: {why}", stacklevel=2)
                return _Not(why, "")
    place = "memory" if store.folder is None else str(store.folder)
    said = f"{store.cut}; {passes}, {total / 1e6:.1f} MB in {place}"
    said = f"found in {place}, none computed" if there else said
    return Features(splits, model, store.cut, store, views), f"features: {said}{_unaugmented(splits, views)}"


def _unaugmented(splits: Splits, views: Sequence[int | None]) -> str:
    """What is to be said where pictures that would be augmented are not."""
    if not splits.augments or tuple(views) != (None,):
        return ""
    return "; of pictures as they are, not augmented (cache_views=4 keeps four versions of each)"


def _views(splits: Splits, keeping: Keeping) -> tuple[int | None, ...]:
    """The versions of each training example that the epochs take in turn: `None` is the example as it is."""
    if not splits.augments:
        return (None,)
    views = keeping.views or 0
    return tuple(range(views)) or (None,)


def _tried(model: keras.Model, cut: Cut, splits: Splits) -> tuple[Cut, int] | None:
    """The cut, or a lower one, at which the model comes to the same in two parts as in one, and the bytes that an
    example takes there."""
    order = splits.evaluation_order(splits.train, model)
    x = _inputs(splits, model, order[[0, -1]])  # the shortest and the longest
    alone = _inputs(splits, model, order[[0]])
    varies = [array.shape[1:] for array in keras.tree.flatten(x)] != [a.shape[1:] for a in keras.tree.flatten(alone)]
    for candidate in (cut, deepest_cut(model, inside_layers=False)):
        if candidate is None or not candidate.works:
            continue
        try:
            together = candidate.below(x)
            same = not varies or all(map(_begins_with, together, candidate.below(alone)))
            if same and candidate.comes_to_the_same(x, together):
                return candidate, sum(_storage(tensor) for tensor in together) // len(together[0])
        except NotCutError:
            continue
    return None


def _begins_with(batch: Any, row: Any) -> bool:
    """Whether the first example of a batch is what it is alone, as far as it goes: padding must make no difference."""
    batch, row = (keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32"))[0] for tensor in (batch, row))
    part = batch[tuple(slice(side) for side in row.shape)]
    return np.allclose(part, row, rtol=1e-2, atol=1e-3 * np.abs(row).max(initial=1e-6))


def _storage(tensor: Any) -> int:
    """How many bytes are kept of a tensor."""
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    return int(np.prod(tensor.shape)) * np.dtype("float32" if dtype == "bfloat16" else dtype).itemsize


def _inputs(splits: Splits, model: keras.Model, rows: np.ndarray) -> Any:
    """Some training examples as the model takes them."""
    x = splits.without_pictures(splits.train, model, rows)[0]
    return splits.peek(splits.train, rows, model) if x is None else x


def _count(splits: Splits, split: Split, model: keras.Model) -> int:
    return len(splits.evaluation_order(split, model))


def _free_disk(folder: pathlib.Path) -> int:
    """Bytes that are free where a folder is or would be; 0 where it cannot be written to."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(there).free if os.access(there, os.W_OK) else 0


def _free_memory() -> int:
    """Bytes of memory that nobody uses, as far as the system says: else half of all."""
    if "SC_AVPHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _platform() -> str:
    """What computes: each version and each kind of device rounds in its own way."""
    backend = keras.backend.backend()
    device = keras.distribution.list_devices()[0].split(":")[0]
    return f"{backend} {importlib.metadata.version(backend)} on {device}"
