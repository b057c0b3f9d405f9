"""Golden numbers for vultus_train::evaluate, computed by scikit-learn.

Run from this directory:

    python metrics.py > metrics.json

Made with Python 3.11, numpy 2.4.6, scikit-learn 1.9.1, scipy 1.17.1 (the file itself records the versions that ran).

Two cases. "unbalanced": 400 rows of 7 classes with very different counts, one class that is never predicted, one that
has no image but is predicted, one with neither, a probability of exactly 0 for a true class. "diverse": 300 rows of 5
classes, sharper scores. Probabilities are rounded to float32 before anything is computed from them; scikit-learn gets
the float32 array, so that log_loss clips with float32's epsilon.
"""

import json
import platform
import sys

import numpy as np
import scipy
import sklearn
from scipy.stats import binomtest
from sklearn import metrics
from sklearn.calibration import calibration_curve

BINS = 15


def probabilities_for(random, truth, classes, skill, sharpness, never):
    """Softmax rows that favour the true class by `skill`; the classes in `never` are kept low."""
    logits = random.normal(size=(len(truth), classes))
    logits[np.arange(len(truth)), truth] += skill
    logits[:, never] -= 12.0
    scores = np.exp(sharpness * (logits - logits.max(axis=1, keepdims=True)))
    return (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)


def calibration(correct, scores):
    """Shares and mean scores of the filled bins, of calibration_curve, and the counts of all; bins are (low, high]."""
    share, confidence = calibration_curve(correct, scores, n_bins=BINS, strategy="uniform", pos_label=1)
    edges = np.linspace(0.0, 1.0, BINS + 1)
    return share, confidence, np.bincount(np.searchsorted(edges[1:-1], scores), minlength=BINS)


def calibration_error(share, confidence, bin_counts):
    """Expected calibration error from what calibration() returns."""
    filled = bin_counts[bin_counts > 0]
    return float((np.abs(share - confidence) * filled).sum() / filled.sum())


def expected(truth, probabilities):
    """Every metric of the evaluation, from scikit-learn and scipy."""
    count, classes = probabilities.shape
    labels = list(range(classes))
    predicted = probabilities.argmax(axis=1)
    top = probabilities.max(axis=1).astype(np.float64)
    correct = (predicted == truth).astype(int)
    interval = binomtest(int(correct.sum()), count).proportion_ci(0.95, method="wilson")
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        truth, predicted, labels=labels, zero_division=0
    )
    share, confidence, bin_counts = calibration(correct, top)
    each = probabilities.astype(np.float64)
    return {
        "accuracy": metrics.accuracy_score(truth, predicted),
        "accuracy_interval": [interval.low, interval.high],
        "macro_f1": metrics.f1_score(truth, predicted, average="macro", zero_division=0),
        "balanced_accuracy": metrics.balanced_accuracy_score(truth, predicted),
        "top2_accuracy": metrics.top_k_accuracy_score(truth, probabilities, k=2, labels=labels),
        "log_loss": metrics.log_loss(truth, probabilities, labels=labels),
        "brier_score": metrics.brier_score_loss(truth, probabilities, labels=labels, scale_by_half=False),
        "ece": calibration_error(share, confidence, bin_counts),
        "mean_confidence": float(top.mean()),
        "confusion": metrics.confusion_matrix(truth, predicted, labels=labels).tolist(),
        "confusion_normalized": metrics.confusion_matrix(
            truth, predicted, labels=labels, normalize="true"
        ).tolist(),
        "precision": precision.tolist(),
        "recall": recall.tolist(),
        "f1": f1.tolist(),
        "support": support.tolist(),
        "class_mean_probability": each.mean(axis=0).tolist(),
        "class_ece": [
            calibration_error(*calibration((truth == label).astype(int), each[:, label])) for label in labels
        ],
        "bin_counts": bin_counts.tolist(),
        "bin_accuracy": share.tolist(),
        "bin_confidence": confidence.tolist(),
    }


def case(seed, count, shares, skill, sharpness, never):
    """One case: inputs as the Rust test reads them, and the expected metrics."""
    random = np.random.default_rng(seed)
    classes = len(shares)
    truth = random.choice(classes, size=count, p=shares)
    probabilities = probabilities_for(random, truth, classes, skill, sharpness, never)
    row = probabilities[0]
    other = (truth[0] + 1) % classes
    row[other] += row[truth[0]]
    row[truth[0]] = 0.0
    return {
        "classes": classes,
        "truth": truth.tolist(),
        # Nine significant digits bring back the same float32.
        "probabilities": [float(f"{value:.9g}") for value in probabilities.ravel()],
        "expected": expected(truth, probabilities),
    }


def main():
    """Writes both cases as JSON to standard output."""
    cases = {
        "unbalanced": case(156, 400, [0.36, 0.28, 0.2, 0.1, 0.06, 0.0, 0.0], 1.1, 1.0, never=[3, 6]),
        "diverse": case(2013, 300, [0.2, 0.2, 0.2, 0.2, 0.2], 1.5, 2.5, never=[]),
    }
    versions = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "scikit-learn": sklearn.__version__,
    }
    json.dump({"versions": versions, **cases}, sys.stdout)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
