use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn labels(count: usize) -> Labels {
    Labels::new((0..count).map(|index| format!("class_{index}"))).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(values) => values.iter().flat_map(numbers).collect(),
        other => vec![other.as_f64().unwrap()],
    }
}

fn assert_close(name: &str, found: &[f64], expected: &Value, tolerance: f64) {
    let expected = numbers(expected);
    assert_eq!(found.len(), expected.len(), "{name}");
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() <= tolerance, "{name}: {found} against scikit-learn's {expected}");
    }
}

/// The numbers were made by tests/golden/metrics.py.
#[test]
fn metrics_are_those_of_scikit_learn() {
    let golden: Value = serde_json::from_str(include_str!("../../tests/golden/metrics.json")).unwrap();
    for name in ["unbalanced", "diverse"] {
        let case = &golden[name];
        let expected = &case["expected"];
        let truth: Vec<usize> = numbers(&case["truth"]).into_iter().map(|class| class as usize).collect();
        let probabilities: Vec<f32> = numbers(&case["probabilities"]).into_iter().map(|value| value as f32).collect();
        let labels = labels(case["classes"].as_u64().unwrap() as usize);
        let found = Evaluation::compute("test", &labels, &truth, &probabilities).unwrap();

        let exact = 1e-12;
        assert_close("accuracy", &[found.accuracy], &expected["accuracy"], exact);
        assert_close("accuracy_interval", &found.accuracy_interval, &expected["accuracy_interval"], exact);
        assert_close("macro_f1", &[found.macro_f1], &expected["macro_f1"], exact);
        assert_close("balanced_accuracy", &[found.balanced_accuracy], &expected["balanced_accuracy"], exact);
        assert_close("top2_accuracy", &[found.top2_accuracy], &expected["top2_accuracy"], exact);
        // scikit-learn adds the logarithms up in float32.
        assert_close("log_loss", &[found.log_loss], &expected["log_loss"], 1e-5);
        assert_close("brier_score", &[found.brier_score.unwrap()], &expected["brier_score"], 1e-6);
        assert_close("ece", &[found.ece], &expected["ece"], 1e-9);
        assert_close("mean_confidence", &[found.mean_confidence], &expected["mean_confidence"], 1e-9);
        let counts: Vec<f64> = found.confusion.concat().iter().map(|&count| count as f64).collect();
        assert_close("confusion", &counts, &expected["confusion"], 0.0);
        let shares = found.confusion_normalized.concat();
        assert_close("confusion_normalized", &shares, &expected["confusion_normalized"], exact);
        let column = |pick: fn(&ClassScores) -> f64| found.per_class.iter().map(pick).collect::<Vec<_>>();
        assert_close("precision", &column(|scores| scores.precision), &expected["precision"], exact);
        assert_close("recall", &column(|scores| scores.recall), &expected["recall"], exact);
        assert_close("f1", &column(|scores| scores.f1), &expected["f1"], exact);
        assert_close("support", &column(|scores| scores.support as f64), &expected["support"], 0.0);
        let means = column(|scores| scores.mean_probability.unwrap());
        assert_close("class_mean_probability", &means, &expected["class_mean_probability"], 1e-9);
        assert_close("class_ece", &column(|scores| scores.ece.unwrap()), &expected["class_ece"], 1e-9);
        let bins: Vec<f64> = found.reliability.iter().map(|bin| bin.count as f64).collect();
        assert_close("bin counts", &bins, &expected["bin_counts"], 0.0);
        let filled: Vec<&ReliabilityBin> = found.reliability.iter().filter(|bin| bin.count > 0).collect();
        let accuracies: Vec<f64> = filled.iter().map(|bin| bin.accuracy).collect();
        assert_close("bin accuracy", &accuracies, &expected["bin_accuracy"], exact);
        let confidences: Vec<f64> = filled.iter().map(|bin| bin.confidence).collect();
        assert_close("bin confidence", &confidences, &expected["bin_confidence"], 1e-9);
    }
}

#[test]
fn ratios_without_cases_are_told_from_zeros() {
    // Of `a` one image is called so and one `b`; of `b` and `c` there are none.
    let probabilities = [0.6, 0.4, 0.0, 0.4, 0.6, 0.0];
    let found = Evaluation::compute("test", &labels(3), &[0, 0], &probabilities).unwrap();
    assert_eq!(found.class_scores(0), [Some(1.0), Some(0.5), Some(2.0 / 3.0)]);
    assert_eq!(found.class_scores(1), [Some(0.0), None, Some(0.0)]);
    assert_eq!(found.class_scores(2), [None, None, None]);
}

#[test]
fn the_json_has_the_promised_keys_and_comes_back() {
    let found = Evaluation::compute("test", &labels(2), &[0, 1, 1], &[0.75, 0.25, 0.5, 0.5, 0.125, 0.875]).unwrap();
    let text = serde_json::to_string(&found).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    for key in [
        "split",
        "n",
        "labels",
        "accuracy",
        "accuracy_interval",
        "macro_f1",
        "balanced_accuracy",
        "log_loss",
        "ece",
        "confusion",
        "per_class",
    ] {
        assert!(value.get(key).is_some(), "{key} is missing");
    }
    assert_eq!(serde_json::from_str::<Evaluation>(&text).unwrap(), found);
    // A tie goes to the class with the lower index: the second image is wrong.
    assert_eq!(found.confusion, [[1, 0], [1, 1]]);
}

