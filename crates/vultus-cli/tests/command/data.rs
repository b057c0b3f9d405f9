//! `vultus data`, and what sources do to training: folders, csv files, several at once, and everything unusable in them.

use std::process::Command;

use serde_json::{Value, json};

use crate::picture::{bad_pictures, png};
use crate::program::{Place, Running, SMALL, VULTUS, development_file, read_json};

/// A place with the sample of FER-2013 in `fer2013-small`; `None` where it is absent.
fn place_with_sample() -> Option<Place> {
    let archive = development_file("VULTUS_DATA", "shared/data", "fer2013-small.tar")?;
    let place = Place::with_config();
    let status = Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(place.path("")).status().unwrap();
    assert!(status.success());
    Some(place)
}

/// A folder of two classes with 8 training and 2 test pictures each.
fn place_with_folder() -> Place {
    let place = Place::with_config();
    for (class_number, class) in ["happy", "grumpy"].into_iter().enumerate() {
        for number in 0..10 {
            let split = if number < 8 { "train" } else { "test" };
            place.write(&format!("faces/{split}/{class}/{number}.png"), png(class_number * 10 + number, 48));
        }
    }
    place
}

fn count_of(statistics: &Value, split: &str) -> Value {
    let splits = statistics["splits"].as_array().unwrap();
    splits.iter().find(|row| row["split"] == split).map_or(Value::Null, |row| row["classes"].clone())
}

#[test]
fn the_sample_is_counted_audited_converted_and_learned() {
    let Some(place) = place_with_sample() else { return };
    let outcome = place.run(&["data", "stats", "fer2013-small"]).ends_with(0);
    outcome.prints(&["class", "train", "test", "420", "105", "525", "disgust"]);
    let statistics = place.run(&["data", "stats", "fer2013-small", "--json"]).ends_with(0).json();
    let names = ["angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"];
    assert_eq!(statistics["labels"], json!(names));
    assert_eq!(
        (count_of(&statistics, "train"), count_of(&statistics, "test")),
        (json!(vec![60; 7]), json!(vec![15; 7]))
    );

    let audit = place.run(&["data", "audit", "fer2013-small", "--json"]).ends_with(0).json();
    assert_eq!((&audit["images"], &audit["removed"]), (&json!(525), &json!([])));

    for (source, out) in [("fer2013-small", "a.parquet"), ("a.parquet", "b.csv"), ("b.csv", "c")] {
        place.run(&["data", "convert", source, out]).ends_with(0).prints(&["525 images"]);
        let mut converted = place.run(&["data", "stats", out, "--json"]).ends_with(0).json();
        if out == "a.parquet" {
            assert_eq!(converted, statistics);
        }
        // A csv file like fer2013.csv has no split that is merely called test.
        converted["splits"].take();
        let mut expected = statistics.clone();
        expected["splits"].take();
        assert_eq!(converted, expected, "{out}");
    }

    place.train("run", &["--data", "fer2013-small"]);
    let own = place.run(&["evaluate", "run", "--json"]).ends_with(0).json();
    assert_eq!((&own["split"], &own["n"]), (&json!("test"), &json!(105)));
    // The same pictures from another form of the data give the same numbers.
    let same = place.run(&["evaluate", "run/model.safetensors", "--data", "a.parquet", "--json"]).ends_with(0).json();
    assert_eq!(own, same);
}

