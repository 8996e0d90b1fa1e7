import dataclasses
import functools

import bodies
import keras
import numpy as np
import pytest
from bodies import dark_and_light, pictures
from figures import assert_a_picture, assert_legible, words
from readers import text_classifier

import keras_transfer as kt
from keras_transfer import state
from keras_transfer.data.splits import Split
from keras_transfer.study.adaptation import measures, pairs
from keras_transfer.study.adaptation.domains import without_labels
from keras_transfer.study.adaptation.measures import gap
from keras_transfer.study.adaptation.pairs import entry_of_head
from keras_transfer.study.domain_shift import shift_between
from keras_transfer.training.batch_statistics import re_estimate

ONE_EPOCH = kt.Stage("all", epochs=1, learning_rate=1e-3, batch_norm="adapt")


def _source(count=40, **options):
    """32 pictures to train on and 8 to validate: no batch is smaller than the others."""
    return dark_and_light(count, **options)


def _target(**options):
    """More of the same."""
    return dark_and_light(80, **options)


# A stem and one block, each with a batch norm.
classifier = functools.partial(bodies.classifier, depth=1)


class _Sealed(Split):
    """A split whose labels nobody may look at."""

    def __init__(self, split):
        self.name, self.classes, self.examples, self.digests = split.name, split.classes, split.examples, split.digests

    @property
    def labels(self):
        raise AssertionError("somebody looked at the labels")


def _sealed():
    """A target whose labels nobody may look at."""
    target = _target()
    target.train, target.validation = _Sealed(target.train), _Sealed(target.validation)
    with pytest.raises(AssertionError, match="somebody looked"):
        target.fingerprint  # noqa: B018
    return target


def test_what_is_left_of_the_target_has_no_labels_classes_or_other_splits():
    target = _target()
    blind = without_labels(classifier(), target)
    assert (blind.classes, blind.validation, blind.test) == ((), None, None)
    assert blind.train.labels.tolist() == [0] * len(target.train)
    assert target.classes == ("dark", "light")
    assert target.train.labels.sum() > 0


@pytest.mark.parametrize("method", ["coral", pytest.param("adversarial", marks=pytest.mark.both_backends)])
def test_methods_that_train_leave_a_plain_model_and_look_at_no_label_of_the_target(method, tmp_path, monkeypatch):
    model, x = classifier(), pictures(8)
    traced, train_step = [], keras.Model.train_step
    monkeypatch.setattr(keras.Model, "train_step", lambda self, *data: traced.append(self) or train_step(self, *data))
    found = kt.adapt(model, _source(), _sealed(), method, stage=ONE_EPOCH, verbose=False)
    assert found.model is model
    assert set(found.history[0]) >= {"loss", "logits_loss", "penalty_loss", "logits_accuracy"}
    assert len(traced) == 1
    model.save(tmp_path / "adapted.keras")
    opened = keras.saving.load_model(tmp_path / "adapted.keras")
    np.testing.assert_allclose(opened.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5, atol=1e-5)
    assert not any("adversary" in path or "paired" in path for path in (i.path for i in state.identities(model)))


def test_a_stage_may_be_sharpness_aware():
    kernels = []
    for sam in (0.0, 5.0):
        keras.utils.set_random_seed(0)
        model = classifier()
        stage = dataclasses.replace(ONE_EPOCH, sam=sam)
        kt.adapt(model, _source(), _sealed(), "coral", stage=stage, verbose=False)
        kernels.append(np.array(model.get_layer("head").kernel.numpy()))
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-5


@pytest.mark.both_backends
def test_statistics_make_up_for_pictures_that_are_dimmed():
    source = dark_and_light(120)
    dim = [0.3 * source.peek(source.train, [number], classifier())[0] for number in range(len(source.train))]
    model = classifier()
    found = kt.adapt(model, source, dim, verbose=False)
    # Not zero: the padding at the edges is as dark as ever, whatever the pictures are.
    assert found.after.gap.means < 0.2 * found.before.gap.means
    # Dimmed, everything is taken for dark.
    assert found.before.shares == (1.0, 0.0)
    right = kt.predict(model, np.array(dim)).argmax(-1) == source.train.labels
    assert right.mean() > 0.95


