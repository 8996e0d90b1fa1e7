"""The matrix that a layer multiplies by, whatever its kernel's shape: how to lay two thin factors beside it.

LoRA (Hu et al. 2021, arXiv:2106.09685) speaks of a matrix W of shape (in, out) and an update s · A · B with A (in, r)
and B (r, out). Here is how the kernel of each kind of layer is that W, so that the counts and shapes are those of the
paper and of PEFT; and how (x A) B is computed without ever making A B.
"""

import abc
import math

import keras
from keras import ops

from keras_transfer.adapters import keras_internals
from keras_transfer.errors import explain

LAYOUTS = ("paper", "keras")


class Matrix(abc.ABC):
    """The kernel of one layer as a matrix (`d_in`, `d_out`), and the two factors beside it.

    Attributes:
        kernel_shape: the kernel's shape, as it is before any packing.
        d_in: rows, the numbers that one output depends on.
        d_out: columns, the outputs.
    """

    kernel_shape: tuple[int, ...]
    d_in: int
    d_out: int

    def shapes(self, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shapes of A and B at this rank."""
        return (self.d_in, rank), (rank, self.d_out)

    def count(self, rank: int) -> int:
        """How many numbers the two factors are."""
        return sum(math.prod(shape) for shape in self.shapes(rank))

    @abc.abstractmethod
    def beside(self, inputs, a, b):
        """(x A) B, in the shape of the layer's output."""

    def update(self, a, b):
        """A B in the shape of the kernel: for merging, never on the way forward."""
        return self.nested(ops.matmul(*self.flat_factors(a, b)))

    def flat(self, kernel):
        """A tensor in the shape of the kernel, as (`d_in`, `d_out`)."""
        return ops.reshape(kernel, (self.d_in, self.d_out))

    def nested(self, matrix):
        """The reverse of `flat`."""
        return ops.reshape(matrix, self.kernel_shape)

    def flat_factors(self, a, b):
        """The factors as (`d_in`, r) and (r, `d_out`)."""
        return a, b

    @abc.abstractmethod
    def over_outputs(self, columns):
        """One number per column, shaped so that it can be multiplied with the layer's output."""


class DenseMatrix(Matrix):
    """`keras.layers.Dense`: the kernel is the matrix."""

    def __init__(self, layer: keras.layers.Dense) -> None:
        self.d_in, self.d_out = int(layer.input_spec.axes[-1]), layer.units
        self.kernel_shape = (self.d_in, self.d_out)

    def beside(self, inputs, a, b):
        return ops.matmul(ops.matmul(inputs, a), b)

    def over_outputs(self, columns):
        return columns


class EinsumMatrix(Matrix):
    """`keras.layers.EinsumDense`: the axes that are summed over are the rows, the others the columns.

    Both in the order in which the kernel has them: an attention kernel (d, heads, head_dim) is the (d, heads ·
        head_dim)
    matrix that the paper, PEFT and Hugging Face's models mean.
    """

    def __init__(self, layer: keras.layers.EinsumDense) -> None:
        self.kernel_shape = einsum_kernel_shape(layer)
        self._read, self._labels, self._written = _terms(layer.equation)
        self._rows = "".join(label for label in self._labels if label not in self._written)
        self._columns = "".join(label for label in self._labels if label not in self._read)
        sizes = dict(zip(self._labels, self.kernel_shape, strict=True))
        self._row_sizes = tuple(sizes[label] for label in self._rows)
        self._column_sizes = tuple(sizes[label] for label in self._columns)
        self.d_in, self.d_out = math.prod(self._row_sizes), math.prod(self._column_sizes)
        self._rank = next(letter for letter in "rzyxwvutsqponmlkjihgfedcba" if letter not in layer.equation)

    def beside(self, inputs, a, b):
        rank = a.shape[-1]
        a = ops.reshape(a, (*self._row_sizes, rank))
        b = ops.reshape(b, (rank, *self._column_sizes))
        thin = "".join(label for label in self._read if label not in self._rows) + self._rank
        hidden = ops.einsum(f"{self._read},{self._rows}{self._rank}->{thin}", inputs, a)
        return ops.einsum(f"{thin},{self._rank}{self._columns}->{self._written}", hidden, b)

    def flat(self, kernel):
        order = [self._labels.index(label) for label in self._rows + self._columns]
        return ops.reshape(ops.transpose(kernel, order), (self.d_in, self.d_out))

    def nested(self, matrix):
        labels = self._rows + self._columns
        unfolded = ops.reshape(matrix, (*self._row_sizes, *self._column_sizes))
        return ops.transpose(unfolded, [labels.index(label) for label in self._labels])

    def over_outputs(self, columns):
        written = self._written.replace("...", "")
        found = "".join(label for label in written if label in self._columns)
        if found != self._columns or "..." in self._written[1:]:
            raise ValueError(
                explain(
                    "DoRA scales the outputs of a layer; this one writes them in another order than its kernel has.",
                    given=f"the equation {self._read},{self._labels}->{self._written}",
                    to_mend="use dora=False, or leave the layer out of `targets`",
                )
            )
        sizes = dict(zip(self._columns, self._column_sizes, strict=True))
        shape = [sizes.get(label, 1) for label in written]
        return ops.reshape(columns, shape[written.index(self._columns[0]) :])


class EinsumLastAxis(EinsumMatrix):
    """`keras.layers.EinsumDense` as Keras' own `enable_lora` splits it: along the kernel's last axis.

    A is (d, heads, r) and B (r, head_dim), one B for all heads: six times the numbers of the paper at 12 heads.
    """

    def shapes(self, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return (*self.kernel_shape[:-1], rank), (rank, self.kernel_shape[-1])

    def beside(self, inputs, a, b):
        last, rank = self._labels[-1], self._rank
        others = self._labels[:-1]
        if last in self._columns:
            thin = self._written.replace(last, rank)
            hidden = ops.einsum(f"{self._read},{others}{rank}->{thin}", inputs, a)
            return ops.einsum(f"{thin},{rank}{last}->{self._written}", hidden, b)
        thin = self._read.replace(last, rank)
        hidden = ops.einsum(f"{self._read},{rank}{last}->{thin}", inputs, b)
        return ops.einsum(f"{thin},{others}{rank}->{self._written}", hidden, a)

    def update(self, a, b):
        return ops.matmul(a, b)

    def flat_factors(self, a, b):
        raise ValueError(
            explain(
                "Keras' factors of an EinsumDense are not those of a matrix.",
                given=f"A {tuple(a.shape)}, B {tuple(b.shape)}",
                to_mend='use factors="paper"',
            )
        )


class EmbeddingMatrix(Matrix):
    """`keras.layers.Embedding`: the table is the matrix, and looking up a row is a product with it.

    Where the table is also used backwards, to give logits (tied weights), the adapter counts there too: it is one
    matrix.
    """

    def __init__(self, layer: keras.layers.Embedding) -> None:
        self.d_in, self.d_out = layer.input_dim, layer.output_dim
        self.kernel_shape = (self.d_in, self.d_out)

    def beside(self, inputs, a, b):
        return ops.matmul(ops.take(a, ops.cast(inputs, "int32"), axis=0), b)

    def beside_backwards(self, inputs, a, b):
        """(x Bᵀ) Aᵀ: the product with the transposed table."""
        return ops.matmul(ops.matmul(inputs, ops.transpose(b)), ops.transpose(a))

    def over_outputs(self, columns):
        return columns


class ConvMatrix(Matrix):
    """`keras.layers.Conv1D`, `Conv2D`, `Conv3D`: the rows are places times input channels, the columns the filters.

    A is a convolution with r filters of the same size, B one of size 1, as PEFT has it. With groups, all groups share
    A.
    """

    def __init__(self, layer: keras.Layer) -> None:
        self._layer = layer
        self.kernel_shape = tuple(keras_internals.kernel(layer).shape)
        self.d_in, self.d_out = math.prod(self.kernel_shape[:-1]), self.kernel_shape[-1]

    def shapes(self, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return (*self.kernel_shape[:-1], rank), (rank, self.d_out)

    def beside(self, inputs, a, b):
        groups, rank = self._layer.groups, a.shape[-1]
        if groups > 1:
            a = ops.tile(a, [1] * (len(self.kernel_shape) - 1) + [groups])
        hidden = self._convolve(inputs, a)
        last = self._layer.data_format == "channels_last"
        if not last:
            hidden = ops.moveaxis(hidden, 1, -1)
        if groups > 1:
            hidden = ops.reshape(hidden, (*ops.shape(hidden)[:-1], groups, rank))
            b = ops.reshape(b, (rank, groups, self.d_out // groups))
            outputs = ops.einsum("...gr,rgf->...gf", hidden, b)
            outputs = ops.reshape(outputs, (*ops.shape(outputs)[:-2], self.d_out))
        else:
            outputs = ops.matmul(hidden, b)
        return outputs if last else ops.moveaxis(outputs, -1, 1)

    def _convolve(self, inputs, kernel):
        """The layer's own convolution, with another kernel and nothing after it."""
        plain = keras_internals.view(
            self._layer,
            type(self._layer)._stock,
            _kernel=kernel,
            use_bias=False,
            activation=None,
            filters=kernel.shape[-1],
        )
        return plain.call(inputs)

    def flat_factors(self, a, b):
        return ops.reshape(a, (self.d_in, a.shape[-1])), b

    def over_outputs(self, columns):
        if self._layer.data_format == "channels_last":
            return columns
        return ops.reshape(columns, (self.d_out, *[1] * (len(self.kernel_shape) - 2)))


_KINDS = {
    keras.layers.Dense: DenseMatrix,
    keras.layers.EinsumDense: EinsumMatrix,
    keras.layers.Embedding: EmbeddingMatrix,
    keras.layers.Conv1D: ConvMatrix,
    keras.layers.Conv2D: ConvMatrix,
    keras.layers.Conv3D: ConvMatrix,
}
_CARRY_ADAPTERS_THEMSELVES = (None, "int8", "int4")
_WHY_NOT = {
    "awq": "Keras accepts an adapter on an AWQ layer and never applies it",
    "gptq": "Keras has no adapters for GPTQ layers",
    "float8": "Keras' float8 forward pass refuses adapters",
}


def matrix(layer: keras.Layer, layout: str = "paper") -> Matrix:
    """The matrix of a layer for which `unsuitable` has nothing to say.

    Args:
        layer: a built Dense, EinsumDense, Embedding or Conv layer.
        layout: `"paper"`, or `"keras"` for the shapes of the layer's own `enable_lora`.

    Example:

    >>> layer = keras.layers.EinsumDense("abc,cde->abde", (None, 12, 64))
    >>> layer.build((None, None, 768))
    >>> matrix(layer).shapes(8), matrix(layer).count(8)
    (((768, 8), (8, 768)), 12288)
    >>> matrix(layer, "keras").shapes(8), matrix(layer, "keras").count(8)
    (((768, 12, 8), (8, 64)), 74240)
    """
    if layout == "keras" and isinstance(layer, keras.layers.EinsumDense):
        return EinsumLastAxis(layer)
    return _KINDS[kind_of(layer)](layer)


def kind_of(layer: keras.Layer) -> type[keras.Layer] | None:
    """The kind of layer, among those that can carry an adapter, that this is; `None` for all others."""
    return next((kind for kind in _KINDS if isinstance(layer, kind)), None)


def unsuitable(layer: keras.Layer) -> str | None:
    """Why a layer cannot carry an adapter, or `None` where it can."""
    kind = kind_of(layer)
    if kind is None:
        return f"{type(layer).__name__} has no matrix that could be split into two thin ones"
    if not layer.built:
        return "it is not built, so that its shape is not known: call the model once"
    if layer.quantization_mode not in _CARRY_ADAPTERS_THEMSELVES:
        return _WHY_NOT.get(layer.quantization_mode, f"quantisation {layer.quantization_mode!r} is not known here")
    stock = getattr(type(layer), "_stock", type(layer))
    if not stock.__module__.startswith(("keras.", "keras_hub.")) and "call" in vars(stock):
        return f"{stock.__name__} has a `call` of its own, and what it does with its kernel is not known"
    if getattr(layer, "kernel_constraint", None) or getattr(layer, "embeddings_constraint", None):
        return "a constraint on its kernel would not hold for the kernel with an adapter"
    if is_many_matrices(layer):
        return f"{layer.equation} multiplies by many matrices, one for each entry of a shared axis"
    if kind is keras.layers.EinsumDense:
        read, labels, written = _terms(layer.equation)
        if not any(label in read for label in labels) or not any(label in written for label in labels):
            return f"{layer.equation} is no product with a matrix"
    return None


def is_many_matrices(layer: keras.Layer) -> bool:
    """Whether an EinsumDense has a matrix for each entry of an axis that its input and output share."""
    if not isinstance(layer, keras.layers.EinsumDense):
        return False
    read, labels, written = _terms(layer.equation)
    return any(label in read and label in written for label in labels)


def einsum_kernel_shape(layer: keras.layers.EinsumDense) -> tuple[int, ...]:
    """The shape of the kernel as the equation speaks of it; a 4-bit one is kept packed and flat."""
    if layer.quantization_mode == "int4":
        return tuple(layer.original_kernel_shape)
    return tuple(keras_internals.kernel(layer).shape)


def _terms(equation: str) -> tuple[str, str, str]:
    """The labels of input, kernel and output."""
    operands, written = equation.replace(" ", "").split("->")
    read, labels = operands.split(",")
    return read, labels, written