#[test]
fn a_class_without_images_is_named() {
    let place = place_with_folder();
    fs_err::create_dir(place.path("faces/train/bored")).unwrap();
    fs_err::create_dir(place.path("faces/test/bored")).unwrap();
    fs_err::create_dir_all(place.path("faces/train/happy/older")).unwrap();
    for command in ["stats", "audit"] {
        let outcome = place.run(&["data", command, "faces"]).ends_with(0);
        let outcome = outcome.says(&["note: there is a folder for class bored, and no image of it"]);
        assert_eq!(outcome.stderr.matches("note:").count(), 1, "{}", outcome.stderr);
    }
    place.write("faces/train/bored/a.png", "no picture");
    let outcome = place.run(&["data", "stats", "faces"]).ends_with(0);
    let outcome = outcome.says(&["note: no image of class bored could be used"]);
    assert_eq!(outcome.stderr.matches("note:").count(), 1, "{}", outcome.stderr);
    fs_err::rename(place.path("faces/test/happy"), place.path("faces/test/hapy")).unwrap();
    let outcome = place.run(&["data", "audit", "faces"]).ends_with(0);
    outcome.says(&["note: split train has no image of hapy", "note: split test has no image of happy"]);
}

#[test]
fn several_sources_are_put_together() {
    let place = place_with_folder();
    let statistics = place.run(&["data", "stats", "faces", "synthetic:4", "--json"]).ends_with(0).json();
    assert_eq!(statistics["images"], 20 + 7 * 5);
    let labels = json!(["angry", "disgust", "fear", "grumpy", "happy", "neutral", "sad", "surprise"]);
    assert_eq!(statistics["labels"], labels);
    assert_eq!(count_of(&statistics, "train"), json!([4, 4, 4, 8, 12, 4, 4, 4]));

    place.train("run", &["--data", "faces", "--data", "synthetic:4"]).says(&["55 images of 8 classes"]);
    assert_eq!(read_json(&place.path("run/evaluation/test/evaluation.json"))["labels"], labels);
    // Sources are kept as absolute paths, so the run can be run again from anywhere.
    let config = fs_err::read_to_string(place.path("run/config.toml")).unwrap();
    assert!(config.contains(&format!("{:?}, \"synthetic:4\"", place.text("faces"))), "{config}");
}

#[test]
fn what_is_named_twice_is_refused() {
    let place = place_with_folder();
    place.train("run", &["--data", "faces"]);
    for arguments in [
        &["data", "stats", "faces", "./faces"][..],
        &["train", "--data", "faces", "--data", "./faces", "--out", "other"],
        &["evaluate", "run", "--data", "faces", "--data", "./faces", "--split", "test"],
    ] {
        place.run(arguments).ends_with(2).says(&["faces holds images of ", "name them once"]);
    }
}

#[test]
fn one_folder_of_own_classes_is_all_train() {
    let place = Place::with_config();
    for number in 0..12 {
        place.write(
            &format!("own/{}/{number}.png", if number % 2 == 0 { "yawning" } else { "winking" }),
            png(number, 60),
        );
    }
    let statistics = place.run(&["data", "stats", "own", "--json"]).ends_with(0).json();
    assert_eq!(count_of(&statistics, "train"), json!([6, 6]));
    assert_eq!(statistics["labels"], json!(["winking", "yawning"]));
    place.train("run", &["--data", "own"]).prints(&["model", "report"]);
}

