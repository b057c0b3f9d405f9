use super::results::SettingStatus;
use super::*;
use vultus::labels::Labels;
use vultus::network::LayerConfig;

const SEARCH: &str = r#"
    [train]
    epochs = 3
    [search]
    folds = 3
    [[search.axes]]
    name = "F"
    keys = ["network.layers.0.filters", "network.layers.4.filters"]
    values = [[4, 8], [8, 16]]
    [[search.axes]]
    name = "p"
    keys = ["network.layers.*.rate"]
    values = [0.1, 0.25]
"#;

fn config() -> TrainConfig {
    TrainConfig::from_toml(SEARCH, "text").unwrap()
}

/// 30 images of class "happy" and 12 of class "sad".
struct Images {
    names: Labels,
    labels: Vec<usize>,
}

impl Images {
    fn new() -> Self {
        let labels = (0..42).map(|index| usize::from(index % 7 < 2)).collect();
        Self { names: Labels::new(["happy", "sad"]).unwrap(), labels }
    }

    fn data(&self) -> SearchData<'_> {
        SearchData { names: &self.names, labels: &self.labels, fingerprint: "42 images", votes: "their votes" }
    }
}

/// Scores by arithmetic on what it is given; stops, fails or is stopped after some trials.
#[derive(Default)]
struct Arithmetic {
    ran: Vec<usize>,
    fail_after: Option<usize>,
    stop_after: Option<usize>,
    interrupt_after: Option<usize>,
    diverge_at_filters: Option<usize>,
    work: Option<PlannedWork>,
}

#[derive(Debug, thiserror::Error)]
#[error("the cable was pulled")]
struct Pulled;

impl TrialRunner for Arithmetic {
    type Error = Pulled;

    fn run(&mut self, task: &TrialTask<'_>) -> Result<TrialEnd, Pulled> {
        let count = Some(self.ran.len());
        if self.fail_after == count {
            return Err(Pulled);
        }
        if self.interrupt_after == count {
            return Ok(TrialEnd::Interrupted);
        }
        self.ran.push(task.trial.number);
        let mut all: Vec<usize> = task.train.iter().chain(task.validation).copied().collect();
        all.sort_unstable();
        assert_eq!(all, (0..42).collect::<Vec<_>>());
        let LayerConfig::Conv(conv) = &task.config.network.layers[0] else { panic!("no convolution") };
        let LayerConfig::Dropout(dropout) = &task.config.network.layers[3] else { panic!("no dropout") };
        if self.diverge_at_filters == Some(conv.filters) && task.trial.fold == 1 {
            return Ok(TrialEnd::Diverged("the loss is NaN in epoch 1, step 2".to_owned()));
        }
        let noise = (task.config.seed % 1000) as f64 * 1e-6 + task.validation.iter().sum::<usize>() as f64 * 1e-5;
        let score = |epoch: usize| {
            let val_accuracy = conv.filters as f64 * 0.05 - dropout.rate * 0.1 + epoch as f64 * 0.01 + noise;
            EpochScore { val_accuracy, val_loss: 1.0 - val_accuracy, val_cross_entropy: None }
        };
        Ok(TrialEnd::Finished((0..task.config.train.epochs).map(score).collect()))
    }

    fn stop_requested(&self) -> bool {
        self.stop_after == Some(self.ran.len())
    }

    fn planned(&mut self, work: PlannedWork) -> io::Result<()> {
        self.work = Some(work);
        Ok(())
    }
}

fn search(config: &TrainConfig, directory: &Path, shard: Option<&str>, runner: &mut Arithmetic) -> SearchOutcome {
    let shard = shard.map(|text| text.parse().unwrap());
    run_search(config, Images::new().data(), directory, shard, runner).unwrap()
}

/// Results without what depends on the clock.
fn timeless(outcome: &SearchOutcome) -> SearchResults {
    let mut results = outcome.results.clone();
    results.settings.iter_mut().for_each(|row| row.seconds = 0.0);
    results
}

