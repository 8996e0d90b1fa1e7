"""What an adapter is on a model, to be printed and to be counted."""

import dataclasses
import math
from collections.abc import Sequence

import keras

from keras_transfer.formatting import counted, table_with_total


@dataclasses.dataclass(frozen=True)
class Row:
    """One adapted layer.

    Attributes:
        path: where it is in the model.
        kind: the class of the layer, with its quantisation where it has one.
        kernel_shape: the shape of its kernel.
        rank: columns of A, rows of B.
        parameters: how many numbers the adapter has there.
    """

    path: str
    kind: str
    kernel_shape: tuple[int, ...]
    rank: int
    parameters: int


@dataclasses.dataclass(frozen=True)
class AdapterTable(Sequence):
    """The layers that carry one adapter, and what it trains besides. Printed, a table.

    Attributes:
        name: the adapter's.
        rows: one for each layer, in the order of the model.
        beside: what trains besides the factors: (path, shape) of each variable.
        model_parameters: numbers of the whole model without any adapter.
        passed_over: layers that `"attention"` or `"all-linear"` means but that carry no adapter: (path, why).
    """

    name: str
    rows: tuple[Row, ...]
    beside: tuple[tuple[str, tuple[int, ...]], ...]
    model_parameters: int
    passed_over: tuple[tuple[str, str], ...] = ()

    @property
    def parameters(self) -> int:
        """Numbers in the factors."""
        return sum(row.parameters for row in self.rows)

    @property
    def trainable_parameters(self) -> int:
        """Numbers that train: those of the factors, and those beside them."""
        return self.parameters + sum(math.prod(shape) for _, shape in self.beside)

    def __getitem__(self, place):
        return self.rows[place]

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        cells = [("adapted layer", "kind", "kernel", "rank", "parameters")]
        cells += [
            (row.path, row.kind, _shape(row.kernel_shape), str(row.rank), f"{row.parameters:,}") for row in self.rows
        ]
        cells.append((counted(len(self.rows), "layer"), "", "", "", f"{self.parameters:,}"))
        lines = table_with_total(cells, words=(0, 1, 2))
        share = self.trainable_parameters / max(1, self.model_parameters)
        if self.beside:
            lines.append(f"beside them: {_brief(self.beside)}")
        if self.passed_over:
            path, why = self.passed_over[0]
            more = f" and {len(self.passed_over) - 1} more" if len(self.passed_over) > 1 else ""
            lines.append(f"passed over: {path}{more}, because {why}")
        lines.append(f"adapter {self.name!r} trains {self.trainable_parameters:,} numbers, {share:.2%} of the model's")
        return "\n".join(lines)


def kind(layer: keras.Layer) -> str:
    """What a layer is called in the table."""
    return type(layer).__name__ + (f" {layer.quantization_mode}" if layer.quantization_mode else "")


def _brief(beside: Sequence[tuple[str, tuple[int, ...]]]) -> str:
    paths = [path for path, _ in beside]
    count = sum(math.prod(shape) for _, shape in beside)
    shown = ", ".join(paths if len(paths) < 5 else [*paths[:3], f"… ({len(paths)} variables)"])
    return f"{shown}: {count:,}"


def _shape(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"
