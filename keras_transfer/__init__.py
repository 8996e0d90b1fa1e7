"""Transfer learning for Keras 3: the public names, in the order in which data meets them."""

from keras_transfer import data
from keras_transfer.adapters.attach import add_lora, adopt_lora
from keras_transfer.adapters.files import load_adapter, save_adapter
from keras_transfer.adapters.lora import LoRA
from keras_transfer.adapters.switch import merge_adapter, remove_adapter, set_adapter, unmerge_adapter
from keras_transfer.backbones.blocks import Block, Blocks, blocks
from keras_transfer.builders.image_classifier import image_classifier
from keras_transfer.builders.language_models import causal_lm, image_to_text, seq2seq_lm
from keras_transfer.builders.text_classifier import text_classifier
from keras_transfer.card import class_names
from keras_transfer.evaluation.language_report import LanguageReport
from keras_transfer.evaluation.prediction import predict
from keras_transfer.evaluation.report import Report
from keras_transfer.plans.methods import (
    bitfit,
    feature_extraction,
    from_scratch,
    lora,
    norm_tuning,
    staged_fine_tuning,
)
from keras_transfer.plans.plan import Plan, Stage
from keras_transfer.study.adaptation.adapt import adapt
from keras_transfer.study.adaptation.adaptation import Adaptation
from keras_transfer.study.advice import Advice
from keras_transfer.study.advise import advise
from keras_transfer.study.clusters import Agreement, Clusters, Neighbours, clusters, neighbours
from keras_transfer.study.compare import compare
from keras_transfer.study.comparison import Comparison
from keras_transfer.study.embedding import embed
from keras_transfer.study.learning_rate import LearningRates, find_learning_rate
from keras_transfer.study.pitfalls import Pitfalls, pitfalls
from keras_transfer.study.soup import Soup, model_soup
from keras_transfer.study.source import Source
from keras_transfer.training import cache
from keras_transfer.training.audit import AuditError
from keras_transfer.training.callbacks import NonFiniteLossError
from keras_transfer.training.fit import fit
from keras_transfer.training.layerwise_optimizer import LayerwiseOptimizer
from keras_transfer.training.objectives import evaluate
from keras_transfer.training.run import Run

__version__ = "0.1.0"

__all__ = [  # noqa: RUF022 - in reading order
    # examples in
    "data",
    # a body and a head
    "image_classifier",
    "text_classifier",
    "causal_lm",
    "seq2seq_lm",
    "image_to_text",
    "class_names",
    "blocks",
    "Block",
    "Blocks",
    # what is to be done
    "feature_extraction",
    "staged_fine_tuning",
    "from_scratch",
    "lora",
    "bitfit",
    "norm_tuning",
    "LoRA",
    "Plan",
    "Stage",
    # doing it
    "fit",
    "Run",
    "LayerwiseOptimizer",
    "NonFiniteLossError",
    "AuditError",
    "cache",
    "model_soup",
    "Soup",
    # what to expect of it
    "find_learning_rate",
    "LearningRates",
    # adapters by hand, and as files
    "add_lora",
    "adopt_lora",
    "save_adapter",
    "load_adapter",
    "merge_adapter",
    "unmerge_adapter",
    "set_adapter",
    "remove_adapter",
    # using it
    "predict",
    "evaluate",
    "Report",
    "LanguageReport",
    # which method, and did transfer help
    "compare",
    "Comparison",
    "Source",
    # evidence
    "embed",
    "pitfalls",
    "Pitfalls",
    "advise",
    "Advice",
    "neighbours",
    "Neighbours",
    "clusters",
    "Clusters",
    "Agreement",
    # labels in one domain, none in the other
    "adapt",
    "Adaptation",
]