def test_features_alone_are_aligned_by_the_head_and_nothing_else_moves():
    model, source = classifier(), dark_and_light(120)
    before = {i.path: v for i, v in zip(state.identities(model), state.values(model), strict=True)}
    found = kt.adapt(model, source, 0.3 * pictures(32), align="features", verbose=False)
    moved = {
        i.path
        for i, v in zip(state.identities(model), state.values(model), strict=True)
        if not np.array_equal(before[i.path], v)
    }
    assert moved == {"head/kernel", "head/bias"}
    assert gap(*found.after.features).means == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("align", ["features", "batch_norm", "both"])
def test_domains_that_were_aligned_are_judged_on_examples_that_had_no_part_in_it(align, monkeypatch):
    """On those that had, a classifier is wrong more often than a guess, and the distance of any domains is 0."""
    right = []

    def look(*args, **options):
        found = shift_between(*args, **options)
        right.append(found.right)
        return found

    monkeypatch.setattr(measures, "shift_between", look)
    model, source = classifier(), dark_and_light(120)
    found = kt.adapt(model, source, 0.3 * pictures(80), align=align, verbose=False)
    before, after = right[:2], right[2:]
    assert len(after) == 2
    assert np.mean(before) > 0.9
    assert min(after) > 0.35
    assert found.after.gap.proxy_a == pytest.approx(np.mean([max(0, 4 * each - 2) for each in after]))
    if align != "batch_norm":  # whose statistics are those of maps, not of the features that come of them
        on_its_own = shift_between(*found.after.features, ("source", "target")).right
        assert on_its_own < min(after), "that is what is not to be reported"


def test_statistics_look_at_no_label_of_the_target_and_are_left_by_measuring_the_gap():
    model, target = classifier(), _sealed()
    adapted = kt.adapt(model, _source(), target, verbose=False)
    assert sum(adapted.after.shares) == pytest.approx(1)
    found = state.values(model)
    re_estimate(model, without_labels(model, target))
    for one, expected in zip(found, state.values(model), strict=True):
        np.testing.assert_array_equal(one, expected)


def test_a_kept_head_is_the_one_that_was_given():
    model = classifier()
    kernel = model.get_layer("head").kernel.numpy()
    found = kt.adapt(model, _source(), 0.3 * pictures(32), head="kept", verbose=False)
    np.testing.assert_array_equal(model.get_layer("head").kernel.numpy(), kernel)
    assert found.steps == ("the statistics of 2 batch norms are those of 32 examples of the target",)


def test_with_frozen_batch_norms_a_stage_moves_no_statistics():
    model = classifier()
    stage = kt.Stage("top:1", epochs=1)
    before = {i.path: v for i, v in zip(state.identities(model), state.values(model), strict=True)}
    kt.adapt(model, _source(), _target(), "coral", stage=stage, verbose=False)
    moved = {
        i.path
        for i, v in zip(state.identities(model), state.values(model), strict=True)
        if "seed" not in i.path and not np.array_equal(before[i.path], v)
    }
    assert moved == {"block1_conv/kernel", "block1_conv/bias", "head/kernel", "head/bias"}


def _moved_by(**options):
    """How far a stage at a constant rate moves the lowest kernel, and what it did: by its least steps."""
    keras.utils.set_random_seed(0)
    model = classifier()
    kernel = model.get_layer("residual").get_layer("stem_conv").kernel
    before = kernel.numpy()
    stage = kt.Stage("all", 3, learning_rate=2e-3, batch_norm="adapt", least_steps=13, **options)
    found = kt.adapt(model, _source(), _target(), "coral", stage=stage, head="kept", verbose=False)
    return float(np.abs(kernel.numpy() - before).mean()), found


@pytest.fixture(scope="module")
def free():
    return _moved_by()


def test_a_stage_that_pulls_holds_the_weights_where_they_were(free):
    held, _ = _moved_by(l2_sp=400.0)
    assert free[0] > 1e-3
    assert held < free[0] / 2


