"""How often the intervals of `kt.compare` are wrong: methods that are alike, compared again and again.

    python benchmarks/intervals.py

Every example has a difficulty that all methods share, every method its own opinion of it, and every seed its own luck:
so the truth is that no method is better than another. The table gives, for so many seeds, methods and test examples,
how often the 95 % interval of one difference leaves 0 out, and how often any difference of the comparison does at the
level that is corrected for all pairs. Both should be 5 % or less; with one seed the intervals are of those very models,
which do differ. No training: some minutes of NumPy.
"""

import argparse
import itertools

import numpy as np

from keras_transfer.study import conclusions, intervals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1000)
    options = parser.parse_args()
    print("| seeds | methods | examples | deviation of seeds | one difference | any of all pairs |")
    print("|---" * 6 + "|")
    generator = np.random.default_rng(0)
    for seeds, methods in itertools.product((1, 2, 3, 5), (2, 4, 8)):
        for examples, luck in ((200, 0.1), (1000, 0.1), (1000, 0.2)):
            one, every, deviation = simulated(generator, seeds, methods, examples, luck, options.repeats)
            differ = f"{100 * deviation:.1f} points" if seeds > 1 else "not seen"
            cells = [seeds, methods, f"{examples:,}", differ, f"{one:.1%}", f"{every:.1%}"]
            print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def simulated(
    generator: np.random.Generator, seeds: int, methods: int, examples: int, luck: float, repeats: int
) -> tuple[float, float, float]:
    """How often one difference is beyond the noise, and how often any; and by how much seeds differ."""
    labels, one, every, deviations = np.zeros(examples, np.int64), 0, 0, []
    corrected = conclusions.level(methods)
    for _ in range(repeats):
        difficulty = generator.normal(1.5, 1.0, examples)
        opinions = generator.normal(0, 0.5, (methods, 1, examples))
        lucks = luck * generator.normal(size=(methods, seeds, 1)) + generator.normal(0, 0.5, (methods, seeds, examples))
        predicted = (difficulty + opinions + lucks < 0).astype(np.int64)
        scores = [intervals.accuracy(labels, of_method) for of_method in predicted]
        differences = [first.minus(second) for first, second in itertools.combinations(scores, 2)]
        one += differences[0].estimate().is_clear
        every += any(difference.estimate(corrected).is_clear for difference in differences)
        deviations.append(np.std([score.values for score in scores], axis=1, ddof=1).mean() if seeds > 1 else 0.0)
    return one / repeats, every / repeats, float(np.mean(deviations))


if __name__ == "__main__":
    main()
