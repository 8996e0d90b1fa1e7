"""How the accuracy of ImageNet bodies goes with their size: what `kt.advise` thinks of a larger body beforehand.

    python benchmarks/size_and_accuracy.py

builds the bodies of Keras Applications without weights, for their numbers of parameters, and prints by how much the
log-odds of the top-1 accuracy (that of keras.io/api/applications, one centre crop) rise with each doubling, and what is
left, over all of them and within families. Nothing is downloaded; the largest body takes 1.4 GB.
"""

import argparse

import numpy as np

TOP_1 = {
    "Xception": {"Xception": 79.0},
    "VGG": {"VGG16": 71.3, "VGG19": 71.3},
    "ResNet": {"ResNet50": 74.9, "ResNet101": 76.4, "ResNet152": 76.6},
    "ResNetV2": {"ResNet50V2": 76.0, "ResNet101V2": 77.2, "ResNet152V2": 78.0},
    "Inception": {"InceptionV3": 77.9, "InceptionResNetV2": 80.3},
    "MobileNet": {"MobileNet": 70.4, "MobileNetV2": 71.3},
    "DenseNet": {"DenseNet121": 75.0, "DenseNet169": 76.2, "DenseNet201": 77.3},
    "NASNet": {"NASNetMobile": 74.4, "NASNetLarge": 82.5},
    "EfficientNet": {
        f"EfficientNetB{number}": top_1 for number, top_1 in enumerate((77.1, 79.1, 80.1, 81.6, 82.9, 83.6, 84.0, 84.3))
    },
    "EfficientNetV2": {
        f"EfficientNetV2{name}": top_1
        for name, top_1 in zip(
            ("B0", "B1", "B2", "B3", "S", "M", "L"), (78.7, 79.8, 80.5, 82.0, 83.9, 85.3, 85.7), strict=True
        )
    },
    "ConvNeXt": {
        f"ConvNeXt{name}": top_1
        for name, top_1 in zip(
            ("Tiny", "Small", "Base", "Large", "XLarge"), (81.3, 82.3, 85.3, 86.3, 86.7), strict=True
        )
    },
}


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    families = np.array([family for family, bodies in TOP_1.items() for _ in bodies])
    top_1 = np.array([each for bodies in TOP_1.values() for each in bodies.values()]) / 100
    doublings = np.log2([parameters(name) for bodies in TOP_1.values() for name in bodies])
    log_odds = np.log(top_1 / (1 - top_1))
    print("| | a doubling of the parameters | spread of what is left |\n|---|---|---|")
    for name, groups in (("all", np.zeros(len(families))), ("within families", families)):
        slope, left = fitted(doublings, log_odds, groups)
        print(f"| {name} ({len(families)}) | {slope:.3f} | {left:.3f} |", flush=True)


def parameters(name: str) -> int:
    """Of a body without its classifier."""
    import keras

    keras.backend.clear_session()
    return getattr(keras.applications, name)(weights=None, include_top=False).count_params()


def fitted(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """The common slope of lines, one to a group, by least squares, and the standard deviation that is left."""
    which = np.unique(groups)
    x, y = x.copy(), y.copy()
    for group in which:
        own = groups == group
        x[own], y[own] = x[own] - x[own].mean(), y[own] - y[own].mean()
    slope = (x @ y) / (x @ x)
    return slope, float(np.sqrt(np.sum((y - slope * x) ** 2) / (len(x) - 1 - len(which))))


if __name__ == "__main__":
    main()
