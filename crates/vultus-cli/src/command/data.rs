//! `vultus data`: stats, audit, convert, augment.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::anyhow;
use image::GrayImage;
use vultus::persist::write_new;
use vultus::preprocess::Preprocessing;
use vultus::wording::counted;
use vultus_train::audit::{Audit, Finding};
use vultus_train::augment::sheet::rows;
use vultus_train::caveat::Caveat;
use vultus_train::clean::{faults, rows_of_removed};
use vultus_train::config::TrainConfig;
use vultus_train::convert::{Form, convert};
use vultus_train::dataset::{DataError, Dataset};
use vultus_train::figure::sheet::sheet;
use vultus_train::source::{LoadOptions, Source, empty_classes, folders_of_classes, load};
use vultus_train::statistics::Statistics;

use super::train::usage_or_data;
use super::{check_ending, check_new, check_outside, is_taken};
use crate::failure::Failure;
use crate::message::say;
use crate::table::{print, print_json, print_table, table};

/// Count, audit and convert data sets, and look at what training does to images.
#[derive(clap::Subcommand)]
pub enum Data {
    /// Images of each class and split.
    Stats(Inspect),
    /// Unreadable and blank images, duplicates, conflicting labels, images in two splits.
    Audit(Inspection),
    /// Write the images in another layout: a folder, a .parquet file, or a .csv file like fer2013.csv.
    Convert(Convert),
    /// Draw a sheet of images as training changes them: each change alone, then all together.
    Augment(Augment),
}

/// What to look at.
#[derive(clap::Args)]
pub struct Inspect {
    /// Images; several are put together.
    #[arg(value_name = "SOURCE", required = true)]
    sources: Vec<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What to look at, and where to write what is found.
#[derive(clap::Args)]
pub struct Inspection {
    #[command(flatten)]
    inspect: Inspect,
    /// Write a row for each image and fault into a new .csv file, with the columns of a run's removed.csv.
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
}

/// What to convert.
#[derive(clap::Args)]
pub struct Convert {
    /// Images.
    source: String,
    /// A new folder, or a new file ending in .parquet or .csv. A folder with another ending needs a slash behind it.
    out: PathBuf,
}

/// What to draw.
#[derive(clap::Args)]
pub struct Augment {
    /// Images.
    source: String,
    /// The sheet, a new .png file.
    out: PathBuf,
    /// Configuration whose train.augmentation is shown. Without one, and without --set train.augmentation..., each change is
    /// shown at half strength.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Overrides a key of the configuration, such as train.augmentation.rotation=0.3.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Number of faces, spread evenly over the images.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=60))]
    faces: u16,
}

impl Augment {
    fn run(self) -> Result<(), Failure> {
        check_ending(&self.out, "png", "the sheet")?;
        check_new(&self.out)?;
        let config = TrainConfig::load(self.config.as_deref(), &self.set).map_err(Failure::usage)?;
        let sets_some = self.set.iter().any(|pair| pair.trim_start().starts_with("train.augmentation"));
        if (self.config.is_some() || sets_some)
            && config.train.augmentation.strengths().iter().all(|(_, strength)| *strength == 0.0)
        {
            return Err(Failure::usage(anyhow!(
                "the configuration changes no image: add --set train.augmentation.flip=1.0 and the like, or leave --config \
                 and such --set out to see each change at half strength"
            )));
        }
        let source = Source::parse(&self.source).map_err(Failure::usage)?;
        check_outside(std::slice::from_ref(&self.source), &self.out, "for OUT")?;
        let dataset = load(&[source], &config.preprocessing, &LoadOptions::of(&config.data))
            .map_err(|error| usage_or_data(error.into()))?;
        let count = usize::from(self.faces).min(dataset.samples.len());
        let place = |index: usize| index * dataset.samples.len() / count;
        let faces: Vec<GrayImage> = (0..count).map(|index| dataset.samples[place(index)].image.clone()).collect();
        let png = sheet(&rows(&faces, &config.train.augmentation, config.seed))?;
        write_new(&self.out, &png)?;
        print(format_args!("{} drawn in {}", counted(faces.len(), "face"), self.out.display()))?;
        Ok(())
    }
}

impl Data {
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Self::Stats(inspect) => inspect.stats(),
            Self::Audit(arguments) => arguments.run(),
            Self::Augment(arguments) => arguments.run(),
            Self::Convert(arguments) => {
                let source = Source::parse(&arguments.source).map_err(Failure::usage)?;
                let form = Form::of(&arguments.out).map_err(Failure::usage)?;
                // A csv file is no part of a folder of images.
                if source.holds(&arguments.out) && form != Form::Csv {
                    let out = arguments.out.display();
                    return Err(Failure::usage(anyhow!(
                        "{out} lies in {source}, and would be read with it: name a place elsewhere"
                    )));
                }
                if form != Form::Folder {
                    check_new(&arguments.out)?;
                } else if is_taken(&arguments.out) {
                    return Err(Failure::usage(DataError::OutputExists { path: arguments.out }));
                }
                let dataset = read(std::slice::from_ref(&arguments.source))?;
                report_removed(&dataset);
                convert(&dataset, &arguments.out).map_err(|error| match error {
                    DataError::OutputExists { .. } | DataError::Unwritable { .. } => Failure::usage(error),
                    _ => Failure::Run(error.into()),
                })?;
                if form != Form::Parquet && dataset.samples.iter().any(|sample| sample.votes.is_some()) {
                    say("note: the votes of FER+ are not in it: only Parquet files hold them");
                }
                print(format_args!(
                    "{} written to {}",
                    counted(dataset.samples.len(), "image"),
                    arguments.out.display()
                ))?;
                Ok(())
            }
        }
    }
}

