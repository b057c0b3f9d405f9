use serde_json::json;
use vultus::inference::{Inference, Views};
use vultus::labels::Labels;
use vultus::network::{FlattenConfig, LayerConfig, NetworkConfig};

use super::*;
use crate::evaluate::EvaluatedModel;
use crate::evaluate::groups::{Attribute, Difference, GroupScores};
use crate::facts::ImageCounts;
use crate::figure::search::TrialSummary;
use crate::search::Score;

fn input() -> ReportInput {
    let labels = Labels::new(["<script>alert(1)</script>", "happy"]).unwrap();
    let probabilities = [0.9, 0.1, 0.3, 0.7, 0.8, 0.2, 0.45, 0.55];
    let evaluation = Evaluation::compute("public_test", &labels, &[0, 1, 1, 0], &probabilities).unwrap();
    let record = EpochRecord {
        epoch: 1,
        loss: 1.5,
        accuracy: 0.4,
        val_loss: Some(1.6),
        val_cross_entropy: None,
        val_accuracy: Some(0.35),
        learning_rate: 1e-3,
        images_per_second: 400.0,
        wait_share: 0.0,
        seconds: 3.0,
    };
    let picture = Picture {
        file: String::new(),
        png: vec![0x89, b'P', b'N', b'G'],
        truth: labels.name(0).to_owned(),
        predicted: "happy".to_owned(),
        score: 0.8,
        origin: "faces/\"a\" & b.png".to_owned(),
    };
    let trial = TrialSummary {
        setting: vec![("train.epochs".to_owned(), "3".to_owned())],
        scores: vec![0.5, 0.6],
        mean: 0.55,
        standard_deviation: 0.0707,
    };
    let Value::Object(environment) = json!({ "git_revision": "abc123", "seed": 7, "data_hash": null }) else {
        unreachable!()
    };
    let training = Training {
        command: "vultus train --set train.epochs=1".to_owned(),
        config: "[train]\nepochs = 1 # <b>\n".to_owned(),
        environment,
        splits: vec!["train".to_owned(), "public_test".to_owned()],
        class_counts: vec![
            ClassCounts { label: labels.name(0).to_owned(), counts: vec![1200, 2] },
            ClassCounts { label: "happy".to_owned(), counts: vec![34, 2] },
        ],
        cleaning: vec![("unreadable".to_owned(), 3)],
        network: NetworkConfig { layers: vec![LayerConfig::Flatten(FlattenConfig {})] }.resolve(8, 8, 2).unwrap(),
        labels: labels.names().to_vec(),
        history: vec![record],
        choice: Choice {
            finished: true,
            epoch: Some(1),
            selection: "highest validation accuracy on 20 % of train".to_owned(),
            stopped_early: true,
            images: Some(ImageCounts { train: 1200, validation: 34 }),
            temperature: Some(1.25),
        },
        train_split: "train".to_owned(),
        validation_split: "train-validation".to_owned(),
        search: Some(SearchTable {
            monitor: Monitor::ValAccuracy,
            score: Some(Score::Last),
            settings: 3,
            complete: vec![trial],
        }),
    };
    ReportInput {
        title: "Faces & <b>more</b>".to_owned(),
        training: Some(training),
        evaluations: vec![evaluation],
        mistakes: vec![picture.clone()],
        pairs: vec![PicturePair {
            truth: labels.name(0).to_owned(),
            predicted: "happy".to_owned(),
            count: 1,
            pictures: vec![picture],
        }],
    }
}

#[test]
fn tells_everything_it_was_given() {
    let html = render(&input()).unwrap();
    for text in [
        "Table 1.",
        "Figure 1.",
        "Figure 2.",
        "Figure 3.",
        "50.00\u{a0}%",
        "95 % interval 15.00\u{a0}% to 85.00\u{a0}%",
        "1,234",
        "unreadable",
        "abc123",
        "unknown",
        "epochs = 1",
        "highest validation accuracy on 20 % of train",
        "Most confident mistakes",
        "Most confused pairs",
        "epochs=3",
        "0.5500",
        "Article 5(1)(f)",
        "Article 50(3)",
        "data:image/png;base64,iVBORw==",
        "vultus train --set train.epochs=1",
    ] {
        assert!(html.contains(text), "{text} is missing");
    }
}

