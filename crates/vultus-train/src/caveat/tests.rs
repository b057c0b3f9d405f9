use image::{GrayImage, Luma};
use serde_json::json;
use vultus::bundle::Bundle;
use vultus::inference::Inference;
use vultus::labels::Labels;
use vultus::network::NetworkConfig;
use vultus::preprocess::Preprocessing;

use super::*;
use crate::dataset::Sample;
use crate::fingerprint::pixels_fingerprint;
use crate::model::initial_weights;

/// Twelve training images of two classes, in turn; those at 0 and 10, and at 1 and 3, are equal.
fn prepared() -> Prepared {
    let sample = |index: usize| Sample {
        image: GrayImage::from_pixel(
            2,
            2,
            Luma([match index {
                10 => 0,
                3 => 1,
                other => other as u8,
            }]),
        ),
        label: index % 2,
        split: "train".to_owned(),
        origin: String::new(),
        votes: None,
    };
    let samples = (0..12).map(sample).collect();
    let dataset = Dataset { labels: Labels::new(["happy", "sad"]).unwrap(), samples, removed: Vec::new() };
    Prepared { dataset, train: (0..9).collect(), validation: (9..12).collect() }
}

/// What is to be known beside that the images are few.
fn beside_few(config: &TrainConfig, prepared: &Prepared) -> Vec<Caveat> {
    let mut caveats = of_run(config, prepared);
    caveats.retain(|caveat| !matches!(caveat, Caveat::FewValidate { .. }));
    caveats
}

#[test]
fn few_images_that_validate_are_told() {
    let mut prepared = prepared();
    (prepared.train, prepared.validation) = (vec![2, 4], vec![5, 7]);
    let found = of_run(&TrainConfig::default(), &prepared);
    assert_eq!(found, [Caveat::FewValidate { images: 2 }]);
    assert!(found[0].to_string().starts_with("note: few images validate (2)"), "{}", found[0]);
    prepared.validation.clear();
    assert_eq!(of_run(&TrainConfig::default(), &prepared), []);
    assert_eq!([few(FEW_IMAGES - 1).is_some(), few(FEW_IMAGES).is_some()], [true, false]);
}

fn search(values: &str) -> TrainConfig {
    let axes = format!("[search]\nfolds = 2\n[[search.axes]]\n{values}");
    TrainConfig::from_toml(&axes, "text").unwrap()
}

#[test]
fn copies_on_both_sides_are_counted() {
    let prepared = prepared();
    let found = beside_few(&TrainConfig::default(), &prepared);
    assert_eq!(found, [Caveat::Copies { images: 1, remedy: DROP_DUPLICATES }]);
    assert!(found[0].to_string().contains("1 of the validation images is also among those trained on"));
    let mut apart = TrainConfig::default();
    "val".clone_into(&mut apart.data.validation_split);
    let [Caveat::Copies { remedy, .. }] = beside_few(&apart, &prepared)[..] else { panic!("no copies") };
    assert_eq!(remedy, "cleaning.leaks=drop");
    let apart = Prepared { train: (0..10).collect(), validation: vec![11], ..prepared.clone() };
    assert_eq!(beside_few(&TrainConfig::default(), &apart), []);

    let indices: Vec<usize> = (0..12).collect();
    let labels: Vec<usize> = indices.iter().map(|index| index % 2).collect();
    for seed in 1..6 {
        let mut config = search("keys = [\"train.epochs\"]\nvalues = [1]");
        config.search.seed = seed;
        let folds = stratified_folds(&labels, 2, seed).unwrap();
        let apart = |a: usize, b: usize| folds[0].0.contains(&a) != folds[0].0.contains(&b);
        // Each of a pair validates once.
        let images = 2 * (usize::from(apart(0, 10)) + usize::from(apart(1, 3)));
        assert_eq!(of_search(&config, &prepared.dataset, &indices), Vec::from_iter(copies(images, DROP_DUPLICATES)));
    }
}

#[test]
fn images_to_validate_with_that_test_and_classes_without_an_image_are_named() {
    let mut prepared = prepared();
    prepared.train.truncate(8);
    prepared.validation.clear();
    prepared.dataset.samples[11].split = "validation".to_owned();
    let removal = |label: &str, reason| Removal {
        origin: "a.png".to_owned(),
        split: "train".to_owned(),
        label: Some(label.to_owned()),
        reason,
        detail: String::new(),
    };
    prepared.dataset.removed = vec![
        removal("bored", RemovalReason::Unreadable),
        removal("happy", RemovalReason::Unreadable),
        removal("tired", RemovalReason::Missing),
        removal("tired", RemovalReason::ClassDropped),
    ];
    let mut config = TrainConfig::default();
    let lost = Caveat::LostClass { class: "bored".to_owned() };
    assert_eq!(beside_few(&config, &prepared), [Caveat::UnusedValidation, lost.clone()]);
    config.data.evaluate_splits = vec!["test".to_owned()];
    assert_eq!(beside_few(&config, &prepared), std::slice::from_ref(&lost));
    config.data.evaluate_splits.clear();
    config.data.validation_split = "validation".to_owned();
    config.train.targets.teachers = vec!["a.safetensors".to_owned()];
    config.train.validation_seed = 3;
    let idle = [
        Caveat::Idle { key: "train.targets.teachers", beside: "train.targets.distillation is 0" },
        Caveat::Idle { key: "train.validation_seed", beside: "no part of the training images validates" },
    ];
    assert_eq!(beside_few(&config, &prepared), [std::slice::from_ref(&lost), &idle].concat());
}