impl Inspect {
    fn stats(&self) -> Result<(), Failure> {
        let dataset = read(&self.sources)?;
        let statistics = Statistics::compute(&dataset);
        if self.json {
            print_json(&statistics)?;
            return Ok(());
        }
        let mut rows = table(
            ["class".to_owned()]
                .into_iter()
                .chain(statistics.splits.iter().map(|split| split.split.clone()))
                .chain(["total".to_owned()]),
        );
        for (class, label) in statistics.labels.iter().enumerate() {
            let mut row = vec![label.clone()];
            row.extend(statistics.splits.iter().map(|split| split.classes[class].to_string()));
            row.push(statistics.classes[class].to_string());
            rows.add_row(row);
        }
        let mut totals = vec!["total".to_owned()];
        totals.extend(statistics.splits.iter().map(|split| split.images.to_string()));
        totals.push(statistics.images.to_string());
        rows.add_row(totals);
        print_table(&rows)?;
        print("")?;
        print(format_args!(
            "pixels    mean {:.2}, standard deviation {:.2}",
            statistics.pixel_mean, statistics.pixel_standard_deviation
        ))?;
        if statistics.with_votes > 0 {
            print(format_args!("FER+      {} images have votes", statistics.with_votes))?;
        }
        for removal in &statistics.removed {
            print(format_args!("left out  {} {}", removal.images, removal.reason.name().replace('_', " ")))?;
        }
        Ok(())
    }
}

