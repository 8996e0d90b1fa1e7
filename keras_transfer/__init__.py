"""Transfer learning for Keras 3: the public names, in the order in which data meets them."""

from keras_transfer import data
from keras_transfer.backbones.blocks import Block, Blocks, blocks
from keras_transfer.builders.card import class_names
from keras_transfer.builders.image_classifier import image_classifier
from keras_transfer.evaluation.prediction import predict
from keras_transfer.evaluation.report import Report
from keras_transfer.plans.methods import feature_extraction, from_scratch, staged_fine_tuning
from keras_transfer.plans.plan import Plan, Stage
from keras_transfer.training.audit import AuditError
from keras_transfer.training.callbacks import NonFiniteLossError
from keras_transfer.training.fit import fit
from keras_transfer.training.layerwise_optimizer import LayerwiseOptimizer
from keras_transfer.training.run import Run

__version__ = "0.1.0"

__all__ = [  # noqa: RUF022 - in reading order
    # examples in
    "data",
    # a body and a head
    "image_classifier",
    "class_names",
    "blocks",
    "Block",
    "Blocks",
    # what is to be done
    "feature_extraction",
    "staged_fine_tuning",
    "from_scratch",
    "Plan",
    "Stage",
    # doing it
    "fit",
    "Run",
    "LayerwiseOptimizer",
    "NonFiniteLossError",
    "AuditError",
    # using it
    "predict",
    "Report",
]
