"""Which layers of a model get an adapter: attention projections, every linear layer, patterns, or layers.

A pattern that matches nothing is an error with the nearest path, and so is a model in which a rule finds nothing.
"""

import dataclasses
import fnmatch
import re
from collections.abc import Mapping, Sequence

import keras

from keras_transfer import state
from keras_transfer.adapters.lora import LoRA
from keras_transfer.adapters.matrices import is_many_matrices, kind_of, unsuitable
from keras_transfer.adapters.places import Place, places
from keras_transfer.backbones import hub
from keras_transfer.errors import explain, nearest

# Words in the name of a projection that say nothing of which one it is: q_proj, query_dense, attention_qkv,
# in_proj_qkv.
_FILLING = {"proj", "projection", "projector", "dense", "layer", "linear", "attention", "attn", "in", "self", "c", "w"}
_ROLES = {
    "q": "query", "query": "query", "k": "key", "key": "key", "v": "value", "value": "value", "receptance": "query",
    "qkv": "fused", "q k v": "fused", "query key value": "fused", "kv": "fused", "k v": "fused", "key value": "fused",
}  # fmt: skip
_HEADS = {"logits", "predictions", "classifier", "score", "lm_head", "head"}


@dataclasses.dataclass(frozen=True, eq=False)
class Target:
    """A layer that gets an adapter, and at which rank."""

    place: Place
    rank: int

    @property
    def layer(self) -> keras.Layer:
        """The layer."""
        return self.place.layer


@dataclasses.dataclass(frozen=True, eq=False)
class Selection:
    """The layers that get an adapter; and those that a rule means as well, but that can carry none, with the reason."""

    targets: tuple[Target, ...]
    passed_over: tuple[tuple[str, str], ...] = ()


def select(model: keras.Model, spec: LoRA, *, head: Sequence[keras.Layer] = ()) -> Selection:
    """The layers of a model that a spec means, in the order of the model.

    Args:
        model: the model.
        spec: what is asked for.
        head: layers that are no part of the body, so that `"all-linear"` and `"attention"` leave them out.

    Raises:
        ValueError: where a pattern matches nothing, or only layers that can carry no adapter; where a rule finds
            nothing.

    Example:

    >>> layers = [keras.layers.Dense(4, name=name) for name in ("query", "key", "value")]
    >>> model = keras.Sequential([keras.Input((4,)), *layers])
    >>> [target.place.path for target in select(model, LoRA(targets=["query", "v*"])).targets]
    ['query', 'value']
    """
    every = places(model)
    passed_over: list[Place] = []
    if spec.targets in ("attention", "all-linear"):
        meant = attention(every) if spec.targets == "attention" else linear(every)
        outside = head_layers(model, every, head)
        meant = [place for place in meant if id(place.layer) not in outside]
        chosen = [place for place in meant if place.layer.built and not is_many_matrices(place.layer)]
        passed_over = [place for place in meant if place not in chosen]
        _check_found(chosen or meant, [place for place in every if id(place.layer) not in outside], spec, model)
    elif isinstance(spec.targets, str) or isinstance(spec.targets[0], str):
        patterns = [spec.targets] if isinstance(spec.targets, str) else spec.targets
        found = [place for pattern in patterns for place in matching(every, pattern, "targets")]
        chosen = [place for place in every if place in found]
    else:
        chosen = _given_layers(every, spec.targets, model)
    if spec.blocks is not None:
        chosen = _within_blocks(model, chosen, spec.blocks)
    _check_ranks(spec.ranks, chosen)
    return Selection(
        tuple(Target(place, _rank(place, spec)) for place in chosen),
        tuple((place.path, unsuitable(place.layer)) for place in passed_over),
    )


def attention(every: Sequence[Place]) -> list[Place]:
    """The projections to queries and to values, and those that make queries, keys and values at once.

    A layer projects when its name, or that of the attribute that holds it, says so once words like `proj` or `dense`
    are left out; a wrapper around a single linear layer lends it its name. Names alone are not enough: a query needs a
    key or a value beside it, in the same layer, to belong to attention.
    """
    roles: dict[int, list[tuple[str, Place]]] = {}
    for place in every:
        if kind_of(place.layer) in (None, keras.layers.Embedding):
            continue
        role, owner = _role(place.name), place.owner
        if role is None and place.above is not None and _is_alone(place, every):
            role, owner = _role(place.above.name), place.above.owner
        if role is not None:
            roles.setdefault(id(owner), []).append((role, place))
    found = set()
    for projections in roles.values():
        kinds = {role for role, _ in projections}
        if "fused" in kinds or len(kinds) > 1:
            found |= {id(place) for role, place in projections if role in ("query", "value", "fused")}
    return [place for place in every if id(place) in found]