#[test]
fn nothing_is_loaded_and_nothing_runs() {
    let html = render(&input()).unwrap();
    for text in
        ["<script", "<link", "<iframe", "<object", "@import", "src=\"http", "href=\"http", " onload", " onclick"]
    {
        assert!(!html.contains(text), "{text}");
    }
    assert_eq!(html.matches("url(").count(), html.matches("url(#").count());
    for attribute in ["src=\"", "href=\""] {
        for (start, _) in html.match_indices(attribute) {
            let target = &html[start + attribute.len()..];
            assert!(target.starts_with("data:image/png;base64,") || target.starts_with('#'), "{}", &target[..40]);
        }
    }
    assert!(html.contains("default-src 'none'"));
}

#[test]
fn names_from_outside_are_escaped() {
    let html = render(&input()).unwrap();
    assert!(
        html.contains("&lt;script&gt;alert(1)&lt;&#x2f;script&gt;")
            || html.contains("&lt;script&gt;alert(1)&lt;/script&gt;")
    );
    assert!(!html.contains("<b>more") && !html.contains("# <b>"));
    assert!(html.contains("faces&#x2f;&quot;a&quot; &amp; b.png") || html.contains("faces/&quot;a&quot; &amp; b.png"));
}

/// The report of an evaluation alone.
fn without_training() -> ReportInput {
    let mut input = ReportInput { training: None, ..input() };
    let inference = Inference { views: Views { flip: true, shift: 1, blur: 0.1 }, temperature: 1.5 };
    input.evaluations[0].models =
        vec![EvaluatedModel { name: Some("runs/a".to_owned()), weights_sha256: "c0ffee".to_owned(), inference }];
    input
}

#[test]
fn an_evaluation_alone_has_a_page() {
    let html = render(&without_training()).unwrap();
    for text in [
        "c0ffee",
        "runs&#x2f;a",
        "its mirror image, both shifted by 1 pixel",
        "share of 0.1",
        "1.500",
        "Figure 1. Confusion matrix",
    ] {
        assert!(html.contains(text), "{text} is missing");
    }
    for text in ["Made by", "id=\"network\"", "id=\"configuration\"", "Figure 2", "were selected by"] {
        assert!(!html.contains(text), "{text}");
    }
}

#[test]
fn the_pages_are_well_formed() {
    for input in [input(), without_training()] {
        check_form(&render(&input).unwrap());
    }
}

/// Every element that is opened is closed, in order.
fn check_form(html: &str) {
    const VOID: [&str; 3] = ["meta", "img", "br"];
    let mut open: Vec<String> = Vec::new();
    let mut rest = html;
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>').unwrap();
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        let name = |text: &str| text.split([' ', '\n', '/']).next().unwrap().to_owned();
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name(closed).as_str()), "near {}", &rest[..rest.len().min(80)]);
        } else if !tag.starts_with('!') && !tag.ends_with('/') && !VOID.contains(&name(tag).as_str()) {
            open.push(name(tag));
        }
    }
    assert!(open.is_empty(), "{open:?}");
    let mut ids: Vec<&str> = html.split(" id=\"").skip(1).filter_map(|text| text.split('"').next()).collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "an id stands twice");
    for (start, _) in html.match_indices("href=\"#") {
        let target = html[start + 7..].split('"').next().unwrap();
        assert!(ids.contains(&target), "{target} leads nowhere");
    }
    assert_eq!(html.matches("<img ").count(), html.matches(" alt=\"Face of").count());
    assert_eq!(html.matches("<table>").count(), html.matches("<caption>").count());
}

#[test]
fn parts_that_are_not_there_are_left_out() {
    let training = Training {
        history: Vec::new(),
        choice: Choice {
            finished: false,
            epoch: None,
            selection: String::new(),
            stopped_early: false,
            images: None,
            temperature: None,
        },
        search: None,
        cleaning: Vec::new(),
        ..input().training.unwrap()
    };
    let bare = ReportInput {
        training: Some(training),
        evaluations: Vec::new(),
        mistakes: Vec::new(),
        pairs: Vec::new(),
        ..input()
    };
    let html = render(&bare).unwrap();
    assert!(html.contains("No split was evaluated") && html.contains("No image was taken out"));
    assert!(!html.contains("Figure 2.") && !html.contains("id=\"search\"") && !html.contains("id=\"mistakes\""));
}

