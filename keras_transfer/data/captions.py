"""Pictures with the texts that a model is to write of them: captions, and answers to questions."""

import functools
import hashlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import keras
import numpy as np

from keras_transfer.data import reading
from keras_transfer.data.dividing import check_settings, divided
from keras_transfer.data.examples import FileExamples, PairExamples, PictureExamples
from keras_transfer.data.language import PromptSplits
from keras_transfer.data.model_inputs import input_names, required_preprocessor
from keras_transfer.data.packing import Packed, pack_prompted
from keras_transfer.data.preprocessors import takes_prompts
from keras_transfer.data.sources import Found
from keras_transfer.data.splits import Split
from keras_transfer.data.tables import captioned_table
from keras_transfer.data.text_reading import read_pairs
from keras_transfer.errors import explain

IMAGES = "images"
"""What KerasHub calls the pictures among the inputs of a model that writes."""


class CaptionedExamples(PairExamples):
    """Pictures, each with a prompt, which may be empty, and a response.

    Args:
        pictures: one for each example.
        prompts: one for each.
        responses: one for each.
        place: what a reader finds the example with this number by.
        numbers: the numbers that `place` knows the examples by; all of them, in order, if not given.
    """

    noun = "captioned picture"

    def __init__(
        self,
        pictures: PictureExamples,
        prompts: Sequence[str],
        responses: Sequence[str],
        *,
        place: Callable[[int], str],
        numbers: Sequence[int] | None = None,
    ) -> None:
        super().__init__(prompts, responses, place=place, numbers=numbers)
        self.pictures = pictures

    def inspect(self, number: int) -> tuple[bytes, str | None]:
        """(SHA-256 of picture and texts, what is wrong with one of them or `None`)."""
        of_picture, wrong_with_picture = self.pictures.inspect(number)
        of_texts, wrong_with_text = self._inspect_texts(number, may_be_empty=("prompt",))
        wrong = wrong_with_picture and f"its picture {self.pictures.describe(number)}: {wrong_with_picture}"
        return hashlib.sha256(of_picture + of_texts).digest(), wrong or wrong_with_text

    def select(self, numbers: Sequence[int]) -> Self:
        """These examples alone, in this order."""
        return type(self)(
            self.pictures.select(numbers),
            [self.prompts[number] for number in numbers],
            [self.responses[number] for number in numbers],
            place=self.place,
            numbers=[self.numbers[number] for number in numbers],
        )


class CaptionSplits(PromptSplits):
    """Captioned pictures for training, validation and test of a model that sees and writes.

    A batch has the pictures as the model's own image converter brings them to its size and scale.
    """

    def without_pictures(self, split: Split, model: keras.Model, rows: np.ndarray) -> tuple:
        x, *targets = super().without_pictures(split, model, rows)
        return {**x, IMAGES: self._pictures(split, model, rows)}, *targets

    def _pictures(self, split: Split, model: keras.Model, rows: np.ndarray) -> np.ndarray:
        converter = required_preprocessor(model).image_converter
        seen = [converter(split.examples.pictures.picture(int(row))[None].astype("float32")) for row in rows]
        return np.concatenate([np.asarray(keras.ops.convert_to_numpy(picture), "float32") for picture in seen])

    def _input_names(self, model: keras.Model, packed: Packed) -> list[str]:
        return input_names(model, packed, beside=(IMAGES,))

    def _pack(self, preprocessor: keras.Layer, split: Split, max_length: int) -> Packed:
        sees = getattr(preprocessor, "image_converter", None) is not None
        if sees and takes_prompts(preprocessor):
            prompts = [self._before_response(prompt) for prompt in split.examples.prompts]
            return pack_prompted(preprocessor, prompts, split.examples.responses, max_length)
        # The Gemmas that see have places for the picture among their tokens.
        if not sees or not hasattr(preprocessor, "text_only_model"):
            raise ValueError(
                explain(
                    f"Captions are not made for a {type(preprocessor).__name__} yet.",
                    given=f"a preprocessor of {type(preprocessor).__name__}",
                    expected="one with an image converter that makes rows of tokens: PaliGemma's or BLIP-2's",
                    to_mend="kt.add_lora(model), then Keras' own fit on what its preprocessor takes",
                )
            )
        return super()._pack(preprocessor, split, max_length)

    def view_identity(
        self, split: Split, model: keras.Model, *, epoch: int | None, seed: int | None = None
    ) -> dict[str, Any] | None:
        return {**super().view_identity(split, model, epoch=epoch, seed=seed), "pictures": split.content}