def linear(every: Sequence[Place]) -> list[Place]:
    """Every Dense and EinsumDense."""
    return [place for place in every if kind_of(place.layer) in (keras.layers.Dense, keras.layers.EinsumDense)]


def head_layers(model: keras.Model, every: Sequence[Place], head: Sequence[keras.Layer] = ()) -> set[int]:
    """The ids of the layers that are no part of the body, all below them included.

    Those in `head`; those outside the `backbone` of a KerasHub task; what `blocks` calls the head; and what is called
    by a name of Keras' and KerasHub's heads (`logits`, `predictions`, …). In a bare backbone of KerasHub only the
    latter: the second tower of CLIP is no head of the first.
    """
    tops = {id(layer) for layer in head}
    bare = hub.is_body(model)
    body = getattr(model, "backbone", None)
    if isinstance(body, keras.Model) and not bare:
        inside = {id(body), *(id(layer) for layer in state.sublayers(body))}
        tops |= {id(place.layer) for place in every if id(place.layer) not in inside}
    elif not bare:
        tops |= _head_by_graph(model)
    found: set[int] = set()
    for place in every:  # from the top down
        # In a bare body, what is called `head` and made of many layers pools (SigLIP).
        named = place.name in _HEADS if place.above is None else place.name in ("logits", "lm_head")
        named = named and not (bare and kind_of(place.layer) is None)
        if id(place.layer) in tops or named or (place.above is not None and id(place.above.layer) in found):
            found.add(id(place.layer))
    return found


def matching(every: Sequence[Place], pattern: str, argument: str) -> list[Place]:
    """The places that a pattern means, among those that can carry an adapter.

    Raises:
        ValueError: where there are none, with the nearest path, or with the reason why those that match cannot.
    """
    matched = [place for place in every if matches(place, pattern)]
    able = [place for place in matched if unsuitable(place.layer) is None]
    if able:
        return able
    if matched:
        raise ValueError(
            explain(
                f"`{argument}` matches only layers that can carry no adapter.",
                given=f"{pattern!r}, which matches {_some(matched)}",
                expected="a Dense, EinsumDense, Embedding or Conv layer",
                because=unsuitable(matched[0].layer),
            )
        )
    known = {name: place.path for place in every if kind_of(place.layer) for name in _tails(place.path)}
    plain = re.sub(r"[*?\[\]]", "", pattern).strip("/")
    found = nearest(plain, known)
    raise ValueError(
        explain(
            f"`{argument}` matches no layer.",
            given=repr(pattern),
            nearest=None
            if found is None
            else repr(found) + (f", as in {known[found]}" if known[found] != found else ""),
            expected="a pattern over layer paths, matched from the right in whole names, '*' for any",
            its_layers=_some([place for place in every if kind_of(place.layer)]),
        )
    )


def matches(place: Place, pattern: str) -> bool:
    """Whether a pattern means this place: it is matched from the right, in whole names."""
    path = place.path.split("#")[0] if "#" not in pattern else place.path
    return any(fnmatch.fnmatchcase(tail, pattern) for tail in _tails(path))


def _tails(path: str) -> list[str]:
    names = path.split("/")
    return ["/".join(names[start:]) for start in range(len(names) - 1, -1, -1)]


def _role(name: str) -> str | None:
    words = [word.rstrip("0123456789") for word in re.split(r"[_.]", name.lower())]
    return _ROLES.get(" ".join(word for word in words if word and word not in _FILLING))


def _is_alone(place: Place, every: Sequence[Place]) -> bool:
    """Whether no other layer that could carry an adapter stands beside this one."""
    return not any(other.owner is place.owner and other is not place and kind_of(other.layer) for other in every)


def _head_by_graph(model: keras.Model) -> set[int]:
    """The layers of the head as `blocks` finds it; none in a model without a graph."""
    from keras_transfer.backbones import graph
    from keras_transfer.backbones.blocks import blocks

    if not graph.has_graph(model):
        return set()
    try:
        head = blocks(model).head
    except ValueError:  # a model that `blocks` cannot divide has no head that it could name
        return set()
    return {id(layer) for layer in head.layers} if head else set()