#[test]
fn evaluations_of_earlier_versions_have_a_page() {
    let with_calibration = render(&input()).unwrap();
    let added = ["by chance", "Brier score", "Mean probability", "If the scores were exact"];
    assert!(added.iter().all(|text| with_calibration.contains(text)));
    let mut earlier = input();
    for evaluation in &mut earlier.evaluations {
        let mut json = serde_json::to_value(&*evaluation).unwrap();
        let keys = json.as_object_mut().unwrap();
        assert!(keys.remove("brier_score").is_some() && keys.remove("ece_by_chance").is_some());
        for class in keys["per_class"].as_array_mut().unwrap() {
            let keys = class.as_object_mut().unwrap();
            assert!(keys.remove("mean_probability").is_some() && keys.remove("ece").is_some());
        }
        *evaluation = serde_json::from_value(json).unwrap();
    }
    let html = render(&earlier).unwrap();
    assert!(html.contains("Calibration error") && !added.iter().any(|text| html.contains(text)));
}

#[test]
fn groups_have_their_recalls() {
    let mut given = input();
    let evaluation = &mut given.evaluations[0];
    let mut group = GroupScores::new("young", evaluation);
    group.recalls.retain(|recall| recall.label == "happy");
    group.difference = Some(Difference { balanced_accuracy: -0.012, interval: [-0.04, 0.016], classes: 2 });
    let attribute = Attribute { name: "age".to_owned(), groups: vec![group], unknown: 0 };
    evaluation.groups = vec![attribute];
    let html = render(&given).unwrap();
    let tables = ["Recall by age: of the images of each class", "False positives by age: of the images of all other"];
    for text in
        tables.iter().chain(&["all images", "2 images", "<td>–</td><td>50.00\u{a0}%<small>", "-1.2 (-4.0 to +1.6)"])
    {
        assert!(html.contains(text), "{text} is missing");
    }
    // Those of earlier versions have none.
    let group = &mut given.evaluations[0].groups[0].groups[0];
    group.recalls.clear();
    group.false_positive_rates.clear();
    let html = render(&given).unwrap();
    assert!(!tables.iter().any(|table| html.contains(table)));
}

#[test]
fn scores_without_cases_are_dashes() {
    let mut given = input();
    let labels = Labels::new(["happy", "sad", "angry"]).unwrap();
    given.evaluations = vec![Evaluation::compute("test", &labels, &[0, 0], &[0.6, 0.4, 0.0, 0.4, 0.6, 0.0]).unwrap()];
    let html = render(&given).unwrap();
    assert!(html.contains("<td>0</td><td>0.0000</td><td>–</td><td>0.0000</td>"));
    assert!(html.contains("<td>0</td><td>–</td><td>–</td><td>–</td>"));
}

#[test]
fn files_of_the_report() {
    let directory = tempfile::tempdir().unwrap();
    let page = save(&input(), directory.path()).unwrap();
    assert!(fs_err::read_to_string(page).unwrap().starts_with("<!DOCTYPE html>"));
    let mut names: Vec<String> = fs_err::read_dir(directory.path().join("figures"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let stems = [
        "figure-1-architecture",
        "figure-2-curves",
        "figure-3-confusion-public_test",
        "reliability-public_test",
        "search",
    ];
    let expected: Vec<String> = stems.iter().flat_map(|stem| [format!("{stem}.png"), format!("{stem}.svg")]).collect();
    assert_eq!(names, expected);
}

#[test]
fn a_search_by_loss_is_told_without_a_figure() {
    let mut input = input();
    let Some(SearchTable { monitor, complete, .. }) =
        input.training.as_mut().and_then(|training| training.search.as_mut())
    else {
        panic!("no search")
    };
    *monitor = Monitor::ValLoss;
    let worse =
        TrialSummary { setting: vec![("train.epochs".to_owned(), "9".to_owned())], mean: 0.75, ..complete[0].clone() };
    complete.push(worse);
    let html = render(&input).unwrap();
    assert!(html.contains("Validation loss of the last epoch over the folds, best first: 2 of 3 settings"), "{html}");
    assert!(html.contains("chosen among 3 by the mean validation loss of the last epoch"), "{html}");
    let place = |text: &str| html.find(text).unwrap();
    assert!(place("epochs=3") < place("epochs=9") && !html.contains("Search: mean and standard deviation"));
}