fn uninterrupted() -> SearchOutcome {
    let directory = tempfile::tempdir().unwrap();
    search(&config(), directory.path(), None, &mut Arithmetic::default())
}

#[test]
fn a_whole_search_ranks_and_names_the_winner() {
    let outcome = uninterrupted();
    let names: Vec<String> = outcome.results.summaries().iter().map(|summary| summary.name()).collect();
    assert_eq!(names, ["F=8/16, p=0.1", "F=8/16, p=0.25", "F=4/8, p=0.1", "F=4/8, p=0.25"]);
    assert!(outcome.results.is_complete() && !outcome.interrupted);
    let winner = winner_config(&config(), outcome.winner().unwrap()).unwrap();
    let expected = config()
        .with_overrides(&[
            "network.layers.0.filters=8".to_owned(),
            "network.layers.4.filters=16".to_owned(),
            "network.layers.*.rate=0.1".to_owned(),
        ])
        .unwrap();
    assert_eq!(winner, TrainConfig { search: SearchConfig::default(), ..expected });
    let row = &outcome.results.settings[0];
    let mean = row.scores.iter().flatten().sum::<f64>() / 3.0;
    assert!((row.mean.unwrap() - mean).abs() < 1e-15 && row.standard_deviation.unwrap() > 0.0);
}

#[test]
fn stopped_failed_and_resumed_equals_uninterrupted() {
    let expected = uninterrupted();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let stopped = search(&config(), path, None, &mut Arithmetic { stop_after: Some(2), ..Arithmetic::default() });
    assert!(stopped.interrupted && stopped.results.finished == 2);
    let message = stopped.winner().unwrap_err().to_string();
    assert!(message.contains("10 of 12 trials are missing"), "{message}");
    let mut failing = Arithmetic { fail_after: Some(3), ..Arithmetic::default() };
    let error = run_search(&config(), Images::new().data(), path, None, &mut failing).unwrap_err().to_string();
    assert!(error.contains("F=4/8, p=0.25, fold 3 of 3: the cable was pulled"), "{error}");
    // A kill in the middle of a write.
    let journal = path.join("journal.jsonl");
    let text = fs_err::read_to_string(&journal).unwrap();
    fs_err::write(&journal, &text[..text.len() - 10]).unwrap();
    let mut interrupted = Arithmetic { interrupt_after: Some(1), ..Arithmetic::default() };
    assert!(search(&config(), path, None, &mut interrupted).interrupted);
    assert_eq!(interrupted.ran, [4]);
    let mut last = Arithmetic::default();
    let outcome = search(&config(), path, None, &mut last);
    assert_eq!(last.ran, (5..12).collect::<Vec<_>>());
    let work = PlannedWork { settings: 4, trials: 12, finished: 5, missing: 7, ignored: 0 };
    assert_eq!(last.work, Some(work));
    assert_eq!(timeless(&outcome), timeless(&expected));
    assert_eq!(outcome.winner().unwrap(), expected.winner().unwrap());
}

#[test]
fn shards_put_together_equal_one_search() {
    let expected = uninterrupted();
    let merged = tempfile::tempdir().unwrap();
    for (shard, trials) in [("1/3", [0, 3, 6, 9]), ("2/3", [1, 4, 7, 10]), ("3/3", [2, 5, 8, 11])] {
        let directory = tempfile::tempdir().unwrap();
        let mut runner = Arithmetic::default();
        let outcome = search(&config(), directory.path(), Some(shard), &mut runner);
        assert_eq!(runner.ran, trials);
        assert!(outcome.winner().is_err() && !outcome.interrupted);
        assert!(outcome.results.settings.iter().all(|row| row.status == SettingStatus::Incomplete));
        let name = format!("journal-{}.jsonl", shard.replace('/', "-of-"));
        fs_err::copy(directory.path().join(&name), merged.path().join(&name)).unwrap();
    }
    let mut runner = Arithmetic::default();
    let outcome = search(&config(), merged.path(), None, &mut runner);
    assert!(runner.ran.is_empty());
    assert_eq!(timeless(&outcome), timeless(&expected));
}

