"""Several runs from the same weights, and the mean of what came of them."""

import functools

import bodies
import keras
import keras_hub
import numpy as np
import pytest
from bodies import dark_and_light, pictures
from breaking_off import BreakOff, BrokenOff
from readers import gpt2

import keras_transfer as kt
from keras_transfer import state
from keras_transfer.study import soup as soups
from keras_transfer.training.batch_statistics import inputs_of

both_backends = pytest.mark.both_backends


# A stem and one block, each with a batch norm.
classifier = functools.partial(bodies.classifier, depth=1)


def upper_block(**options):
    return kt.Plan([kt.Stage("top:1", 2, **{"learning_rate": 0.03, "start": "probe"} | options)], name="upper block")


def noisy():
    """Pictures whose labels cannot be learnt from a few of them."""
    draw = np.random.default_rng(3)
    shown = draw.uniform(0, 255, (40, 16, 16, 3)).astype("uint8")
    return kt.data.images((shown, np.array(["dark", "light"])[np.arange(40) % 2]), batch_size=8, augment="light")


def begun():
    """A model as every run here begins with it, to the last bit."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    return classifier(dropout=0.3)


def made(**options):
    """A model, its data, and what a soup made of it."""
    model, data = begun(), noisy()
    options = {"seeds": [3, 8], "verbose": False} | options
    return model, data, kt.model_soup(model, data, upper_block(), **options)


@pytest.fixture(scope="module")
def whole():
    """A soup that nothing came between."""
    return made()


@pytest.fixture(scope="module")
def apart():
    """The models that single runs with the seeds of `whole` make."""
    models = []
    for seed in (3, 8):
        models.append(begun())
        kt.fit(models[-1], noisy(), upper_block(), seed=seed, verbose=False)
    return models


def test_the_model_gets_the_mean_of_the_weights_of_runs_with_these_seeds(whole, apart):
    model, data, soup = whole
    assert (soup.kept, soup.seeds, soup.judged_on) == (None, (3, 8), "validation")
    moved = 0
    values = state.values(begun()), *map(state.values, apart)
    for (identity, variable), old, one, other in zip(state.walk(model), *values, strict=True):
        if state.is_seed(variable):
            continue
        expected = ((one.astype("float64") + other) / 2).astype("float32")
        np.testing.assert_array_equal(np.asarray(variable), expected, err_msg=identity.path)
        moved += not np.array_equal(one, other)
        if "block1" not in identity.path and "head" not in identity.path:
            np.testing.assert_array_equal(expected, old, err_msg=identity.path)
    assert moved >= 4
    assert soup.report.accuracy == kt.evaluate(model, data, "validation").accuracy
    assert soup.report.cost.total_seconds == sum(run.report.cost.total_seconds for run in soup.runs)


def test_it_says_how_good_each_run_and_their_mean_is(whole):
    model, data, soup = whole
    right = [run.report.accuracy for run in soup.runs]  # there is no test split
    assert [one.accuracy for one in soup.of_runs] == pytest.approx(right)
    assert soup.together.accuracy == pytest.approx(kt.evaluate(model, data, "validation").accuracy)
    said = str(soup)
    assert said.startswith("model soup: the mean of 2 runs of upper block, which differ by the seed")
    for name, found in zip(("seed 3", "seed 8", "their mean"), (*soup.of_runs, soup.together), strict=True):
        line = next(line for line in said.splitlines() if line.startswith(name))
        assert line.split()[-3:-1] == [f"{found.loss:.3f}", f"{100 * found.accuracy:.1f}"]


def test_the_model_is_left_as_one_run_leaves_it(whole, apart):
    (model, data, _), alone = whole, apart[0]
    assert [v.trainable for _, v in state.walk(model)] == [v.trainable for _, v in state.walk(alone)]
    assert type(model.optimizer) is type(alone.optimizer)
    assert model.evaluate(data.evaluation_batches(data.validation, model), verbose=0)


@both_backends
def test_batch_norms_that_adapt_get_the_statistics_of_what_the_mean_makes_of_the_examples():
    model, data = classifier(), dark_and_light(40)
    before = {variable.path: variable.numpy() for _, variable in state.walk(model)}
    kt.model_soup(model, data, upper_block(batch_norm="adapt"), seeds=2, verbose=False)
    body = model.get_layer("residual")
    layer = body.get_layer("block1_bn")
    x = inputs_of(model, data, np.arange(len(data.train)))
    reaching = keras.Model(body.input, layer.input).predict(x / 127.5 - 1, batch_size=48, verbose=0).astype("float64")
    np.testing.assert_allclose(layer.moving_mean.numpy(), reaching.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.moving_variance.numpy(), reaching.var((0, 1, 2)), rtol=1e-4)
    frozen = body.get_layer("stem_bn")
    np.testing.assert_array_equal(frozen.moving_mean.numpy(), before[frozen.moving_mean.path])


def test_so_do_those_that_adapt_in_an_earlier_stage_than_the_last():
    model, data = classifier(), dark_and_light(40)
    plan = kt.Plan([kt.Stage("top:1", 2, batch_norm="adapt", start="probe"), kt.Stage("head", 1, name="head alone")])
    kt.model_soup(model, data, plan, seeds=2, verbose=False)
    body = model.get_layer("residual")
    layer, x = body.get_layer("block1_bn"), inputs_of(model, data, np.arange(len(data.train)))
    reaching = keras.Model(body.input, layer.input).predict(x / 127.5 - 1, batch_size=48, verbose=0).astype("float64")
    np.testing.assert_allclose(layer.moving_variance.numpy(), reaching.var((0, 1, 2)), rtol=1e-4)


class Renumber(keras.callbacks.Callback):
    """Gives the hidden channels other numbers at the end of every other run: the same function, of other weights."""

    def __init__(self):
        super().__init__()
        self._runs = 0

    def on_train_end(self, logs=None):
        self._runs += 1
        if self._runs % 2:
            return
        lower, upper = (self.model.get_layer("channels").get_layer(name) for name in ("lower", "upper"))
        lower.kernel.assign(lower.kernel.numpy()[..., ::-1])
        lower.bias.assign(lower.bias.numpy()[::-1])
        upper.kernel.assign(upper.kernel.numpy()[:, :, ::-1])


@pytest.mark.parametrize("validation", [0.25, 0.0])
def test_runs_that_have_come_to_different_places_have_no_mean(validation):
    pixels = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(16, 3, strides=4, activation="tanh", name="lower")(pixels)
    body = keras.Model(pixels, keras.layers.Conv2D(8, 3, name="upper")(x), name="channels")
    data = kt.data.digits(classes=[0, 1, 3], per_class=40, validation=validation, batch_size=16)
    model = kt.image_classifier(body, data.classes, preprocessing="tf")
    plan = kt.Plan([kt.Stage("all", 6, learning_rate=0.01)])
    ends = []
    keep = keras.callbacks.LambdaCallback(on_train_end=lambda logs: ends.append(state.values(model)))
    soup = kt.model_soup(model, data, plan, seeds=[4, 5], callbacks=[Renumber(), keep], verbose=False)
    assert soup.judged_on == ("validation" if validation else "train")
    assert soup.together.loss > max(one.loss for one in soup.of_runs)
    best = int(np.argmin([one.loss for one in soup.of_runs]))
    assert soup.kept == (4, 5)[best]
    for value, expected in zip(state.values(model), ends[best], strict=True):
        np.testing.assert_array_equal(value, expected)
    assert f"The weights of the best of them, seed {soup.kept}, were kept." in str(soup)


def test_what_was_broken_off_goes_on_and_ends_in_the_same_bits(whole, tmp_path):
    unbroken, _, unbroken_soup = whole
    steps = 2 * noisy().steps_per_epoch()
    with pytest.raises(BrokenOff):
        made(workdir=tmp_path, callbacks=[BreakOff(steps + 3)], checkpoint_steps=1)
    assert not (tmp_path / "model.keras").exists()
    trained = []
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: trained.append(batch))
    model, _, soup = made(workdir=tmp_path, callbacks=[watch], checkpoint_steps=1)
    assert len(trained) < steps
    for value, expected in zip(state.values(model), state.values(unbroken), strict=True):
        np.testing.assert_array_equal(value, expected)
    assert (soup.of_runs, soup.together) == (unbroken_soup.of_runs, unbroken_soup.together)
    # It is finished: read, and not trained again.
    again = made(workdir=tmp_path, callbacks=[BreakOff(1)], checkpoint_steps=1)
    assert again[2].together == unbroken_soup.together
    opened = keras.models.load_model(tmp_path / "model.keras")
    shown = pictures(4)
    np.testing.assert_array_equal(opened.predict(shown, verbose=0), model.predict(shown, verbose=0))
    assert str(again[2].report) == str(soup.report)
    assert (tmp_path / "report.txt").read_text() == str(again[2])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "model.keras",
        "report.json",
        "report.txt",
        "seed_3",
        "seed_8",
    ]


def test_a_language_model_is_judged_by_the_loss_of_a_token():
    reader = gpt2(length=16)
    body = keras_hub.models.GPT2Backbone(reader.tokenizer.vocabulary_size(), 1, 2, 8, 16, max_sequence_length=16)
    model = kt.causal_lm(body, preprocessor=reader)
    rows = ["the film", "a very good film, and it was a film that was not bad and was good"] * 8
    texts = kt.data.texts(rows, label=False, batch_size=4, validation=0.5, buckets=(8, 16))
    soup = kt.model_soup(model, texts, kt.Plan([kt.Stage("all", 1)]), seeds=2, verbose=False)
    assert soup.together.loss == pytest.approx(np.log(soup.report.perplexity), rel=1e-5)
    last = soup.runs[1].history[-1]
    assert soup.of_runs[1].loss == pytest.approx(last["val_cross_entropy"], rel=1e-5)
    assert soup.of_runs[1].accuracy == pytest.approx(last["val_accuracy"], rel=1e-5)
    assert abs(last["val_cross_entropy"] - last["val_loss"]) > 1e-4, "batches count by their tokens here"
    assert soup.report.perplexity == kt.evaluate(model, texts, "validation").perplexity


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"seeds": 1}, "A soup is the mean of several runs."),
        ({"seeds": [2, 2]}, "`seeds` names no seeds."),
        ({"seed": 2}, "There is no such argument of `model_soup`"),
        ({"class_weights": "balanced"}, "class_weight"),
        ({"plan": lambda model: kt.lora(model, rank=2, targets="block1_conv")}, "Adapters have no mean"),
        ({"plan": kt.from_scratch}, "Runs from random weights have no mean"),
        ({"plan": lambda model: kt.staged_fine_tuning}, "plan"),
    ],
)
def test_what_has_no_mean_is_refused_before_anything_is_trained(options, said):
    model, data = classifier(), dark_and_light()
    before = state.values(model)
    plan = options.pop("plan", lambda model: upper_block())(model)
    with pytest.raises(ValueError, match=said):
        kt.model_soup(model, data, plan, verbose=False, **options)
    for value, expected in zip(state.values(model), before, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_a_model_with_adapters_is_refused():
    model, data = classifier(), dark_and_light()
    kt.add_lora(model, rank=2, targets="block1_conv")
    with pytest.raises(ValueError, match="Adapters have no mean"):
        kt.model_soup(model, data, upper_block(), verbose=False)


def test_the_mean_of_equal_weights_is_each_of_them_to_the_last_bit():
    draw = np.random.default_rng(0)
    for dtype in ("float32", "float16"):
        for count in (2, 3, 7, 10):
            value = (draw.normal(size=50) * 10.0 ** draw.integers(-6, 4, 50)).astype(dtype)
            assert soups.mean([[value]] * count)[0].tobytes() == value.tobytes()