def _within_blocks(model: keras.Model, chosen: Sequence[Place], wanted: str | Sequence[str]) -> list[Place]:
    """Those that lie in the blocks that are wanted; `"top:2"` counts the blocks that hold any of `chosen`."""
    from keras_transfer.backbones.blocks import blocks

    every = blocks(model)
    held = {id(place.layer) for place in chosen}
    holding = [block for block in every if not held.isdisjoint(id(layer) for layer in block.layers)]
    selected = []
    for word in [wanted] if isinstance(wanted, str) else wanted:
        count = word.removeprefix("top:").strip()
        if not word.startswith("top:"):
            selected += every.select(word, argument="blocks")
        elif count.isdecimal() and 1 <= int(count) <= len(holding):
            selected += holding[-int(count) :]
        else:
            raise ValueError(
                explain(
                    f"`blocks` asks for blocks that {model.name} does not have.",
                    given=repr(word),
                    expected=f"'top:1' to 'top:{len(holding)}', of the blocks that hold a target",
                )
            )
    inside = {id(layer) for block in selected for layer in block.layers}
    found = [place for place in chosen if id(place.layer) in inside]
    if not found:
        raise ValueError(
            explain(
                "None of the targets lies in these blocks.",
                given=f"blocks={wanted!r}",
                expected="some of " + ", ".join(block.name for block in holding),
            )
        )
    return found


def _check_found(chosen: Sequence[Place], others: Sequence[Place], spec: LoRA, model: keras.Model) -> None:
    reasons = {place.path: unsuitable(place.layer) for place in chosen}
    refused = {path: reason for path, reason in reasons.items() if reason}
    if refused:
        path, reason = next(iter(refused.items()))
        raise ValueError(
            explain(
                f"{len(refused)} of the layers that targets={spec.targets!r} means can carry no adapter.",
                given=path,
                because=reason,
                to_mend="name those that can by patterns in `targets`",
            )
        )
    if not chosen:
        what = "no attention projections" if spec.targets == "attention" else "no linear layers outside the head"
        able = [place for place in others if kind_of(place.layer)]
        raise ValueError(
            explain(
                f"{model.name} has {what}.",
                given=f"targets={spec.targets!r}",
                its_layers=_some(able) if able else "none that could carry an adapter",
                to_mend=('targets="all-linear", or ' if spec.targets == "attention" and linear(others) else "")
                + "patterns over layer paths"
                + (f", for instance targets={able[-1].path!r}" if able else ""),
            )
        )


def _given_layers(every: Sequence[Place], layers: Sequence[keras.Layer], model: keras.Model) -> list[Place]:
    known = {id(place.layer): place for place in every}
    for layer in layers:
        reason = unsuitable(layer) if id(layer) in known else f"it is not part of {model.name}"
        if reason:
            raise ValueError(
                explain(
                    "`targets` holds a layer that can carry no adapter here.", given=repr(layer.name), because=reason
                )
            )
    wanted = {id(layer) for layer in layers}
    return [place for place in every if id(place.layer) in wanted]


def _rank(place: Place, spec: LoRA) -> int:
    ranks = {pattern: rank for pattern, rank in spec.ranks.items() if matches(place, pattern)}
    if len(set(ranks.values())) > 1:
        raise ValueError(
            explain(
                f"`ranks` gives {place.path!r} more than one rank.",
                given=ranks,
                to_mend="write patterns of which one alone matches each layer",
            )
        )
    return next(iter(ranks.values()), spec.rank)


def _check_ranks(ranks: Mapping[str, int], chosen: Sequence[Place]) -> None:
    for pattern in ranks:
        if not any(matches(place, pattern) for place in chosen):
            names = {tail for place in chosen for tail in _tails(place.path)}
            raise ValueError(
                explain(
                    "`ranks` names no layer that gets an adapter.",
                    given=repr(pattern),
                    nearest=nearest(re.sub(r"[*?\[\]]", "", pattern), names),
                    expected="a pattern that matches one of " + _some(chosen),
                )
            )


def _some(chosen: Sequence[Place]) -> str:
    paths = [place.path for place in chosen]
    return ", ".join(paths if len(paths) < 8 else [*paths[:3], "…", *paths[-3:]])
