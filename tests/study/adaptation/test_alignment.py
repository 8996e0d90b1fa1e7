import keras
import numpy as np
import pytest
from bodies import classifier, pictures

import keras_transfer as kt
from keras_transfer.study.adaptation import alignment


def test_aligned_features_have_the_mean_and_spread_of_the_source():
    draw = np.random.default_rng(0)
    source, target = draw.normal(3, 2, (50, 4)), draw.normal(-1, 0.5, (40, 4))
    scale, shift = alignment.alignment(source, target)
    aligned = target * scale + shift
    np.testing.assert_allclose(aligned.mean(0), source.mean(0))
    np.testing.assert_allclose(aligned.std(0), source.std(0))


def test_a_feature_that_is_silent_in_the_target_is_moved_and_not_blown_up():
    source = np.array([[0.0, 1.0], [2.0, 3.0]])
    scale, shift = alignment.alignment(source, np.array([[0.0, 5.0], [2.0, 5.0]]))
    assert scale[1] == pytest.approx(1 / alignment.LEAST_SPREAD)
    np.testing.assert_allclose(5.0 * scale[1] + shift[1], 2.0)


@pytest.mark.both_backends
def test_the_folded_head_says_what_the_formula_says():
    model, x = classifier(["a", "b", "c"]), pictures(12)
    features, head = kt.embed(model, x).astype("float64"), model.get_layer("head")
    draw = np.random.default_rng(1)
    scale, shift = draw.uniform(0.5, 2, 8), draw.normal(size=8)
    head.bias.assign(draw.normal(size=3))
    expected = (features * scale + shift) @ head.kernel.numpy() + head.bias.numpy()
    alignment.fold(model, scale, shift)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-4)


def test_a_head_that_begins_with_no_dense_layer_is_refused():
    x = inputs = keras.Input((16, 16, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(x))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.LayerNormalization(name="norm")(x)))
    with pytest.raises(ValueError, match="LayerNormalization 'norm'"):
        alignment.lowest_of_head(model)
