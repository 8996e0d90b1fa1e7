"""Pictures: of a run its learning curves, what it confuses, where it was surely wrong; of several methods how they
differ; of a range test its losses.

The only door to matplotlib. It takes long to import, so import this package when the first picture is drawn.
"""

from keras_transfer.evaluation.plots.contact_sheet import most_wrong
from keras_transfer.evaluation.plots.curves import learning_curves
from keras_transfer.evaluation.plots.matrix import confusion
from keras_transfer.evaluation.plots.methods import accuracy_against_cost, class_differences, method_curves
from keras_transfer.evaluation.plots.range_test import range_test

__all__ = [
    "accuracy_against_cost",
    "class_differences",
    "confusion",
    "learning_curves",
    "method_curves",
    "most_wrong",
    "range_test",
]
