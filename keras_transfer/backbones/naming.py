"""From segments of a graph to the blocks that people speak of: what belongs together, and what it is called."""

import collections
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import keras

from keras_transfer import state
from keras_transfer.backbones.graph import Part, is_normalisation
from keras_transfer.backbones.segments import Segment

_RESERVED = ("head", "all")


def named_blocks(segments: Sequence[Segment], shapes: Mapping[int, tuple]) -> list[tuple[str, Segment]]:
    """Merges segments until each is a block, and names the blocks; names are unique.

    A segment without weights joins a neighbour, and so does one that only normalises; lookup tables make one block with
    those beside them; a depthwise convolution is half of one, and joins what follows it. Then neighbours with the same
    spoken name are one block: `block_1_expand`, `block_1_depthwise` and `block_1_project` are `block_1`, but
    `block1_conv1` and `block1_conv2` are numbered themselves and stay two. Names that Keras made up (`conv2d_3`) say
    nothing, and join nothing; they are counted anew, since Keras counts on from one model to the next.

    Args:
        segments: of a body, bottom to top, at least one of them with weights.
        shapes: of the tensors between them, by number.
    """

    def rank(segment: Segment) -> int:
        return max(len(shapes[number]) for number in segment.cut)

    merged = _join(list(segments), lambda segment: not _weighted_layers(segment), rank)
    merged = _join(merged, _only_normalises, rank)
    merged = _merge_neighbours(merged, lambda lower, upper: _only_looks_up(lower) and _only_looks_up(upper))
    merged = _merge_neighbours(merged, lambda lower, upper: _is_depthwise(lower))
    spoken = _units([_tokens(segment) for segment in merged])
    names, blocks = [], []
    for segment, tokens in zip(merged, spoken, strict=True):
        if tokens and names and names[-1] == tokens:
            blocks[-1] += segment
        else:
            names.append(tokens)
            blocks.append(segment)
    recounted = _recounted(blocks)
    titles = []
    for tokens, segment in zip(names, blocks, strict=True):
        first = min(segment.parts, key=_says_little)
        titles.append("_".join(tokens) or recounted.get(id(first.operation), first.name))
    return list(zip(_unique(titles), blocks, strict=True))


# What belongs together


def _join(
    segments: list[Segment], is_loose: Callable[[Segment], bool], rank: Callable[[Segment], int]
) -> list[Segment]:
    """Each loose segment joined to the neighbour with which it shares more of its name; in doubt to the lower one.

    Padding prepares what comes above it and joins that; so does what takes axes away, or leaves more tensors alive.
    """
    joined: list[Segment] = []
    pending: Segment | None = None  # what waits to join the next one
    for place, segment in enumerate(segments):
        above = segments[place + 1] if place + 1 < len(segments) else None
        if pending is not None:
            segment, pending = pending + segment, None
        if not is_loose(segment):
            joined.append(segment)
        elif above is not None and (not joined or _leans_up(joined[-1], segment, above, rank)):
            pending = segment
        elif joined:
            joined[-1] += segment
        else:
            joined.append(segment)
    return joined


def _leans_up(lower: Segment, segment: Segment, upper: Segment, rank: Callable[[Segment], int]) -> bool:
    up, down = _shared(segment, upper), _shared(segment, lower)
    pads = all("Padding" in type(part.operation).__name__ for part in segment.parts)
    widens = len(segment.cut) > len(lower.cut)
    return up > down or rank(segment) < rank(lower) or widens or (up == down and pads)


def _shared(one: Segment, other: Segment) -> int:
    names = [_split(part.name) for segment in (one, other) for part in segment.parts[:1] if not _is_made_up(part)]
    return len(_common_prefix(names)) if len(names) == 2 else 0


def _merge_neighbours(segments: list[Segment], belong_together) -> list[Segment]:
    merged = segments[:1]
    for segment in segments[1:]:
        if belong_together(merged[-1], segment):
            merged[-1] += segment
        else:
            merged.append(segment)
    return merged


def _weighted_layers(segment: Segment) -> list[keras.Layer]:
    return [layer for part in segment.parts if part.weighted for layer in part.layers if state.own_variables(layer)]


def _only_normalises(segment: Segment) -> bool:
    return all(is_normalisation(layer) for layer in _weighted_layers(segment))


def _only_looks_up(segment: Segment) -> bool:
    return all("Embedding" in type(layer).__name__ or is_normalisation(layer) for layer in _weighted_layers(segment))


def _is_depthwise(segment: Segment) -> bool:
    working = [layer for layer in _weighted_layers(segment) if not is_normalisation(layer)]
    kinds = keras.layers.DepthwiseConv1D | keras.layers.DepthwiseConv2D
    return bool(working) and all(isinstance(layer, kinds) for layer in working)


# What it is called


def _split(name: str) -> list[str]:
    return [token for token in re.split(r"[_/.]", name) if token]


