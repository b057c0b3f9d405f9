//! Two models on the same images, image by image.
//!
//! In: directories of evaluations of the same images. Out: by how much each is more often right than the first, and how sure
//! that is. Most images are easy or hard for both, so that pairs tell far smaller differences apart than the intervals of two
//! accuracies do.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use vultus::wording::counted;

use crate::evaluate::{Evaluation, NORMAL_QUANTILE, PREDICTIONS, PredictionRow, Predictions};
use crate::run::EVALUATION;

/// Evaluations of the same images, each against the first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairedComparison {
    /// Name of the split in the first.
    pub split: String,
    /// Number of images.
    pub n: usize,
    /// Directory of the first evaluation, as it is shown.
    pub first: String,
    /// Its accuracy.
    pub first_accuracy: f64,
    /// Its mean cross-entropy of the true class.
    pub first_log_loss: f64,
    /// Its mean squared distance of the probabilities from the truth.
    pub first_brier_score: f64,
    /// The others, in the order given.
    pub others: Vec<Pair>,
    /// What makes the figures doubtful, by the notes of the evaluations: of all of them, or of the one that is named.
    pub notes: Vec<String>,
}

/// One evaluation against the first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pair {
    /// Its directory, as it is shown.
    pub name: String,
    /// Its accuracy.
    pub accuracy: f64,
    /// Its accuracy less that of the first.
    pub difference: f64,
    /// 95 % confidence interval of the difference `[low, high]` (Agresti & Min 2005, "Simple improved confidence intervals for
    /// comparing matched proportions": Wald's after half an image is added to each of the four cells).
    pub interval: [f64; 2],
    /// Whether the images have the same pixels, as far as that is known: not so for networks of other sizes.
    pub same_pixels: bool,
    /// Images that only this one has right.
    pub gained: usize,
    /// Images that only the first has right.
    pub lost: usize,
    /// Probability of a split of these images that is at least as uneven, if neither model were more often right (the exact test of
    /// McNemar 1947, two-sided).
    pub p_value: f64,
    /// Its mean cross-entropy of the true class against that of the first: lower is better.
    pub log_loss: MeanDifference,
    /// Its mean squared distance of the probabilities from the truth against that of the first: lower is better.
    pub brier_score: MeanDifference,
}

/// The mean of a score over the images against that of the first evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MeanDifference {
    /// The mean.
    pub value: f64,
    /// The mean less that of the first.
    pub difference: f64,
    /// 95 % confidence interval of the difference `[low, high]`, of a mean of as many independent differences (normal approximation);
    /// none of one image.
    pub interval: Option<[f64; 2]>,
}

/// Evaluations that do not compare.
#[derive(Debug, thiserror::Error)]
pub enum PairedError {
    /// A file cannot be read; the message names it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Other images, classes or orders.
    #[error(
        "{other} and {first} are not of the same images and classes in the same order ({difference}): evaluate both on the same data"
    )]
    Different {
        /// Directory of the first.
        first: String,
        /// Of the other.
        other: String,
        /// The first difference.
        difference: String,
    },
}

/// Whether the directory holds an evaluation.
pub fn holds_evaluation(directory: &Path) -> bool {
    directory.join(EVALUATION).is_file()
}

/// Compares the evaluations in `others` with that in `first`.
///
/// # Errors
/// See [`PairedError`].
pub fn compare_pairs(first: &Path, others: &[PathBuf]) -> Result<PairedComparison, PairedError> {
    let (evaluation, rows) = read(first)?;
    let name = first.display().to_string();
    let mut noted = vec![(name.clone(), evaluation.notes.clone())];
    let mut pair = |directory: &PathBuf| {
        let (other, other_rows) = read(directory)?;
        let name_of_other = directory.display().to_string();
        noted.push((name_of_other.clone(), other.notes.clone()));
        if let Some(difference) = difference((&evaluation, &rows), (&other, &other_rows)) {
            return Err(PairedError::Different { first: name.clone(), other: name_of_other, difference });
        }
        let known = [&evaluation, &other].map(|evaluation| evaluation.images_sha256.as_ref());
        let same_pixels = !matches!(known, [Some(one), Some(other)] if one != other);
        Ok(Pair { same_pixels, ..Pair::new(name_of_other, &rows.rows, &other_rows.rows) })
    };
    let others = others.iter().map(&mut pair).collect::<Result<_, _>>()?;
    Ok(PairedComparison {
        split: evaluation.split.clone(),
        n: rows.rows.len(),
        others,
        first_accuracy: accuracy(&rows.rows),
        first_log_loss: mean(&rows.rows, PredictionRow::log_loss),
        first_brier_score: mean(&rows.rows, PredictionRow::brier_score),
        notes: notes(&noted),
        first: name,
    })
}