#[test]
fn a_diverged_setting_is_a_result_and_cannot_win() {
    let directory = tempfile::tempdir().unwrap();
    let mut runner = Arithmetic { diverge_at_filters: Some(8), ..Arithmetic::default() };
    let outcome = search(&config(), directory.path(), None, &mut runner);
    assert_eq!(outcome.winner().unwrap().name(), "F=4/8, p=0.1");
    let last = &outcome.results.settings[3];
    assert_eq!((last.status, last.mean), (SettingStatus::Diverged, None));
    assert_eq!(last.diverged, ["the loss is NaN in epoch 1, step 2"]);
    let mut again = Arithmetic::default();
    assert_eq!(timeless(&search(&config(), directory.path(), None, &mut again)), timeless(&outcome));
    assert!(again.ran.is_empty());
    let all = config().with_overrides(&["search.axes.0.values=[[8, 16]]".to_owned()]).unwrap();
    let outcome = search(&all, directory.path(), None, &mut again);
    assert!(matches!(outcome.winner(), Err(SearchError::AllDiverged)));
}

#[test]
fn scores_that_are_no_numbers_diverge() {
    let epoch = |val_loss| EpochScore { val_accuracy: 0.5, val_loss, val_cross_entropy: None };
    let end = judged(TrialEnd::Finished(vec![epoch(1.0), epoch(f64::NAN)]));
    assert!(
        matches!(&end, TrialEnd::Diverged(reason) if reason.contains("NaN") && reason.contains("epoch 2")),
        "{end:?}"
    );
    assert_eq!(judged(TrialEnd::Finished(vec![epoch(1.0)])), TrialEnd::Finished(vec![epoch(1.0)]));
}

/// Each has settings that the default one lacks.
#[test]
fn trials_of_other_optimizers_are_told_apart() {
    let images = Images::new();
    let keys = ["adam", "sgd", "muon"].map(|kind| {
        let config = config().with_overrides(&[format!("train.optimizer.type={kind}")]).unwrap();
        SearchPlan::new(&config, images.data()).unwrap().trials[0].key.clone()
    });
    assert!(keys[0] != keys[1] && keys[1] != keys[2] && keys[0] != keys[2], "{keys:?}");
    let searched = "search.axes=[{ keys = [\"train.optimizer.type\"], values = [\"adam\", \"sgd\"] }]".to_owned();
    let searched = config().with_overrides(&[searched]).unwrap();
    assert_eq!(SearchPlan::new(&searched, images.data()).unwrap().settings.len(), 2);
}

#[test]
fn only_what_changes_a_result_makes_a_trial_run_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    search(&config(), path, None, &mut Arithmetic::default());
    let rerun = |overrides: &[&str], data: SearchData<'_>| {
        let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
        let config = config().with_overrides(&overrides).unwrap();
        let mut runner = Arithmetic { stop_after: Some(0), ..Arithmetic::default() };
        run_search(&config, data, path, None, &mut runner).unwrap();
        runner.work.unwrap()
    };
    let images = Images::new();
    for unimportant in [
        "data.sources=[\"elsewhere\"]",
        "train.keep=last",
        "train.checkpoint_minutes=1",
        "search.score=best",
        "search.monitor=val_loss",
        "search.axes.0.name=filters",
        "views={ flip = true, shift = 1 }",
    ] {
        assert_eq!(rerun(&[unimportant], images.data()).missing, 0, "{unimportant}");
    }
    for important in ["train.epochs=4", "seed=2", "search.seed=2", "search.folds=4", "train.class_weights=none"] {
        let work = rerun(&[important], images.data());
        assert_eq!((work.missing, work.ignored), (work.trials, 12), "{important}");
    }
    let other = SearchData { fingerprint: "other images", ..images.data() };
    assert_eq!(rerun(&[], other).missing, 12);
    let revoted = SearchData { votes: "other votes", ..images.data() };
    assert_eq!(rerun(&[], revoted).missing, 0, "nobody asks for the votes");
}