def _common_prefix(names: Sequence[list[str]]) -> list[str]:
    shared = []
    for tokens in zip(*names, strict=False):
        if len(set(tokens)) > 1:
            break
        shared.append(tokens[0])
    return shared


def _bears_number(tokens: Iterable[str]) -> bool:
    return any(character.isdigit() for token in tokens for character in token)


def _tokens(segment: Segment) -> list[str]:
    """What the names in a segment have in common, as words; nothing where Keras made them up."""
    given = [part for part in segment.parts if not _is_made_up(part)]
    weighted = [part for part in given if part.weighted]
    every = _in_common(weighted or given, given)
    if _bears_number(every):
        return every
    working = [part for part in weighted if not _says_little(part)]
    if weighted and not working and any(part.weighted and not _says_little(part) for part in segment.parts):
        return []  # only what normalises has a name
    some = _in_common(working, given)
    if len(working) > 1 and _bears_number(some):
        return some
    return every or some or (_split(given[-1].name) if given else [])


def _in_common(parts: Sequence[Part], given: Sequence[Part]) -> list[str]:
    names = [_split(part.name) for part in parts]
    prefix = _common_prefix(names)
    if len(names) < 2 or _bears_number(prefix):
        return prefix
    rest = [list(reversed(tokens[len(prefix) :])) for tokens in names]
    suffix = list(reversed(_common_prefix(rest)))
    if not prefix and suffix and suffix[0].isdigit():
        # A bare number ("0", the first cell of NASNet) is no name: with the first word of the last part it is one.
        return [_split(given[-1].name)[0], *suffix]
    return prefix + suffix if _bears_number(suffix) or not prefix else prefix


def _units(names: Sequence[list[str]]) -> list[list[str]]:
    """For each name, the beginning of it that says which block is meant."""
    if len(names) > 1 and all(names):  # the model's name, in front of every layer's
        shared = len(_common_prefix(names))
        while shared and any(len(tokens) <= shared or tokens[shared][0].isdigit() for tokens in names):
            shared -= 1
        names = [tokens[shared:] for tokens in names]
    return [_unit(tokens, names) for tokens in names]


def _unit(tokens: list[str], names: Sequence[list[str]]) -> list[str]:
    for length in range(1, len(tokens)):
        prefix, following = tokens[:length], tokens[length]
        siblings = _next_words(prefix, names)
        says_which = _bears_number(prefix) or (length > 1 and (len(siblings) > 1 or prefix in names))
        if (
            says_which
            and not _is_numbered(following, siblings)
            and not (len(siblings) == 1 and _is_series(_next_words([*prefix, following], names)))
        ):
            return prefix
    return tokens


def _next_words(prefix: list[str], names: Sequence[list[str]]) -> set[str]:
    return {tokens[len(prefix)] for tokens in names if tokens[: len(prefix)] == prefix and len(tokens) > len(prefix)}


def _is_series(words: set[str]) -> bool:
    return len(words) > 1 and all(_is_numbered(word, words) for word in words)


def _is_numbered(token: str, siblings: Iterable[str]) -> bool:
    """Whether a word is one of a series: `3`, or `conv3` beside `conv1`."""
    stem = token.rstrip("0123456789")
    series = {other for other in siblings if other.rstrip("0123456789") == stem != other}
    return token != stem and (not stem or len(series) > 1)


def _is_made_up(part: Part) -> bool:
    return _made_up_number(part) is not None


def _made_up_number(part: Part) -> int | None:
    """The number in a name that Keras made of the class: 3 in `conv2d_3`, 0 in `conv2d`; `None` for a given name."""
    kind = re.sub(r"\W+", "", type(part.operation).__name__)
    kind = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", kind)
    kind = re.sub("([a-z])([A-Z])", r"\1_\2", kind).lower()
    found = re.fullmatch(rf"{kind}(?:_(\d+))?", part.name)
    return None if found is None else int(found[1] or 0)


def _says_little(part: Part) -> int:
    """How little a part says of its block: least a layer without weights, then one that normalises."""
    return (not part.weighted) + all(is_normalisation(layer) or not state.own_variables(layer) for layer in part.layers)


def _recounted(segments: Sequence[Segment]) -> dict[int, str]:
    """For each operation whose name Keras made up, the name that it would have in a fresh process."""
    by_kind = collections.defaultdict(dict)
    for place, part in enumerate(part for segment in segments for part in segment.parts if _is_made_up(part)):
        kind = re.sub(r"_\d+$", "", part.name)
        by_kind[kind].setdefault(id(part.operation), (_made_up_number(part), place))
    return {
        key: f"{kind}_{count}" if count else kind
        for kind, numbers in by_kind.items()
        for count, key in enumerate(sorted(numbers, key=numbers.get))
    }


def _unique(titles: Sequence[str]) -> list[str]:
    given: list[str] = []
    for title in titles:
        title = f"{title}_block" if title in _RESERVED else title
        name, count = title, 1
        while name in given:
            count += 1
            name = f"{title}_{count}"
        given.append(name)
    return given