#[test]
fn duplicates_conflicts_leaks_and_blanks_are_found() {
    let place = place_with_folder();
    place.write("faces/train/happy/copy.png", png(0, 48));
    place.write("faces/train/grumpy/conflict.png", png(1, 48));
    place.write("faces/test/happy/leak.png", png(2, 48));
    place.write("faces/train/happy/black.png", {
        let mut bytes = std::io::Cursor::new(Vec::new());
        image::GrayImage::new(48, 48).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    });
    let audit = place.run(&["data", "audit", "faces", "--json"]).ends_with(0).json();
    let train = audit["splits"].as_array().unwrap().iter().find(|split| split["split"] == "train").unwrap();
    assert_eq!(train["black"]["images"], 1);
    assert_eq!((&train["duplicates"]["groups"], &train["duplicates"]["images"]), (&json!(2), &json!(4)));
    assert_eq!((&train["conflicts"]["groups"], &train["conflicts"]["images"]), (&json!(1), &json!(2)));
    assert_eq!(audit["leaks"][0]["images_of_second"], 1);
    assert_eq!(audit["redundant"], 3);
    place.run(&["data", "audit", "faces", "--list", "faults.csv"]).ends_with(0).prints(&[
        "all black",
        "     1 image\n",
        "duplicates",
        "     2 groups, 4 images, 2 redundant",
        "     1 group, 2 images, 1 redundant",
        "also stands in",
    ]);
    let faults = fs_err::read_to_string(place.path("faults.csv")).unwrap();
    let reasons: Vec<&str> = faults.lines().filter_map(|line| line.split(',').nth(3)).collect();
    assert_eq!(
        reasons,
        ["reason", "leak", "conflict", "conflict", "duplicate", "leak", "blank", "duplicate"],
        "{faults}"
    );
    place.run(&["data", "audit", "faces", "--list", "faults.csv"]).ends_with(2).says(&["faults.csv exists"]);
    place.run(&["data", "audit", "faces", "--list", "faults.txt"]).ends_with(2).says(&["the list is a .csv file"]);
    // Of the folder above, faces is the only class.
    let elsewhere = Place::new();
    let above = place.run(&["train", "--config", "small.toml", "--data", ".", "--out", &elsewhere.text("run")]);
    above.ends_with(2).says(&["all images are of one class, faces", "further down"]);
}

#[test]
fn a_conversion_overwrites_nothing() {
    let place = place_with_folder();
    place.write("out.parquet", "precious");
    place.run(&["data", "convert", "faces", "out.parquet"]).ends_with(2).says(&["out.parquet exists"]);
    assert_eq!(fs_err::read_to_string(place.path("out.parquet")).unwrap(), "precious");
    place.write("empty.csv", "");
    place.run(&["data", "convert", "faces", "empty.csv"]).ends_with(2).says(&["empty.csv exists"]);
    place.run(&["data", "convert", "faces", "new/faces.csv"]).ends_with(2).says(&["there is no folder new"]);
    let misspelt = place.run(&["data", "convert", "faces", "faces.parqet"]);
    misspelt.ends_with(2).says(&["cannot write faces.parqet", ".parquet or .csv", "faces.parqet/"]);
    assert!(!place.path("faces.parqet").exists());
    for folder in ["faces-1.2", "faces.d/"] {
        place.run(&["data", "convert", "faces", folder]).ends_with(0);
        assert!(place.path(folder).is_dir());
    }
    place.write("taken/notes.txt", "mine");
    place.run(&["data", "convert", "faces", "taken"]).ends_with(2).says(&["taken", "already exists"]);
    // What the form cannot hold is a wrong request, and leaves nothing.
    place.write("own/bored/1.png", png(1, 48));
    place.write("own/keen/2.png", png(2, 48));
    place.run(&["data", "convert", "own", "own.csv"]).ends_with(2).says(&["own.csv", "write a folder or .parquet"]);
    assert!(!place.path("own.csv").exists());
}

#[test]
fn images_of_a_class_that_cannot_be_named_are_left_out_and_told() {
    let place = place_with_folder();
    place.write("faces/train/a\u{1}b/1.png", png(3, 48));
    let audit = place.run(&["data", "audit", "faces"]).ends_with(0);
    audit.prints(&["1 image cannot be used", "1.png: its class name", "has a control character"]);
}

#[test]
fn a_folder_with_no_images_is_named() {
    let place = Place::with_config();
    fs_err::create_dir_all(place.path("empty/train/happy")).unwrap();
    place.write("empty/train/happy/notes.txt", "nothing here");
    place.run(&["data", "stats", "empty"]).ends_with(1).says(&["no images found in empty"]);
    place.write("beside/happy/notes.txt", "nothing here");
    place.write("beside/a.png", "no picture");
    place.run(&["data", "stats", "beside"]).ends_with(1).says(&["a.png", "it lies beside the folders of classes"]);
    let arguments = ["train", "--config", "small.toml", "--data", "empty", "--out", "run"];
    place.run(&arguments).ends_with(1).says(&["no images found in", "empty", ".png"]);
    assert!(!place.path("run").exists(), "a slip in the name of the data used up the directory");
    place.run(&["data", "stats", "nowhere"]).ends_with(2).says(&["nowhere", "no such file or folder"]);
    place.run(&["data", "stats", "small.toml"]).ends_with(2).says(&["small.toml", "no data source"]);
}