def test_a_stage_takes_its_least_steps(free):
    found, steps = free[1], _source().steps_per_epoch()
    assert len(found.history) == -(-13 // steps) > 3
    assert f"{len(found.history)} epochs of stage 'all' on both domains" in found.steps


def test_a_stage_that_augments_more_strongly_does_so_in_both_domains(monkeypatch):
    seen = []
    whole = pairs._together
    monkeypatch.setattr(
        pairs,
        "_together",
        lambda one, other, *rest: seen.append((one.augment, other.augment)) or whole(one, other, *rest),
    )
    source, model = _source(20, augment="light"), classifier()
    for augment in ("as given", "stronger"):
        stage = kt.Stage("top:1", 1, augment=augment)
        kt.adapt(model, source, pictures(8), "coral", stage=stage, head="kept", verbose=False)
    # Each time twice: to measure what the penalty costs at first, and to train.
    assert seen == [("light", "light")] * 2 + [("strong", "strong")] * 2


@pytest.mark.parametrize("batch_norm", ["adapt", "frozen"])
def test_the_penalty_of_coral_is_counted_in_what_a_batch_costs_at_first(batch_norm):
    source, model = _source(120), classifier()
    same = source.peek(source.train, range(len(source.train)), model)
    stage = kt.Stage("all", 1, learning_rate=1e-9, batch_norm=batch_norm)
    for target, least in ((0.3 * same, 0.5), (same, 0.2)):
        before = state.values(model)
        found = kt.adapt(model, source, target, "coral", stage=stage, head="kept", verbose=False)
        assert least < found.history[0]["penalty_loss"] < 2
        state.assign(model, before)


def test_measuring_the_distance_leaves_the_model_as_it_is():
    model, source = classifier(), dark_and_light(120)
    before = state.values(model)
    target = without_labels(model, 0.3 * pictures(32), like=source)
    far, by_chance = pairs.distances(model, source, target, ONE_EPOCH, seed=0)
    near, _ = pairs.distances(model, source, without_labels(model, source), ONE_EPOCH, seed=0)
    assert far > 2 * by_chance > 0
    assert near < 3 * by_chance
    for one, other in zip(before, state.values(model), strict=True):
        np.testing.assert_array_equal(one, other)


def test_one_example_of_a_target_is_refused():
    with pytest.raises(ValueError, match="(?s)`target_unlabelled`.*'1 example'.*one does not vary"):
        kt.adapt(classifier(), _source(), pictures(1), "coral", verbose=False)


def test_bare_pictures_are_batched_and_augmented_as_the_source_is():
    source = dark_and_light(augment="strong", batch_size=5)
    blind = without_labels(classifier(), pictures(12), like=source)
    assert (blind.augment, blind.augmentation, blind.batch_size) == ("strong", source.augmentation, 5)
    assert without_labels(classifier(), pictures(3), like=source).batch_size == 3


@pytest.mark.parametrize(
    ("method", "options", "step"),
    [
        ("statistics", {}, "the target's 16 features have the source's mean and spread"),
        ("coral", {"stage": kt.Stage("all", epochs=1, learning_rate=1e-3)}, "1 epoch of stage 'all' on both domains"),
    ],
)
def test_texts_are_adapted_as_pictures_are(method, options, step):
    good, bad = ["good film", "fine film", "very good", "the good"], ["bad film", "not good", "very bad", "the bad"]
    source = kt.data.texts((good * 4 + bad * 4, ["good"] * 16 + ["bad"] * 16), batch_size=8, validation=0.25)
    model = text_classifier(layers=1)
    target = ["very fine", "not fine", "the film"] * 8
    before = kt.predict(model, target)
    found = kt.adapt(model, source, target, method, verbose=False, **options)
    assert any(each.startswith(step) for each in found.steps)
    assert found.after.said.shape == (24,)
    # The same text, wherever it stood in its batch.
    np.testing.assert_array_equal(found.after.said, np.tile(found.after.said[:3], 8))
    assert np.abs(kt.predict(model, target) - before).max() > 1e-3


def test_what_was_said_of_the_target_is_in_its_order():
    model, source = classifier(), _source()
    x = pictures(32) * np.linspace(0, 1, 32)[:, None, None, None]
    found = kt.adapt(model, source, x, align="features", verbose=False)
    np.testing.assert_array_equal(found.after.said, kt.predict(model, x).argmax(-1))
    assert 0 < found.after.said.mean() < 1
    features = kt.embed(model, x) @ model.get_layer("head").kernel.numpy() + model.get_layer("head").bias.numpy()
    np.testing.assert_array_equal(features.argmax(-1), found.after.said)


def test_both_domains_are_drawn_before_and_after(tmp_path, drawn):
    found = kt.adapt(classifier(), _source(), 0.3 * pictures(32), align="features", verbose=False)
    path = found.plot(tmp_path / "map.png", target_labels=[0, 1] * 16)
    assert_a_picture(path, (1200, 1700), (700, 1200))
    right = np.mean(found.after.said == [0, 1] * 16)
    assert f"after: proxy A-distance {found.after.gap.proxy_a:.2f}, accuracy {100 * right:.1f} %" in words(drawn[0])
    assert_legible(drawn[0])
    with pytest.raises(ValueError, match="32 numbers from 0 to 1"):
        found.plot(tmp_path / "map.png", target_labels=[0, 1, 2])


def test_a_head_on_a_feature_map_is_refused():
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(2, 16, name="scores")(keras.layers.Conv2D(4, 3, padding="same")(inputs))
    model = keras.Model(inputs, keras.layers.Flatten()(x))
    with pytest.raises(ValueError, match="one vector for each example"):
        entry_of_head(model)


def test_shares_unlike_the_sources_are_said():
    found = kt.adapt(classifier(), _source(), np.zeros((32, 16, 16, 3)), align="features", verbose=False)
    assert max(found.after.shares) == 1.0
    assert "of the target 100 % are taken for" in str(found)


def test_an_adversary_that_brought_nothing_together_says_so():
    white = np.full((32, 16, 16, 3), 255, np.uint8)
    stage = kt.Stage("all", 1, learning_rate=1e-9)
    found = kt.adapt(classifier(), _source(), white, "adversarial", stage=stage, verbose=False)
    assert found.after.gap.proxy_a == found.before.gap.proxy_a > 0
    assert "the domains are told apart no worse than before" in str(found)


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        ("corel", {}, "'coral'"),
        ("statistics", {"stage": ONE_EPOCH}, "`stage` of adapt is out of place"),
        ("statistics", {"seed": "a"}, "`seed` is no seed"),
        ("statistics", {"weight": 2.0}, "has no penalty"),
        ("coral", {"align": "features"}, "has no such choice"),
        ("coral", {"weight": 0.0}, "a positive number"),
        ("coral", {"weight": "a"}, r"(?s)`weight`.*'a'.*mend:\s+weight=1.0"),
        ("coral", {"stage": kt.Stage("all", 1, safeguard=True)}, "for want of labels"),
        ("coral", {"stage": kt.Stage("blok1", 1)}, "block1"),
        ("coral", {"stage": kt.Plan([kt.Stage("all", 1)])}, r"(?s)`stage` of adapt is out of place.*a kt.Stage"),
        ("statistics", {"head": "prob"}, "'probe'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_before_anything_changes(method, options, words):
    model = classifier()
    before = state.values(model)
    with pytest.raises(ValueError, match=words):
        kt.adapt(model, _source(), _target(), method, verbose=False, **options)
    assert all(map(np.array_equal, before, state.values(model)))


def test_a_target_that_the_model_cannot_read_is_refused_before_anything_changes():
    texts = kt.data.texts((["a bad film", "a good film"], ["bad", "good"]), validation=0, batch_size=2)
    model = classifier()
    before = state.values(model)
    with pytest.raises(ValueError, match="reads text"):
        kt.adapt(model, _source(), texts, verbose=False)
    assert all(map(np.array_equal, before, state.values(model)))


@pytest.mark.parametrize(("source", "target", "sizes"), [(17, 18, (8, 8)), (16, 5, (8, 5)), (7, 33, (7, 8))])
def test_what_is_left_of_an_epoch_is_beside_no_whole_batch_of_the_other_domain(source, target, sizes):
    """The covariance of one example is zero: beside a whole batch it would be a difference of the domains."""
    domains = [dark_and_light(count, batch_size=min(8, count), validation=0) for count in (source, target)]
    together = pairs._together(*domains, classifier(), seed=0)
    found = {(len(x["source"]), len(x["target"])) for _, (x, _) in zip(range(20), iter(together), strict=False)}
    assert found == {sizes}