#[test]
fn settings_that_do_nothing_are_named() {
    let mut prepared = prepared();
    prepared.validation.clear();
    let keys = |caveats: Vec<Caveat>| -> Vec<&str> {
        let key = |caveat| if let Caveat::Idle { key, .. } = caveat { key } else { "" };
        caveats.into_iter().map(key).collect()
    };
    let settings = "[train]\nkeep = 'last'\nmonitor = 'val_loss'\nschedule.floor = 0.5\nearly_stopping.min_delta = 0.1
        targets.distillation_temperature = 2";
    let mut config = TrainConfig::from_toml(settings, "text").unwrap();
    let of_trials = ["train.schedule.floor", "train.targets.distillation_temperature"];
    let of_runs = ["train.early_stopping.min_delta", "train.monitor"];
    assert_eq!(keys(beside_few(&config, &prepared)), [of_runs, of_trials].concat());
    config.search = search("keys = [\"train.epochs\"]\nvalues = [1]").search;
    assert_eq!(keys(of_search(&config, &prepared.dataset, &[2, 4, 5, 7])), of_trials);
    config.search = search("keys = [\"train.schedule.type\"]\nvalues = ['constant', 'cosine']").search;
    assert_eq!(keys(of_search(&config, &prepared.dataset, &[2, 4, 5, 7])), of_trials[1..]);
    config.train.schedule.kind = ScheduleKind::Cosine;
    config.train.early_stopping.patience = 3;
    config.train.targets.distillation_temperature = 1.0;
    assert_eq!(beside_few(&config, &prepared), []);
}

#[test]
fn batches_of_one_image_and_folds_that_differ_are_named() {
    let mut prepared = prepared();
    prepared.validation.clear();
    let network = "[preprocessing]\nwidth = 2\nheight = 2\n[[network.layers]]\ntype = 'flatten'\n[[network.layers]]
        type = 'batch_norm'";
    let flat = TrainConfig::from_toml(network, "text").unwrap();
    for (batch_size, named) in [(1, Some(true)), (2, Some(false)), (4, Some(false)), (5, None), (9, None), (32, None)] {
        let mut config = flat.clone();
        config.train.batch_size = batch_size;
        let found = beside_few(&config, &prepared);
        assert_eq!(found, Vec::from_iter(named.map(|all| Caveat::LoneImages { all })), "{batch_size} of 9");
    }
    // Of pixels one image has many.
    let maps = network
        .replace("'flatten'", "'conv'\nfilters = 2\nkernel = 1")
        .replace("type = 'batch_norm'", "type = 'batch_norm'\n[[network.layers]]\ntype = 'flatten'");
    let mut config = TrainConfig::from_toml(&maps, "text").unwrap();
    config.train.batch_size = 1;
    assert_eq!(beside_few(&config, &prepared), []);

    let searched = search("keys = [\"search.folds\"]\nvalues = [2, 4]");
    let found = of_search(&searched, &prepared.dataset, &[2, 4, 5, 6, 7, 8, 9, 11]);
    assert_eq!(found, [Caveat::OtherFolds]);
}

#[test]
fn settings_about_votes_that_are_not_there_are_named() {
    let mut prepared = prepared();
    prepared.validation.clear();
    let mut config = TrainConfig::default();
    config.train.targets.votes = 0.5;
    config.cleaning.not_a_face = Policy::Drop;
    let both = ["train.targets.votes", "cleaning.not_a_face"].map(|key| Caveat::NoVotes { key });
    let found = beside_few(&config, &prepared);
    assert!(found.len() == 2 && both.iter().all(|caveat| found.contains(caveat)), "{found:?}");
    let searched = search("keys = [\"train.targets.votes\"]\nvalues = [0.0, 0.5]");
    let found = of_search(&searched, &prepared.dataset, &[2, 4, 5, 7]);
    assert_eq!(found, [Caveat::NoVotes { key: "train.targets.votes" }]);
    config.train.targets.votes_head = 0.5;
    let third = Caveat::NoVotes { key: "train.targets.votes_head" };
    assert!(of_run(&config, &prepared).contains(&third) && !both.contains(&third));
    prepared.dataset.samples[4].votes = Some([1; 10]);
    assert_eq!(beside_few(&config, &prepared), []);
}