def captions(
    source: Any,
    *,
    picture: str | None = None,
    prompt: str | bool | None = None,
    caption: str | None = None,
    separator: str = "\n",
    batch_size: int = 16,
    max_length: int | None = None,
    buckets: Sequence[int] | None = None,
    validation: float = 0.2,
    test: float = 0.0,
    seed: int = 0,
    on_bad_file: str = "error",
) -> CaptionSplits:
    """Pictures with their captions, for a model of `kt.image_to_text`, which learns to write them.

    Where there are prompts too (questions about the picture, say), the model reads picture and prompt, and the loss is
    on what comes after.

    Args:
        source: one of
            - a CSV or TSV file with the columns path and caption, and perhaps prompt; paths that are not absolute
              start from its folder;
            - a folder of such tables, `train.tsv`, `val.tsv` and `test.tsv`;
            - a pair (pictures, captions): pictures as `kt.predict` takes them, paths or arrays or bytes;
            - a mapping of split name to any of these: `{"train": …, "test": …}`.
        picture: the column of the paths, if it is not called so.
        prompt: the column of the prompts, questions about the picture for instance, if it is not called so; `False`
            leaves out one that is, so that a model writes from the picture alone.
        caption: the column of the captions, if it is not called so.
        separator: what stands between prompt and caption.
        batch_size: pictures per step.
        max_length: cuts prompt and caption to so many tokens, special ones included; the model's own length if not
            given.
        buckets: the lengths to pad to, in tokens; eight that need the least padding if not given.
        validation: the part that is taken off train where the source has no validation split, or 0.
        test: the part that is taken off before, where the source has no test split.
        seed: what is held out and the order of the epochs are functions of it.
        on_bad_file: `"error"` refuses the data if any picture or row is bad; `"skip"` leaves those out and says so.

    Raises:
        ValueError: the data cannot be trained on as it is; every problem is listed.

    Example:

    >>> pictures = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), "uint8")
    >>> seen = captions((pictures, ["an ant", "a bee", "an ant", "a bee", "a bee"]), batch_size=2)
    >>> len(seen.train), seen.peek(seen.train, [0]).tolist()
    (4, ['an ant'])
    """
    check_settings(validation, test, seed, on_bad_file)
    columns = {"path": picture, **({} if prompt is False else {"prompt": prompt}), "caption": caption}
    found = read_pairs(
        source, ("picture", "caption"), table=functools.partial(_table, columns=columns), lists=_examples
    )
    parts = divided(found, validation=validation, test=test, seed=seed, skip=on_bad_file == "skip")
    return CaptionSplits(
        parts, separator=separator, batch_size=batch_size, max_length=max_length, buckets=buckets, seed=seed
    )


def _examples(pictures: Any, texts: Sequence[str]) -> CaptionedExamples:
    seen = reading.pictures(pictures)
    return CaptionedExamples(seen, [""] * len(seen), list(texts), place=seen.describe)


def _table(path: pathlib.Path, columns: Mapping[str, str | None]) -> Found:
    def examples(cells: dict[str, list[str]], place: Callable[[int], str]) -> CaptionedExamples:
        files = [path.parent / pathlib.Path(cell.strip()).expanduser() for cell in cells["path"]]
        prompts = cells.get("prompt", [""] * len(files))
        return CaptionedExamples(FileExamples(files, [""] * len(files)), prompts, cells["caption"], place=place)

    return captioned_table(path, columns, examples)