/// The notes of evaluations with these names; one that all have stands once, without a name.
fn notes(noted: &[(String, Vec<String>)]) -> Vec<String> {
    let of_all = |note: &String| noted.iter().all(|(_, notes)| notes.contains(note));
    let common = noted.first().into_iter().flat_map(|(_, notes)| notes).filter(|note| of_all(note)).cloned();
    let own = noted
        .iter()
        .flat_map(|(name, notes)| notes.iter().filter(|note| !of_all(note)).map(move |note| format!("{name}: {note}")));
    common.chain(own).collect()
}

fn read(directory: &Path) -> io::Result<(Evaluation, Predictions)> {
    let evaluation = Evaluation::read(directory)?;
    let path = directory.join(PREDICTIONS);
    let predictions = Predictions::read_csv(&path, &evaluation.labels)?;
    // Whoever was interrupted may have left one of them behind.
    let (n, right) = (predictions.rows.len(), accuracy(&predictions.rows));
    if n != evaluation.n || (right - evaluation.accuracy).abs() > 1e-9 {
        let fault = format!("{} is not of the same evaluation as {EVALUATION}", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, fault));
    }
    Ok((evaluation, predictions))
}

/// What keeps two evaluations from being compared image by image.
fn difference(a: (&Evaluation, &Predictions), b: (&Evaluation, &Predictions)) -> Option<String> {
    let (a, a_rows, b, b_rows) = (a.0, &a.1.rows, b.0, &b.1.rows);
    if a.labels != b.labels {
        return Some(format!("{} against {}", b.labels.join(", "), a.labels.join(", ")));
    }
    if a_rows.len() != b_rows.len() {
        return Some(format!("{} against {}", counted(b_rows.len(), "image"), a_rows.len()));
    }
    let (a_names, b_names) = (names(a_rows), names(b_rows));
    let row = (0..a_rows.len()).find(|&row| (a_names[row], a_rows[row].truth) != (b_names[row], b_rows[row].truth))?;
    Some(format!("{} against {}", b_rows[row].origin, a_rows[row].origin))
}

/// Origins without the folders that they all begin with: the same images may have been read from elsewhere.
fn names(rows: &[PredictionRow]) -> Vec<&str> {
    let first = rows.first().map_or("", |row| row.origin.as_str());
    let common = rows.iter().fold(first, |common, row| {
        let same = common.chars().zip(row.origin.chars()).take_while(|(a, b)| a == b);
        &common[..same.map(|(a, _)| a.len_utf8()).sum()]
    });
    let folders = common.rfind(['/', '\\']).map_or(0, |place| place + 1);
    rows.iter().map(|row| &row.origin[folders..]).collect()
}

fn is_right(row: &PredictionRow) -> bool {
    row.predicted == row.truth
}

fn accuracy(rows: &[PredictionRow]) -> f64 {
    mean(rows, |row| f64::from(u8::from(is_right(row))))
}

fn mean(rows: &[PredictionRow], score: fn(&PredictionRow) -> f64) -> f64 {
    rows.iter().map(score).sum::<f64>() / rows.len().max(1) as f64
}

impl MeanDifference {
    fn new(first: &[PredictionRow], other: &[PredictionRow], score: fn(&PredictionRow) -> f64) -> Self {
        let n = first.len().max(1) as f64;
        let differences = || first.iter().zip(other).map(|(first, other)| score(other) - score(first));
        let difference = differences().sum::<f64>() / n;
        let squares: f64 = differences().map(|one| (one - difference).powi(2)).sum();
        let half = NORMAL_QUANTILE * (squares / (n - 1.0) / n).sqrt();
        let interval = (n > 1.0).then_some([difference - half, difference + half]);
        Self { value: mean(other, score), difference, interval }
    }
}