#[test]
fn models_of_the_same_images_in_other_parts_are_named() {
    let mut prepared = prepared();
    prepared.validation = vec![9, 11];
    let network: NetworkConfig = serde_json::from_str(r#"{"layers":[{"type":"flatten"}]}"#).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors").display().to_string();
    let save = |facts: serde_json::Value| {
        let bundle = Bundle {
            labels: prepared.dataset.labels.clone(),
            preprocessing: Preprocessing { width: 2, height: 2, ..Preprocessing::default() },
            weights: initial_weights(&network.resolve(2, 2, 2).unwrap(), 1),
            network: network.clone(),
            inference: Inference::default(),
            training: facts,
            metrics: serde_json::Value::Null,
        };
        bundle.save(Path::new(&path)).unwrap();
    };
    let facts = |key: &str, images: &str, seed: u64, fraction: f64| {
        let train = json!({ "validation_fraction": fraction });
        json!({ key: images, "seed": seed, "train": train })
    };
    let named = [Caveat::Learnt { model: path.clone() }];
    let mut config = TrainConfig::default();
    config.train.start.clone_from(&path);
    let (all, train) = (fingerprint(&prepared.dataset), split_fingerprint(&prepared.dataset, "train"));
    for (key, images) in [("data_sha256", &all), ("train_sha256", &train)] {
        save(facts(key, images, 1, 0.2));
        assert_eq!(beside_few(&config, &prepared), []);
        for (seed, fraction) in [(2, 0.2), (1, 0.1)] {
            save(facts(key, images, seed, fraction));
            assert_eq!(beside_few(&config, &prepared), named);
        }
        config.train.validation_seed = 2;
        save(facts(key, images, 2, 0.2));
        assert_eq!(beside_few(&config, &prepared), []);
        let mut other = facts(key, images, 1, 0.2);
        other["train"]["validation_seed"] = json!(2);
        save(other);
        assert_eq!(beside_few(&config, &prepared), []);
        config.train.validation_seed = 0;
        assert_eq!(beside_few(&config, &prepared), named);
        // The same parts, and a teacher that knew them.
        let mut taught = facts(key, images, 1, 0.2);
        taught["validation_known_to"] = json!(["runs/other"]);
        save(taught);
        assert_eq!(beside_few(&config, &prepared), named);
        save(facts(key, "other images", 2, 0.2));
        assert_eq!(beside_few(&config, &prepared), []);
    }
    // Whole splits, whatever they were called: one that validates, one that tests, and what is trained on.
    let mut known = prepared.clone();
    for (index, split) in [(9, "val"), (10, "val"), (11, "test")] {
        split.clone_into(&mut known.dataset.samples[index].split);
    }
    known.dataset.samples[10].image = GrayImage::from_pixel(2, 2, Luma([202]));
    (known.train, known.validation) = ((0..9).collect(), vec![9, 10]);
    config.data.validation_split = "val".to_owned();
    let learnt_test = Caveat::LearntTest { model: path.clone(), split: "test".to_owned() };
    for (images, caveats) in [
        (&[9, 10][..], &named[..]),
        (&[11], std::slice::from_ref(&learnt_test)),
        (&[10, 11], &[]),
        (&[0, 1, 2, 3, 4, 5, 6, 7, 8], &[]),
    ] {
        let learnt = pixels_fingerprint(&known.dataset, images);
        save(json!({ "train_split": "other", "learnt_sha256": ["another", learnt] }));
        assert_eq!(beside_few(&config, &known), caveats, "{images:?}");
        let (_, facts) = load_with_facts(Path::new(&path)).unwrap();
        let notes = |split: &str| of_model(&facts, &known.dataset, split, &known.dataset.indices_of(split));
        let of_test = notes("test");
        assert_eq!(of_test.iter().any(|note| note.starts_with("split test is what the model learnt")), images == [11]);
    }
    config.data.validation_split.clear();
    save(
        json!({ "train_sha256": "other", "learnt_sha256": [pixels_fingerprint(&prepared.dataset, &prepared.dataset.indices_of("train"))] }),
    );
    assert_eq!(beside_few(&config, &prepared), named);
    // Test images were added since, and what was trained on is the same.
    let mut more = prepared.clone();
    let image = GrayImage::from_pixel(2, 2, Luma([201]));
    more.dataset.samples.push(Sample { split: "test".to_owned(), image, ..prepared.dataset.samples[0].clone() });
    save(facts("train_sha256", &train, 2, 0.2));
    assert_eq!(beside_few(&config, &more), named);
    more.dataset.samples.last_mut().unwrap().image = prepared.dataset.samples[0].image.clone();
    let copies = Caveat::TestCopies { split: "test".to_owned(), images: 1 };
    assert_eq!(beside_few(&config, &more), [copies, named[0].clone()]);

    save(facts("train_sha256", &train, 1, 0.2));
    let mut config = search("keys = [\"train.epochs\"]\nvalues = [1]");
    config.train.targets.teachers = vec![path.clone()];
    let indices = [2, 4, 5, 7];
    let idle = [Caveat::Idle { key: "train.targets.teachers", beside: "train.targets.distillation is 0" }];
    assert_eq!(of_search(&config, &prepared.dataset, &indices), idle, "nobody asks the teacher");
    config.train.targets.distillation = 0.5;
    assert_eq!(of_search(&config, &prepared.dataset, &indices), named);
    fs_err::remove_file(&path).unwrap();
    assert_eq!(of_search(&config, &prepared.dataset, &indices), []);
}