#[test]
fn votes_are_part_of_a_trial_that_learns_from_them() {
    let directory = tempfile::tempdir().unwrap();
    let config = config().with_overrides(&["train.targets.votes=0.5".to_owned()]).unwrap();
    search(&config, directory.path(), None, &mut Arithmetic::default());
    let images = Images::new();
    let missing = |data: SearchData<'_>| {
        let mut runner = Arithmetic { stop_after: Some(0), ..Arithmetic::default() };
        run_search(&config, data, directory.path(), None, &mut runner).unwrap();
        runner.work.unwrap().missing
    };
    assert_eq!(missing(images.data()), 0);
    assert_eq!(missing(SearchData { votes: "other votes", ..images.data() }), 12);
}

/// Journals outlive versions of the program: a trial keeps its key while it means the same.
#[test]
fn trials_of_older_journals_are_known_again() {
    // `vultus search` of revision 34d53ad with this configuration wrote these into its journal.
    let text = r#"
        [train]
        epochs = 1
        [search]
        folds = 3
        [[search.axes]]
        name = "F"
        keys = ["network.layers.0.filters", "network.layers.4.filters"]
        values = [[4, 8]]
        [[search.axes]]
        name = "p"
        keys = ["network.layers.*.rate"]
        values = [0.1, 0.25]
    "#;
    let config = TrainConfig::from_toml(text, "text").unwrap();
    let fingerprint = "c76b81d106a46b1871408e3fba501b8718829bf88f1d91349b934efcc22c611b";
    let plan = SearchPlan::new(&config, SearchData { fingerprint, ..Images::new().data() }).unwrap();
    let keys: Vec<&str> = plan.trials.iter().map(|trial| trial.key.as_str()).collect();
    assert_eq!([keys[0], keys[5]], ["e9141ca865c37ec7", "59f1df526af2cf25"]);
}

#[test]
fn a_model_that_trials_begin_with_is_what_is_in_its_file() {
    let (directory, models) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let [old, moved] = ["old", "moved"].map(|name| models.path().join(name));
    std::fs::write(&old, "weights").unwrap();
    std::fs::write(&moved, "weights").unwrap();
    let missing = |model: &Path, stop_after: Option<usize>| {
        let mut config = config();
        config.train.start = model.display().to_string();
        let mut runner = Arithmetic { stop_after, ..Arithmetic::default() };
        run_search(&config, Images::new().data(), directory.path(), None, &mut runner)
            .map(|_| runner.work.unwrap().missing)
    };
    assert_eq!(missing(&old, None).unwrap(), 12);
    assert_eq!(missing(&moved, Some(0)).unwrap(), 0, "the same file in another place");
    std::fs::write(&old, "other weights").unwrap();
    assert_eq!(missing(&old, Some(0)).unwrap(), 12, "another file in the same place");
    let error = missing(&models.path().join("absent"), None).unwrap_err().to_string();
    assert!(error.contains("absent"), "{error}");

    let taught = |distillation: f64| {
        let mut config = config();
        config.train.targets.distillation = distillation;
        config.train.targets.teachers = vec![models.path().join("nobody").display().to_string()];
        let mut runner = Arithmetic { stop_after: Some(0), ..Arithmetic::default() };
        let directory = tempfile::tempdir().unwrap();
        run_search(&config, Images::new().data(), directory.path(), None, &mut runner).map(|_| ())
    };
    assert!(taught(0.5).unwrap_err().to_string().contains("nobody"));
    taught(0.0).unwrap(); // nobody is asked
}

#[test]
fn the_score_can_be_the_loss() {
    let directory = tempfile::tempdir().unwrap();
    let config = config().with_overrides(&["search.monitor=val_loss".to_owned()]).unwrap();
    let outcome = search(&config, directory.path(), None, &mut Arithmetic::default());
    assert_eq!(outcome.winner().unwrap().name(), "F=8/16, p=0.1");
    let means: Vec<f64> = outcome.results.settings.iter().filter_map(|row| row.mean).collect();
    assert!(means.is_sorted(), "{means:?}");
}