#[test]
fn synthetic_is_drawn_everywhere_and_a_folder_of_that_name_is_not() {
    let place = Place::with_config();
    for number in 0..16 {
        let class = if number % 2 == 0 { "yawning" } else { "winking" };
        place.write(&format!("synthetic/{class}/{number}.png"), png(number, 48));
    }
    let classes = |source: &str| {
        let statistics = place.run(&["data", "stats", source, "--json"]).ends_with(0).json();
        statistics["labels"].as_array().unwrap().len()
    };
    assert_eq!([classes("synthetic:2"), classes("synthetic"), classes("./synthetic")], [7, 7, 2]);
    let few = ["--set", "data.synthetic.train_per_class=6", "--set", "data.synthetic.test_per_class=1"];
    place.train("drawn", &[&["--data", "synthetic"], &few[..]].concat()).says(&["49 images of 7 classes"]);
    place.train("photographed", &["--data", "./synthetic"]).says(&["16 images of 2 classes"]);
    let sources = |run: &str| fs_err::read_to_string(place.path(run).join("config.toml")).unwrap();
    assert!(sources("drawn").contains("[\"synthetic\"]"));
    assert!(sources("photographed").contains(&format!("[{:?}]", place.text("synthetic"))));
    let many = ["--config", "small.toml", "--data", "synthetic", "--set", "data.synthetic.test_per_class=1000000000"];
    place.run(&[&["train", "--out", "many"], &many[..]].concat()).ends_with(2).says(&["data.synthetic.test_per_class"]);
}

#[test]
fn a_sheet_has_the_faces_of_its_configuration() {
    let place = Place::new();
    let sheet = |out: &str, more: &[&str]| {
        place.run(&[&["data", "augment", "synthetic:2", out, "--faces", "2"], more].concat()).ends_with(0);
        fs_err::read(place.path(out)).unwrap()
    };
    let usual = sheet("usual.PNG", &[]);
    place
        .run(&["data", "augment", "synthetic:2", "none.png", "--set", "train.augmentation.flip=0"])
        .ends_with(2)
        .says(&["the configuration changes no image"]);
    assert!(usual == sheet("again.png", &["--set", "data.synthetic.seed=1"]));
    assert!(usual != sheet("other.png", &["--set", "data.synthetic.seed=2"]));
}

#[test]
fn a_folder_of_two_layouts_is_refused() {
    let place = place_with_folder();
    fs_err::create_dir(place.path("tables")).unwrap();
    place.run(&["data", "convert", "faces", "tables/old.parquet"]).ends_with(0);
    place.write("tables/notes/readme.txt", "no picture");
    place.run(&["data", "stats", "tables"]).ends_with(0).prints(&["grumpy"]);
    fs_err::rename(place.path("tables/old.parquet"), place.path("faces/old.parquet")).unwrap();
    let refused = place.run(&["data", "stats", "faces"]).ends_with(1);
    refused.says(&["faces has both", "faces/old.parquet", "faces/test/grumpy/8.png"]);
    place.run(&["data", "stats", "faces/old.parquet"]).ends_with(0).prints(&["grumpy"]);
}

