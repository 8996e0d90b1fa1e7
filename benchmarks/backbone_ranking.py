"""Whether `kt.advise` is right: its order of bodies and its choice, beside what fine-tuning all of them comes to.

    python benchmarks/backbone_ranking.py --shared ../shared

Five bodies (two sizes of MobileNetV2 and a small MobileNet, all of ImageNet; a MobileNetV2 of iNaturalist's insects;
one with random weights) are adapted to four picture sets, by feature extraction and by staged fine-tuning, each as the
line that `kt.advise` answers with does it. Their test accuracies are the truth, which it is asked for within
`--minutes`, without the test split. The table gives, for each set, Kendall's tau between the advised order and that of
the fine-tuned bodies, and the test accuracy of what is advised beside the best of the ten. On a machine that is busy,
`--processor-time` gives the advice the minutes of one idle core.

Every (set, body, seed) is one line of `--results`, and every (set, seed) of the advice another: the command can be
stopped and started again, and goes on with what is missing. `--epochs 2` gives a first answer soon, in its own lines.
The truth takes hours: two commands may share it, with other `--bodies` and `--results` each, whose lines are then put
together.
"""

import argparse
import gc
import json
import os
import pathlib
import statistics
import tempfile
import time

from image_fine_tuning import SETS, lend_weights

METHODS = ("feature_extraction", "staged_fine_tuning")
INSECTS = "mobilenet_v2_1.0_224_inat_insect_notop.weights.h5"
NAMES = ("MobileNetV2 1.0", "MobileNetV2 0.35", "MobileNet 0.25", "insects", "random")
MEASURES = ("accuracy", "log_loss", "neighbours", "log_me")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=pathlib.Path, default=pathlib.Path("../shared"))
    parser.add_argument("--results", type=pathlib.Path, default=pathlib.Path("runs/backbone_ranking.jsonl"))
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--bodies", nargs="+", choices=NAMES, default=list(NAMES), help="whose truth is measured")
    parser.add_argument("--epochs", type=int, help="of fine-tuning, after three of the head; else those of the default")
    parser.add_argument("--minutes", type=float, default=5.0, help="what the advice may take")
    parser.add_argument("--what", nargs="+", default=["truth", "advice"], choices=["truth", "advice", "table"])
    parser.add_argument("--processor-time", action="store_true", help="let the minutes be those of one processor")
    options = parser.parse_args()
    if options.processor_time:
        count_processor_time()
    options.results.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        lend_weights(options.shared, pathlib.Path(scratch) / "keras")
        for seed in range(options.seeds):
            for name in options.sets:
                if "truth" in options.what:
                    measure_truth(name, seed, options, pathlib.Path(scratch))
                if "advice" in options.what:
                    measure_advice(name, seed, options, pathlib.Path(scratch))
    print(table(lines_of(options.results), options))