#[test]
fn wilson_interval_at_the_ends() {
    assert_eq!(wilson_interval(0, 0), [0.0, 1.0]);
    let [low, high] = wilson_interval(10, 10);
    assert!((low - 0.722_467).abs() < 1e-6 && high == 1.0, "{low} {high}");
    assert_eq!(wilson_interval(0, 10)[0], 0.0);
}

#[test]
fn bad_rows_are_named() {
    let compute = |truth: &[usize], values: &[f32]| {
        Evaluation::compute("test", &labels(2), truth, values).unwrap_err().to_string()
    };
    assert!(compute(&[], &[]).contains("\"test\" has no images"));
    assert!(compute(&[0], &[1.0]).contains("need 2 probabilities, not 1"));
    assert!(compute(&[0, 2], &[1.0, 0.0, 1.0, 0.0]).starts_with("row 1: true class 2"));
    assert!(compute(&[0, 1], &[1.0, 0.0, 0.5, f32::NAN]).starts_with("row 1: NaN is no probability"));
    assert!(compute(&[0, 1], &[1.0, 0.0, 1.5, -0.5]).starts_with("row 1: 1.5 is no probability"));
    assert!(compute(&[0, 1], &[1.0, 0.0, 0.5, 0.4]).starts_with("row 1: probabilities sum to 0.9"));
}

fn three_mistakes() -> Predictions {
    let origins: Vec<String> = ["a.png", "b, \"b\".png", "c.png", "d.png", "e.png"].map(str::to_owned).into();
    let truth = [0, 0, 1, 2, 0];
    let rows = [[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [0.05, 0.9, 0.05]];
    Predictions::new(&labels(3), &origins, &truth, rows.as_flattened()).unwrap()
}

#[test]
fn mistakes_and_pairs_are_ranked() {
    let predictions = three_mistakes();
    assert_eq!(predictions.most_confident_mistakes(2), [4, 1]);
    assert_eq!(predictions.most_confident_mistakes(9), [4, 1, 2]);
    let pairs = predictions.most_confused_pairs(5, 1);
    assert_eq!(pairs[0], ConfusedPair { truth: 0, predicted: 1, count: 2, examples: vec![4] });
    assert_eq!((pairs[1].truth, pairs[1].predicted, pairs[1].count), (1, 0, 1));
    assert_eq!(pairs.len(), 2);
}

#[test]
fn csv_keeps_awkward_names() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("predictions.csv");
    three_mistakes().write_csv(&path).unwrap();
    let mut reader = csv::Reader::from_path(&path).unwrap();
    assert_eq!(
        reader.headers().unwrap(),
        vec![
            "origin",
            "truth",
            "predicted",
            "score",
            "probability_class_0",
            "probability_class_1",
            "probability_class_2"
        ]
    );
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_eq!(rows[1], vec!["b, \"b\".png", "class_0", "class_1", "0.7", "0.2", "0.7", "0.1"]);
    assert_eq!(rows.len(), 5);
    let error = three_mistakes().write_csv(&directory.path().join("absent/predictions.csv")).unwrap_err().to_string();
    assert!(error.contains("predictions.csv"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn sums_and_bounds_hold(seeds in prop::collection::vec((0_usize..4, prop::array::uniform4(0.0_f32..1.0)), 1..60)) {
        let truth: Vec<usize> = seeds.iter().map(|(class, _)| *class).collect();
        let mut probabilities = Vec::new();
        for (_, values) in &seeds {
            let sum: f32 = values.iter().map(|value| value + 1e-3).sum();
            probabilities.extend(values.iter().map(|value| (value + 1e-3) / sum));
        }
        let found = Evaluation::compute("test", &labels(4), &truth, &probabilities).unwrap();
        prop_assert_eq!(found.confusion.concat().iter().sum::<usize>(), truth.len());
        prop_assert_eq!(found.reliability.iter().map(|bin| bin.count).sum::<usize>(), truth.len());
        let [low, high] = found.accuracy_interval;
        prop_assert!(low <= found.accuracy && found.accuracy <= high);
        prop_assert!(found.top2_accuracy >= found.accuracy);
        prop_assert!((found.mean_confidence - found.accuracy).abs() <= found.ece + 1e-9);
        for bin in found.reliability.iter().filter(|bin| bin.count > 0) {
            prop_assert!(bin.low < bin.confidence && bin.confidence <= bin.high + 1e-6);
        }
    }
}

#[test]
fn answers_are_held_against_shares_of_votes() {
    let rows = [(vec![0.5, 0.5], [0.5, 0.5]), (vec![1.0, 0.0], [0.25, 0.75])];
    let scores = VoteScores::compute(rows.iter().map(|(shares, row)| (shares.clone(), &row[..]))).unwrap();
    assert_eq!(scores.n, 2);
    assert!((scores.log_loss - (2.0_f64.ln() + 4.0_f64.ln()) / 2.0).abs() < 1e-9, "{scores:?}");
    assert!((scores.entropy - 2.0_f64.ln() / 2.0).abs() < 1e-9, "{scores:?}");
    assert_eq!(VoteScores::compute(std::iter::empty()), None);
}