#[test]
fn bad_picture_files_become_rows_with_their_reason() {
    let place = place_with_folder();
    for (name, bytes, _) in bad_pictures() {
        place.write(&format!("faces/train/happy/{name}"), bytes);
    }
    let audit = place.run(&["data", "audit", "faces", "--json"]).ends_with(0).json();
    assert_eq!(audit["images"], 20);
    let rows = audit["removed"].as_array().unwrap();
    assert_eq!(rows.len(), 3, "{rows:?}");
    let text = place.run(&["data", "audit", "faces"]).ends_with(0).prints(&["3 images cannot be used"]).stdout;
    place.train("run", &["--data", "faces"]).says(&["20 images of 2 classes", "3 left out"]);
    let removed = fs_err::read_to_string(place.path("run/removed.csv")).unwrap();
    for (name, _, reason) in bad_pictures() {
        let row = rows.iter().find(|row| row["origin"].as_str().unwrap().ends_with(name)).unwrap();
        assert!(row["detail"].as_str().unwrap().contains(reason), "{row}");
        for output in [&text, &removed] {
            assert!(output.lines().any(|line| line.contains(name) && line.contains(reason)), "{name}: {output}");
        }
    }
}

#[test]
fn only_bad_pictures_are_an_error_with_the_first_reason() {
    let place = Place::new();
    for (name, bytes, _) in bad_pictures() {
        place.write(&format!("faces/happy/{name}"), bytes);
    }
    place.run(&["data", "stats", "faces"]).ends_with(1).says(&["3 were refused", "broken.png", "damaged"]);
}