impl Inspection {
    fn run(&self) -> Result<(), Failure> {
        if let Some(list) = &self.list {
            check_ending(list, "csv", "the list")?;
            check_new(list)?;
        }
        let dataset = read(&self.inspect.sources)?;
        if let Some(list) = &self.list {
            write_new(list, &rows_of_removed(&faults(&dataset))?)?;
            say(format_args!("list written to {}", list.display()));
        }
        let audit = Audit::compute(&dataset);
        if self.inspect.json {
            print_json(&audit)?;
            return Ok(());
        }
        print(format_args!("{}, {} of them redundant", counted(audit.images, "image"), audit.redundant))?;
        for split in &audit.splits {
            print(format_args!("\n{} ({})", split.split, counted(split.images, "image")))?;
            finding("all black", &split.black)?;
            finding("nearly flat", &split.nearly_flat)?;
            if let Some(not_a_face) = &split.not_a_face {
                finding("no face, say most FER+ taggers", not_a_face)?;
            }
            for (name, groups) in [("duplicates", &split.duplicates), ("conflicting labels", &split.conflicts)] {
                print(format_args!(
                    "  {:<32}{:>6} group{}, {}, {} redundant",
                    name,
                    groups.groups,
                    if groups.groups == 1 { "" } else { "s" },
                    counted(groups.images, "image"),
                    groups.redundant
                ))?;
                if let Some(example) = groups.examples.first() {
                    print(format_args!("  {:<32}  such as {}", "", example.join(" = ")))?;
                }
            }
        }
        for leak in &audit.leaks {
            print(format_args!(
                "\n{} of {} also {} in {} ({} with another label there)",
                leak.images_of_second,
                leak.second,
                if leak.images_of_second == 1 { "stands" } else { "stand" },
                leak.first,
                leak.conflicting
            ))?;
            if let Some((first, second)) = leak.examples.first() {
                print(format_args!("  such as {second} = {first}"))?;
            }
        }
        if !audit.removed.is_empty() {
            print(format_args!("\n{} cannot be used:", counted(audit.removed.len(), "image")))?;
            for removal in &audit.removed {
                print(format_args!("  {}: {}", removal.origin, removal.detail))?;
            }
        }
        Ok(())
    }
}

fn finding(name: &str, finding: &Finding) -> std::io::Result<()> {
    let images = finding.images;
    print(format_args!("  {name:<32}{images:>6} image{}", if images == 1 { "" } else { "s" }))?;
    match finding.examples.first() {
        Some(example) => print(format_args!("  {:<32}  such as {example}", "")),
        None => Ok(()),
    }
}

/// Reads sources at the usual size.
fn read(sources: &[String]) -> Result<Dataset, Failure> {
    let sources = sources
        .iter()
        .map(|text| Source::parse(text))
        .collect::<Result<Vec<_>, DataError>>()
        .map_err(Failure::usage)?;
    let dataset = load(&sources, &Preprocessing::default(), &LoadOptions::default())
        .map_err(|error| usage_or_data(error.into()))?;
    if let [only] = dataset.labels.names() {
        let folders = sources.iter().any(|source| matches!(source, Source::Folder(_)));
        let hint = if folders { "; if train/ and test/ lie further down, name that folder" } else { "" };
        say(format_args!("note: there is only one class, {only}{hint}"));
    }
    for folders in folders_of_classes(&sources) {
        say(Caveat::FoldersOfClasses { folders });
    }
    for class in empty_classes(&sources, &dataset) {
        say(format_args!("note: there is a folder for class {class}, and no image of it"));
    }
    let removed: BTreeSet<&str> = dataset.removed.iter().filter_map(|removal| removal.label.as_deref()).collect();
    for class in removed.into_iter().filter(|class| dataset.labels.index_of(class).is_none()) {
        say(format_args!("note: no image of class {class} could be used"));
    }
    for split in dataset.splits() {
        let counts = dataset.class_counts(&dataset.indices_of(&split));
        let without = dataset.labels.names().iter().zip(counts).filter(|&(_, count)| count == 0);
        let without: Vec<&str> = without.map(|(class, _)| class.as_str()).collect();
        if !without.is_empty() {
            say(format_args!("note: split {split} has no image of {}", without.join(", ")));
        }
    }
    Ok(dataset)
}

fn report_removed(dataset: &Dataset) {
    for removal in &dataset.removed {
        say(format_args!("left out: {}: {}", removal.origin, removal.detail));
    }
}