impl Pair {
    fn new(name: String, first: &[PredictionRow], other: &[PredictionRow]) -> Self {
        let count = |only: fn(bool, bool) -> bool| {
            first.iter().zip(other).filter(|(first, other)| only(is_right(first), is_right(other))).count()
        };
        let (gained, lost) = (count(|first, other| other && !first), count(|first, other| first && !other));
        let n = first.len();
        Self {
            name,
            accuracy: accuracy(other),
            difference: (gained as f64 - lost as f64) / n.max(1) as f64,
            interval: difference_interval(gained, lost, n),
            same_pixels: true,
            gained,
            lost,
            p_value: mcnemar(gained, lost),
            log_loss: MeanDifference::new(first, other, PredictionRow::log_loss),
            brier_score: MeanDifference::new(first, other, PredictionRow::brier_score),
        }
    }
}

/// See [`Pair::interval`].
fn difference_interval(gained: usize, lost: usize, n: usize) -> [f64; 2] {
    let (gained, lost, n) = (gained as f64 + 0.5, lost as f64 + 0.5, n as f64 + 2.0);
    let centre = (gained - lost) / n;
    let half = NORMAL_QUANTILE * ((gained + lost - (gained - lost).powi(2) / n).max(0.0)).sqrt() / n;
    [(centre - half).max(-1.0), (centre + half).min(1.0)]
}

/// See [`Pair::p_value`]: twice the lower tail of the binomial distribution of `gained + lost` fair coins.
fn mcnemar(gained: usize, lost: usize) -> f64 {
    let (coins, fewer) = (gained + lost, gained.min(lost));
    // Logarithms: half to the power of some thousand coins is no number of 64 bits.
    let mut term = -(coins as f64) * std::f64::consts::LN_2;
    let mut tail = term.exp();
    for heads in 1..=fewer {
        term += ((coins - heads + 1) as f64 / heads as f64).ln();
        tail += term.exp();
    }
    (2.0 * tail).min(1.0)
}

#[cfg(test)]
mod tests {
    use vultus::labels::Labels;

    use super::*;
    use crate::run::write_json;

    #[test]
    fn the_exact_test_and_the_interval_are_those_of_the_literature() {
        // scipy.stats.binomtest(k, n).pvalue
        for ((gained, lost), expected) in [((5, 15), 0.041389), ((0, 0), 1.0), ((3, 3), 1.0), ((0, 6), 0.03125)] {
            assert!((mcnemar(gained, lost) - expected).abs() < 1e-6, "{gained} {lost}: {}", mcnemar(gained, lost));
        }
        assert!((mcnemar(162, 119) - 0.01209).abs() < 1e-4, "{}", mcnemar(162, 119));
        assert!(mcnemar(10_000, 9_000) < 1e-10 && mcnemar(5_000, 5_000) == 1.0);
        // 162 and 119 of 3,589, by hand: (162.5 - 119.5) / 3591 -+ 1.96 sqrt(282 - 43^2 / 3591) / 3591.
        let [low, high] = difference_interval(162, 119, 3589);
        assert!((low - 0.002_817).abs() < 1e-5 && (high - 0.021_132).abs() < 1e-5, "{low} {high}");
    }

    /// An evaluation of `happy` and `sad` images whose probabilities of `happy` are `scores`.
    fn write(directory: &Path, truth: &[usize], scores: &[f32], origin: &str) {
        let labels = Labels::new(["happy", "sad"]).unwrap();
        let probabilities: Vec<f32> = scores.iter().flat_map(|score| [*score, 1.0 - score]).collect();
        let origins: Vec<String> = (0..truth.len()).map(|row| format!("{origin},\"{row}\"")).collect();
        fs_err::create_dir_all(directory).unwrap();
        let evaluation = Evaluation::compute("test", &labels, truth, &probabilities).unwrap();
        write_json(&directory.join("evaluation.json"), &evaluation).unwrap();
        let predictions = Predictions::new(&labels, &origins, truth, &probabilities).unwrap();
        predictions.write_csv(&directory.join("predictions.csv")).unwrap();
    }