#[test]
fn bad_csv_rows_are_named_and_the_rest_is_used() {
    let place = Place::with_config();
    let pixels = |count: usize, seed: usize| {
        (0..count).map(|pixel| (pixel * (seed + 3) % 256).to_string()).collect::<Vec<_>>().join(" ")
    };
    let mut text = "emotion,pixels,Usage\n".to_owned();
    for row in 0..16 {
        let usage = if row < 12 { "Training" } else { "PublicTest" };
        text += &format!("{},{},{usage}\n", row % 2 * 3, pixels(2304, row));
    }
    text += &format!("3,{}\n", pixels(2304, 90)); // row 16: no Usage
    text += &format!("3,{},Training\n", pixels(2303, 91)); // row 17
    let source = place.write("fer2013.csv", text);
    let audit = place.run(&["data", "audit", &source, "--json"]).ends_with(0).json();
    assert_eq!(audit["images"], 16);
    let rows: Vec<(&str, &str)> = audit["removed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["origin"].as_str().unwrap(), row["detail"].as_str().unwrap()))
        .collect();
    let [short, few] = rows[..] else { panic!("{rows:?}") };
    assert!(short.0.ends_with("fer2013.csv row 16") && short.1.contains("the row is short"), "{short:?}");
    assert!(few.0.ends_with("fer2013.csv row 17") && few.1.contains("2303 pixels"), "{few:?}");
    place
        .train("run", &["--data", &source])
        .says(&["16 images of 2 classes", "2 left out"])
        .prints(&["public_test (4 images)"]);

    let only_bad = place.write("bad.csv", format!("emotion,pixels,Usage\n3,{},Training\n", pixels(2303, 1)));
    place.run(&["data", "stats", &only_bad]).ends_with(1).says(&["bad.csv row 0", "2303"]);
    let no_column = place.write("other.csv", "label,path\n1,a.png\n");
    place.run(&["data", "stats", &no_column]).ends_with(1).says(&["other.csv", "emotion"]);
}

#[test]
fn a_class_with_one_image_is_named_before_training() {
    let place = place_with_folder();
    place.write("faces/train/rare/0.png", png(40, 48));
    let arguments = ["train", "--config", "small.toml", "--data", "faces", "--out", "run"];
    place.run(&arguments).ends_with(2).says(&["\"rare\"", "1 image", "validation"]);
    assert!(!place.path("run").exists());
}

/// What they write would be images of a class by the next time.
#[test]
fn no_training_and_no_search_lies_among_its_images() {
    let place = place_with_folder();
    for (data, out) in
        [("faces/train", "faces/train/run"), ("faces", "faces/test/happy/run"), ("faces", "faces/test/run")]
    {
        let refused = place.run(&["train", "--config", "small.toml", "--data", data, "--out", out]).ends_with(2);
        refused.says(&[&format!("{out} lies in "), &format!("{data}, and would be read with it"), "--out"]);
        assert!(!place.path(out).exists());
    }
    // Through a link, too.
    #[cfg(unix)]
    {
        fs_err::create_dir(place.path("elsewhere")).unwrap();
        std::os::unix::fs::symlink(place.path("elsewhere"), place.path("faces/train/runs")).unwrap();
        let out = ["train", "--config", "small.toml", "--data", "faces/train", "--out", "faces/train/runs/one"];
        place.run(&out).ends_with(2).says(&["faces/train/runs/one lies in "]);
        fs_err::remove_file(place.path("faces/train/runs")).unwrap();
    }
    place.write("search.toml", SMALL.to_owned() + "[[search.axes]]\nkeys = [\"seed\"]\nvalues = [1, 2]\n");
    let search = ["search", "--config", "search.toml", "--data", "faces", "--out", "faces/train/search"];
    place.run(&search).ends_with(2).says(&["faces/train/search lies in "]);
    // Nor do evaluations, comparisons and sheets.
    place.train("run", &["--data", "faces", "--set", "train.epochs=1"]);
    let read_with = "and would be read with it";
    let evaluate = ["evaluate", "run", "--data", "faces", "--split", "test", "--out", "faces/test/results"];
    place.run(&evaluate).ends_with(2).says(&["faces/test/results lies in faces", read_with]);
    let own = ["evaluate", "run", "--out", "faces/test/results"];
    place.run(&own).ends_with(2).says(&["faces/test/results lies in ", read_with]);
    let compare = ["compare", "run", "--out", "faces/test/results"];
    place.run(&compare).ends_with(2).says(&["faces/test/results lies in ", read_with]);
    let sheet = ["data", "augment", "faces", "faces/test/happy/sheet.png"];
    place.run(&sheet).ends_with(2).says(&["faces/test/happy/sheet.png lies in faces", read_with]);
    assert!(place.files_named("results").is_empty() && place.files_named("sheet").is_empty());
    // Beside the folders of splits nothing is read.
    place.train("faces/runs/one", &["--data", "faces", "--set", "train.epochs=1"]);
    place.run(&["data", "stats", "faces"]).ends_with(0).prints(&["left out  1 no class"]);
}

#[test]
fn a_folder_is_not_converted_into_itself() {
    let place = Place::new();
    place.run(&["data", "convert", "synthetic:1", "faces"]).ends_with(0);
    let inside = ["faces/all.parquet", "faces/new/deeper", "./faces/../faces/all.parquet", "faces"];
    for out in inside {
        place
            .run(&["data", "convert", "faces", out])
            .ends_with(2)
            .says(&[out, "lies in faces, and would be read with it"]);
    }
    // Empty ones are filled, by whatever name they go.
    fs_err::create_dir(place.path("deep")).unwrap();
    place.run(&["data", "convert", "faces", "deep/."]).ends_with(0);
    #[cfg(unix)]
    {
        fs_err::create_dir(place.path("real")).unwrap();
        std::os::unix::fs::symlink("real", place.path("link")).unwrap();
        place.run(&["data", "convert", "faces", "link"]).ends_with(0);
        assert_eq!(fs_err::read_dir(place.path("real")).unwrap().count(), 2);
    }
    fs_err::create_dir(place.path("faces-2")).unwrap();
    place.run(&["data", "convert", "faces", "faces-2/all.parquet"]).ends_with(0);
    place.run(&["data", "convert", "faces", "faces/all.csv"]).ends_with(0);
    place.run(&["data", "convert", "faces-2/all.parquet", "faces-2/new"]).ends_with(0);
    place.run(&["data", "stats", "faces"]).ends_with(0);
}

#[test]
fn a_picture_beside_the_classes_is_told() {
    let place = Place::new();
    place.run(&["data", "convert", "synthetic:12", "faces"]).ends_with(0);
    place.write("faces/train/loose.png", png(3, 48));
    place.write("faces/train/bored/notes.txt", "none yet");
    let told = ["faces/train/loose.png", "it lies beside the folders of classes"];
    place.run(&["data", "convert", "faces", "all.parquet"]).ends_with(0).says(&told);
    place.run(&["data", "stats", "faces"]).ends_with(0).prints(&["1 no class"]);
    place.write("small.toml", SMALL);
    let trained = place.train("run", &["--data", "faces", "--set", "train.epochs=1"]);
    trained
        .says(&["; 1 left out", "note: no image of class bored can be read, and the model will not know that class"]);
}

#[cfg(unix)]
#[test]
fn what_is_interrupted_leaves_nothing_behind() {
    let place = Place::new();
    for out in ["faces.csv", "faces"] {
        let mut running = place.start("convert", &["data", "convert", "synthetic:1500", out]);
        running.wait_until("it writes", || !place.files_named(".writing-").is_empty());
        assert_eq!(running.signal("-TERM"), Some(130), "{out}");
        assert_eq!(fs_err::read_to_string(place.path("convert.log")).unwrap().lines().last(), Some("interrupted"));
        assert!(place.files_named(".writing-").is_empty() && !place.path(out).exists(), "{out}");
    }
}

#[cfg(unix)]
#[test]
fn what_is_interrupted_near_its_end_is_whole_or_absent() {
    let place = Place::new();
    for number in 0..10 {
        let out = format!("faces-{number}");
        let mut running = place.start("convert", &["data", "convert", "synthetic:60", &out]);
        // The last class of the last split.
        running.wait_until("it is nearly done", || {
            place.files_named("surprise").iter().any(|path| path.parent().unwrap().ends_with("train"))
        });
        let code = running.signal("-TERM");
        let done = place.path(&out).exists();
        // A signal may come between the last step and the end.
        assert!(code == Some(130) || (done && code == Some(0)), "{code:?}");
        let written = place.files_named("im").iter().filter(|path| path.starts_with(place.path(&out))).count();
        assert_eq!(written, if done { 7 * (60 + 15) } else { 0 }, "{out}");
        assert!(place.files_named(".writing-").is_empty());
    }
}

/// As shells start what works in the background.
#[cfg(target_os = "linux")]
#[test]
fn what_is_to_ignore_ctrl_c_does() {
    let place = Place::new();
    let mut shell = Command::new("sh");
    let ignoring = "trap '' INT; exec \"$0\" data convert synthetic:300 faces.csv";
    let mut running = Running::of(shell.args(["-c", ignoring, VULTUS]).current_dir(place.path("")));
    running.wait_until("it writes", || !place.files_named(".writing-").is_empty());
    assert_eq!(running.interrupt(), Some(0));
    assert!(place.path("faces.csv").exists());
}

/// Nobody may have a name of so many letters.
#[cfg(unix)]
#[test]
fn what_may_not_be_looked_at_is_not_called_missing() {
    let place = Place::new();
    let long = "x".repeat(300);
    let [table, network, model, face] = ["csv", "toml", "safetensors", "onnx"].map(|ending| format!("{long}.{ending}"));
    for arguments in [
        &["data", "stats", &table][..],
        &["network", &network],
        &["bench", "--network", &network],
        &["pack", &long, "--out", "a.safetensors"],
        &["export", &model, "--out", "a.onnx"],
        &["compare", &long, &long],
        &["report", &long],
        &["evaluate", &long],
        &["video", &long],
        &["predict", "a.png", "--face-model", &face],
    ] {
        let outcome = place.run(arguments).ends_with(1);
        assert!(outcome.stderr.contains("too long") && outcome.stderr.contains("xxx"), "{}", outcome.stderr);
    }
}