#[test]
fn the_number_of_folds_can_be_searched() {
    let text = "[[search.axes]]\nkeys = [\"search.folds\"]\nvalues = [2, 5]\n";
    let config = TrainConfig::from_toml(text, "text").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let outcome = search(&config, directory.path(), None, &mut Arithmetic::default());
    let rows = &outcome.results.settings;
    assert_eq!(outcome.results.trials, 7);
    let mut folds: Vec<usize> = rows.iter().map(|row| row.scores.len()).collect();
    assert!(rows[0].mean > rows[1].mean, "{:?} {:?}", rows[0].mean, rows[1].mean);
    folds.sort_unstable();
    assert_eq!(folds, [2, 5]);
}

#[test]
fn impossible_searches_are_refused_before_the_first_trial() {
    let directory = tempfile::tempdir().unwrap();
    let message = |overrides: &[&str], data: SearchData<'_>| {
        let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
        let config = config().with_overrides(&overrides).unwrap();
        let mut runner = Arithmetic::default();
        let error = run_search(&config, data, directory.path(), None, &mut runner).unwrap_err();
        assert!(runner.ran.is_empty());
        error.to_string()
    };
    let images = Images::new();
    let lonely = Images { names: Labels::new(["happy", "disgust"]).unwrap(), labels: [vec![0; 9], vec![1]].concat() };
    let error = message(&["search.folds=5"], lonely.data());
    assert!(error.contains("class \"disgust\" has 1 image, 5 folds need at least 5"), "{error}");
    let error = message(&["search.folds=1"], images.data());
    assert!(error.contains("search.folds is 1"), "{error}");
    let error = message(&["search.axes.1.keys=[\"network.layers.*.rat\"]"], images.data());
    assert!(error.contains("\"p\"") && error.contains("rat"), "{error}");
    let error = message(&["search.axes.1.values=[0.5, 1.5]"], images.data());
    assert!(error.contains("F=4/8, p=1.5") && error.contains("rate"), "{error}");
    let error = message(&["search.axes.1.keys=[\"views.flip\"]", "search.axes.1.values=[true, false]"], images.data());
    assert!(error.contains("views.flip cannot be searched"), "{error}");
    let error = message(&["search.axes=[]"], images.data());
    assert!(error.contains("nothing to search"), "{error}");
}

#[test]
fn the_files_in_configs_make_the_searches_they_describe() {
    let configs = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs"));
    let names = Labels::new(["angry", "fear", "happy", "neutral", "sad", "surprise"]).unwrap();
    let labels: Vec<usize> = (0..120).map(|index| index % 6).collect();
    let data = SearchData { names: &names, labels: &labels, fingerprint: "", votes: "" };
    let plan = |name: &str| {
        let config = TrainConfig::load(Some(&configs.join(name)), &[]).unwrap();
        SearchPlan::new(&config, data).unwrap()
    };
    let paper = plan("paper-search.toml");
    assert_eq!((paper.settings.len(), paper.trials.len()), (16, 80));
    assert_eq!(paper.settings[0].setting.name(), "F=32/64, k=3, D=128, p=0.1");
    assert_eq!(paper.settings[15].setting.name(), "F=64/128, k=5, D=256, p=0.25");
    // The report's choice, apart from L2, which came with the final model.
    let chosen =
        paper.settings.iter().find(|planned| planned.setting.name() == "F=64/128, k=3, D=128, p=0.25").unwrap();
    let without_l2 = TrainConfig::default().with_overrides(&["network.layers.*.l2=0".to_owned()]).unwrap();
    assert_eq!(chosen.config.network, without_l2.network);
    assert_eq!((chosen.config.train.epochs, chosen.config.train.batch_size, chosen.folds), (10, 32, 5));
    let second = plan("paper-search-stage2.toml");
    assert_eq!(second.settings.len(), 18);
    assert!(second.settings.iter().all(|planned| planned.config.network == without_l2.network));
}