def count_processor_time() -> None:
    """Lets one thread compute, and every clock of this process count its time: on a machine that others use as well,
    five such minutes are what five minutes on one idle core would be."""
    os.environ |= {name: "1" for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")}
    time.perf_counter = time.process_time


def bodies(shared: pathlib.Path, seed: int) -> dict:
    """The candidates, as functions from splits to a model."""
    import keras

    import keras_transfer as kt

    def random(splits):
        keras.utils.set_random_seed(seed)
        return kt.image_classifier("MobileNetV2", splits.classes, alpha=0.35, weights=None)

    builders = (
        lambda splits: kt.image_classifier("MobileNetV2", splits.classes),
        lambda splits: kt.image_classifier("MobileNetV2", splits.classes, alpha=0.35),
        lambda splits: kt.image_classifier("MobileNet", splits.classes, alpha=0.25, image_size=128),
        lambda splits: kt.image_classifier("MobileNetV2", splits.classes, weights=str(shared / "weights" / INSECTS)),
        random,
    )
    return dict(zip(NAMES, builders, strict=True))


def read(name: str, seed: int, options: argparse.Namespace):
    """The splits of a set, a fifth of train held out for validation by the seed."""
    import keras_transfer as kt

    folder = options.shared / "images" / name
    test = "val" if name == "hymenoptera" else "test"
    return kt.data.images({"train": folder / "train", "test": folder / test}, seed=seed)


def measure_truth(name: str, seed: int, options: argparse.Namespace, scratch: pathlib.Path) -> None:
    """Test accuracy of every body by both methods, a line for each body that has none yet."""
    os.environ["KERAS_TRANSFER_CACHE"] = str(scratch / "features")
    import keras

    import keras_transfer as kt

    for body, build in bodies(options.shared, seed).items():
        if body not in options.bodies:
            continue
        key = {"what": "truth", "set": name, "body": body, "seed": seed, "epochs": options.epochs}
        if is_there(key, options.results):
            continue
        splits, line = read(name, seed, options), dict(key)
        for method in METHODS:
            begun, model = time.perf_counter(), build(splits)
            fine = {"epochs": (3, options.epochs)} if options.epochs and method == "staged_fine_tuning" else {}
            plan = getattr(kt, method)(model, **fine)
            run = kt.fit(model, splits, plan, seed=seed, verbose=False)
            line[method] = run.report.accuracy
            if method == "staged_fine_tuning":
                line["calibrated"] = run.audits[0].calibration.share
            line[f"{method}_seconds"] = round(time.perf_counter() - begun, 1)
        add(line, options.results)
        del model, run
        keras.backend.clear_session()
        gc.collect()


def measure_advice(name: str, seed: int, options: argparse.Namespace, scratch: pathlib.Path) -> None:
    """What `kt.advise` says of a set, nothing of it computed before."""
    key = {"what": "advice", "set": name, "seed": seed, "minutes": options.minutes}
    if is_there(key, options.results):
        return
    with tempfile.TemporaryDirectory(dir=scratch) as features:
        os.environ["KERAS_TRANSFER_CACHE"] = features
        import keras

        import keras_transfer as kt

        splits = read(name, seed, options)
        found = kt.advise(splits, bodies(options.shared, seed), minutes=options.minutes, seed=seed)
    print(f"\n{found}\n", flush=True)
    evidence = {row.body: {measure: getattr(row.measures, measure) for measure in MEASURES} for row in found.evidence}
    answer = {"order": found.order, "body": found.body, "method": found.method, "is_clear": found.is_clear}
    add(key | answer | {"seconds": round(found.seconds, 1), "evidence": evidence}, options.results)
    keras.backend.clear_session()
    gc.collect()


def lines_of(results: pathlib.Path) -> list[dict]:
    """What has been measured; a line that was cut off when the command was killed does not count."""
    found = []
    for line in results.read_text().splitlines() if results.exists() else ():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def is_there(key: dict, results: pathlib.Path) -> bool:
    return any(key.items() <= line.items() for line in lines_of(results))


def add(line: dict, results: pathlib.Path) -> None:
    print(json.dumps(line), flush=True)
    with results.open("a") as file:
        file.write(json.dumps(line) + "\n")


def table(lines: list[dict], options: argparse.Namespace) -> str:
    """Both tables, as Markdown, of what has been measured so far."""
    truths = [line for line in lines if line["what"] == "truth" and line["epochs"] == options.epochs]
    advices = [line for line in lines if line["what"] == "advice" and line["minutes"] == options.minutes]
    return "\n".join([*_of_truths(truths), "", *_of_advices(advices, truths)])


def _of_truths(truths: list[dict]) -> list[str]:
    """Mean test accuracy of each body by feature extraction, then by staged fine-tuning."""
    sets = [name for name in SETS if any(line["set"] == name for line in truths)]
    lines = ["| body | " + " | ".join(sets) + " |", "|---" * (len(sets) + 1) + "|"]
    for body in dict.fromkeys(line["body"] for line in truths):
        cells = []
        for name in sets:
            means = _means([line for line in truths if line["set"] == name])
            cells.append(", ".join(f"{means[body, method]:.3f}" for method in METHODS if (body, method) in means))
        lines.append(f"| {body} | {' | '.join(cells)} |")
    return lines


def _of_advices(advices: list[dict], truths: list[dict]) -> list[str]:
    """For each set and seed: the order beside the true one, the choice beside the best."""
    lines = [
        "| set | seed | tau | by neighbours, LogME | advised | its test accuracy | best of all | clear | seconds |",
        "|---" * 9 + "|",
    ]
    for advice in advices:
        means = _means([line for line in truths if line["set"] == advice["set"]])
        if len({body for body, _ in means}) < len(advice["evidence"]):
            continue
        best = max(means, key=means.get)
        own, evidence = means[advice["body"], advice["method"]], advice["evidence"]
        by_measure = [tau({body: row[measure] for body, row in evidence.items()}, means) for measure in MEASURES[2:]]
        ranks = {body: -place for place, body in enumerate(advice["order"])}
        lines.append(
            f"| {advice['set']} | {advice['seed']} | {tau(ranks, means):.2f} | {by_measure[0]:.2f}, "
            f"{by_measure[1]:.2f} | {advice['method']} of {advice['body']} | {own:.3f} | {means[best]:.3f} ({best[1]} "
            f"of {best[0]}) | {'yes' if advice['is_clear'] else 'no'} | {advice['seconds']:.0f} |"
        )
    return lines


def _means(truths: list[dict]) -> dict[tuple[str, str], float]:
    """Of one set: the test accuracy of each (body, method), the mean over the seeds."""
    bodies = dict.fromkeys(line["body"] for line in truths)
    return {
        (body, method): statistics.mean(line[method] for line in truths if line["body"] == body)
        for body in bodies
        for method in METHODS
    }


def tau(scores: dict[str, float], means: dict[tuple[str, str], float]) -> float:
    """Kendall's tau-b between some scores of bodies and the test accuracy of these when they are fine-tuned."""
    from scipy.stats import kendalltau

    return float(kendalltau(list(scores.values()), [means[body, "staged_fine_tuning"] for body in scores]).statistic)


if __name__ == "__main__":
    main()