    #[test]
    fn pairs_are_counted_and_other_images_are_refused() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        let truth = [0, 0, 0, 1, 1, 1];
        write(&at("a"), &truth, &[0.9, 0.8, 0.1, 0.9, 0.2, 0.1], "face");
        write(&at("b"), &truth, &[0.9, 0.2, 0.7, 0.3, 0.2, 0.1], "face");
        assert!(holds_evaluation(&at("a")) && !holds_evaluation(place.path()));
        let compared = compare_pairs(&at("a"), &[at("b"), at("a")]).unwrap();
        assert_eq!((compared.n, compared.split.as_str()), (6, "test"));
        assert!((compared.first_accuracy - 4.0 / 6.0).abs() < 1e-12);
        let [b, same] = &compared.others[..] else { panic!("{compared:?}") };
        assert_eq!((b.gained, b.lost), (2, 1));
        assert!((b.difference - 1.0 / 6.0).abs() < 1e-12 && (b.accuracy - 5.0 / 6.0).abs() < 1e-12);
        assert!(b.interval[0] < b.difference && b.difference < b.interval[1]);
        assert_eq!((same.difference, same.p_value), (0.0, 1.0));
        assert_eq!((same.log_loss.difference, same.log_loss.interval), (0.0, Some([0.0, 0.0])));
        // Brier scores of a: 0.02, 0.08, 1.62, 1.62, 0.08, 0.02; of b: 0.02, 1.28, 0.18, 0.18, 0.08, 0.02. Their differences are 0, 1.2,
        // -1.44, -1.44, 0, 0: mean -0.28, deviation 1.0116 of five degrees of freedom.
        let MeanDifference { value, difference, interval: Some([low, high]) } = b.brier_score else { panic!() };
        assert!((compared.first_brier_score - 3.44 / 6.0).abs() < 1e-6 && (value - 1.76 / 6.0).abs() < 1e-6);
        assert!((difference + 0.28).abs() < 1e-6, "{difference}");
        assert!((low + 0.28 + 0.8094).abs() < 1e-3 && (high + 0.28 - 0.8094).abs() < 1e-3, "{low} {high}");
        let of_a = -(0.9_f64.ln() + 0.8_f64.ln() + 0.1_f64.ln() + 0.1_f64.ln() + 0.8_f64.ln() + 0.9_f64.ln()) / 6.0;
        assert!((compared.first_log_loss - of_a).abs() < 1e-6 && b.log_loss.difference < 0.0);
        assert!(compared.notes.is_empty());
        for (name, notes) in [("a", vec!["a copy"]), ("b", vec!["a copy", "learnt"])] {
            let path = at(name).join("evaluation.json");
            let mut evaluation = Evaluation::read(&at(name)).unwrap();
            evaluation.notes = notes.into_iter().map(str::to_owned).collect();
            write_json(&path, &evaluation).unwrap();
        }
        let notes = compare_pairs(&at("a"), &[at("b")]).unwrap().notes;
        assert_eq!(notes, ["a copy".to_owned(), format!("{}: learnt", at("b").display())]);
        write(&at("other names"), &truth, &[0.9; 6], "picture");
        write(&at("other classes"), &[0, 0, 1, 1, 1, 1], &[0.9; 6], "face");
        write(&at("fewer"), &truth[..5], &[0.9; 5], "face");
        for (name, says) in [("other names", "picture"), ("other classes", "face"), ("fewer", "5 images against 6")] {
            let message = compare_pairs(&at("a"), &[at(name)]).unwrap_err().to_string();
            assert!(message.contains(says) && message.contains(name), "{message}");
        }
        for name in ["one", "other one"] {
            write(&at(name), &truth[..1], &[0.9], "face");
        }
        assert_eq!(compare_pairs(&at("one"), &[at("other one")]).unwrap().others[0].log_loss.interval, None);
        // Read from elsewhere, they are the same.
        write(&at("moved"), &truth, &[0.9, 0.2, 0.7, 0.3, 0.2, 0.1], "/else/where/face");
        assert_eq!(compare_pairs(&at("a"), &[at("moved")]).unwrap().others[0].gained, 2);
        fs_err::copy(at("a").join("predictions.csv"), at("moved").join("predictions.csv")).unwrap();
        let message = compare_pairs(&at("a"), &[at("moved")]).unwrap_err().to_string();
        assert!(message.contains("is not of the same evaluation as evaluation.json"), "{message}");
        let text = fs_err::read_to_string(at("a").join("predictions.csv")).unwrap();
        let last = text.trim_end().rfind(',').unwrap();
        for value in ["NaN", "-7"] {
            fs_err::write(at("b").join("predictions.csv"), format!("{},{value}\n", &text[..last])).unwrap();
            let message = compare_pairs(&at("a"), &[at("b")]).unwrap_err().to_string();
            assert!(message.contains(&format!("{value:?} is no probability")), "{message}");
        }
        fs_err::write(at("b").join("predictions.csv"), "origin,truth\nx,happy\n").unwrap();
        let message = compare_pairs(&at("a"), &[at("b")]).unwrap_err().to_string();
        assert!(message.contains("predictions.csv"), "{message}");
    }
}
