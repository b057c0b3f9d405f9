//! Any number of picture files through an [`Analyzer`], in parallel, with bounded memory, results in order.
//!
//! In: an iterator of [`Source`]s, which may be endless. Out: one [`Record`] each, given to a function in the order of
//! the sources; a bad or faceless picture is a record with its reason. Reading, decoding and finding faces in one chunk of
//! files goes on while the faces of the chunk before are classified, all together. It does not know where bytes come from.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::sync_channel;

use image::DynamicImage;

use crate::analyze::{Analysis, AnalyzeError, Analyzer, Prepared, Record, RecordError};
use crate::decode::decode;
use crate::parallel;
use crate::picture_file;

/// Files of the first chunk: the first results come soon.
const FIRST_CHUNK: usize = 4;

/// Files of a later chunk, at most.
const CHUNK: usize = 64;

/// The same where each picture is drawn, which takes long and gains nothing from a large batch.
const DRAWN_CHUNK: usize = 8;

/// A picture file to come.
pub struct Source {
    /// What its record calls it.
    pub path: String,
    /// Gets its bytes; called once, on any thread.
    pub read: Box<dyn FnOnce() -> Result<Vec<u8>, RecordError> + Send>,
}

impl Source {
    /// The file at `path`. A pipe or a device there is not opened: it may never end.
    pub fn file(path: PathBuf) -> Self {
        let name = picture_file::name(&path);
        Self { path: name, read: Box::new(move || Ok(picture_file::read(&path)?)) }
    }
}

/// What is done with each picture while it is in memory: its path, its pixels and its analysis.
pub type Draw<'a> = dyn Fn(&str, &DynamicImage, &Analysis) -> Result<(), RecordError> + Sync + 'a;

/// A file after the parallel half.
enum Half {
    Prepared(Prepared),
    /// With the reason why its drawing is missing.
    Drawn(Analysis, Option<RecordError>),
}

/// Analyzes all `sources` and gives the records to `sink`, in order. With `draw`, each picture's faces are classified by
/// themselves, and `draw` is called on the worker's thread; its error stands beside the result.
///
/// As soon as `stop` says so, no further source is begun; what was begun still becomes records. At most some three chunks
/// of 64 results are in memory, and one decoded picture a thread.
///
/// # Errors
/// The first error of `sink`; nothing is read after it but what was begun.
pub fn run<E>(
    analyzer: &Analyzer,
    sources: impl Iterator<Item = Source> + Send,
    draw: Option<&Draw>,
    stop: impl Fn() -> bool + Sync + Send,
    mut sink: impl FnMut(Record) -> Result<(), E>,
) -> Result<(), E> {
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel::<Vec<(String, Result<Half, RecordError>)>>(1);
        scope.spawn(move || {
            let mut sources = sources;
            let mut size = FIRST_CHUNK;
            loop {
                let chunk: Vec<Source> = sources.by_ref().take(size).collect();
                size = (2 * size).min(if draw.is_some() { DRAWN_CHUNK } else { CHUNK });
                let last = chunk.is_empty();
                let halves = parallel::map(chunk, |source| {
                    let begun = !stop();
                    begun.then(|| {
                        let half = AssertUnwindSafe(|| first_half(analyzer, &source.path, source.read, draw));
                        // A defect that one picture brings to light does not end the work on the others.
                        (catch_unwind(half).unwrap_or_else(|_| Err(RecordError::internal())), source.path)
                    })
                });
                let halves = halves.into_iter().flatten().map(|(half, path)| (path, half)).collect();
                // The receiver is gone after an error of the sink.
                if sender.send(halves).is_err() || last || stop() {
                    return;
                }
            }
        });
        for halves in receiver {
            for record in second_half(analyzer, halves) {
                sink(record)?;
            }
        }
        Ok(())
    })
}

fn first_half(
    analyzer: &Analyzer,
    path: &str,
    read: impl FnOnce() -> Result<Vec<u8>, RecordError>,
    draw: Option<&Draw>,
) -> Result<Half, RecordError> {
    let bytes = read()?;
    let Some(draw) = draw else { return Ok(Half::Prepared(analyzer.prepare_bytes(&bytes)?)) };
    let picture = decode(&bytes, &analyzer.options().limits).map_err(AnalyzeError::from)?;
    drop(bytes);
    let analysis = analyzer.analyze(&picture)?;
    let undrawn = if analysis.faces.is_empty() { None } else { draw(path, &picture, &analysis).err() };
    Ok(Half::Drawn(analysis, undrawn))
}

/// Classifies what is not classified yet, in one batch, and makes records.
fn second_half(analyzer: &Analyzer, halves: Vec<(String, Result<Half, RecordError>)>) -> Vec<Record> {
    let mut prepared = Vec::new();
    let mut waiting = Vec::with_capacity(halves.len());
    for (path, half) in halves {
        let outcome = half.map(|half| match half {
            Half::Drawn(analysis, undrawn) => Some((analysis, undrawn)),
            Half::Prepared(picture) => {
                prepared.push(picture);
                None
            }
        });
        waiting.push((path, outcome));
    }
    // There is one for each that waits.
    let mut classified = analyzer.classify(prepared).into_iter().map(|analysis| (analysis, None));
    let mut records = Vec::with_capacity(waiting.len());
    for (path, outcome) in waiting {
        let outcome = outcome.and_then(|done| done.or_else(|| classified.next()).ok_or_else(RecordError::no_face));
        let (outcome, undrawn) = match outcome {
            Ok((analysis, _)) if analysis.faces.is_empty() => (Err(RecordError::no_face()), None),
            Ok((analysis, undrawn)) => (Ok(analysis), undrawn),
            Err(error) => (Err(error), None),
        };
        records.push(Record { path, outcome, undrawn });
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::AnalyzeOptions;
    use crate::bundle::tests::brightness;
    use crate::classifier::Classifier;
    use crate::faces::{FaceFinder, FaceMethod, FaceOptions};
    use image::{GrayImage, ImageFormat, Luma};
    use std::io::Cursor;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    fn analyzer() -> Analyzer {
        let finder = FaceFinder::new(&FaceMethod::Whole, FaceOptions::default()).unwrap();
        Analyzer::new(Classifier::from_bundle(brightness()).unwrap(), finder, AnalyzeOptions::default())
    }

    /// Source `number`: every seventh is no picture, every eleventh cannot be read.
    fn source(number: usize) -> Source {
        let read = move || {
            if number.is_multiple_of(11) {
                return Err(RecordError { code: "unreadable", message: format!("no file {number}") });
            }
            if number.is_multiple_of(7) {
                return Ok(b"a text".to_vec());
            }
            let mut bytes = Cursor::new(Vec::new());
            let picture = GrayImage::from_pixel(6, 5, Luma([(number % 256) as u8]));
            picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
            Ok(bytes.into_inner())
        };
        Source { path: number.to_string(), read: Box::new(read) }
    }

    fn records(draw: Option<&Draw>) -> Vec<Record> {
        let mut records = Vec::new();
        run(
            &analyzer(),
            (0..200).map(source),
            draw,
            || false,
            |record| {
                records.push(record);
                Ok::<(), ()>(())
            },
        )
        .unwrap();
        records
    }

    #[test]
    fn every_source_is_a_record_in_its_place() {
        let records = records(None);
        assert_eq!(records.len(), 200);
        for (number, record) in records.iter().enumerate() {
            assert_eq!(record.path, number.to_string());
            let said = record.outcome.as_ref().map(|analysis| analysis.faces[0].label.clone().unwrap());
            let expected = match number {
                _ if number.is_multiple_of(11) => Err("unreadable"),
                _ if number.is_multiple_of(7) => Err("not_an_image"),
                _ if number >= 120 => Ok("happy".to_owned()),
                _ => Ok("sad".to_owned()),
            };
            assert_eq!(said.map_err(|error| error.code), expected, "{number}");
        }
    }

    #[test]
    fn drawing_changes_no_record_and_sees_each_good_picture_once() {
        let seen = Mutex::new(Vec::new());
        let draw = |path: &str, picture: &DynamicImage, analysis: &Analysis| {
            assert_eq!((picture.width(), picture.height()), (analysis.width, analysis.height));
            seen.lock().unwrap().push(path.to_owned());
            if path == "13" { Err(RecordError { code: "unwritable", message: "full".to_owned() }) } else { Ok(()) }
        };
        let (drawn, plain) = (records(Some(&draw)), records(None));
        // What cannot be drawn keeps its result.
        for record in &drawn {
            let reason = record.undrawn.as_ref().map(|error| error.code);
            assert_eq!(reason, (record.path == "13").then_some("unwritable"), "{}", record.path);
        }
        for (drawn, plain) in drawn.iter().zip(&plain) {
            // Batches of another size may be rounded otherwise.
            let label = |record: &Record| record.outcome.clone().map(|analysis| analysis.faces[0].label.clone());
            assert_eq!(label(drawn), label(plain));
        }
        let good = plain.iter().filter(|record| record.outcome.is_ok()).count();
        assert_eq!(seen.into_inner().unwrap().len(), good);
    }

    #[test]
    fn a_panic_is_the_record_of_its_picture() {
        let draw = |path: &str, _: &DynamicImage, _: &Analysis| {
            assert_ne!(path, "13", "a defect");
            Ok(())
        };
        let records = records(Some(&draw));
        assert_eq!(records.len(), 200);
        let failed = records.iter().filter(|record| record.error().is_some_and(|error| error.code == "internal"));
        assert_eq!(failed.map(|record| record.path.as_str()).collect::<Vec<_>>(), ["13"]);
    }

    #[test]
    fn after_a_stop_what_was_begun_still_becomes_records() {
        let begun = Arc::new(AtomicUsize::new(0));
        let sources = (1..).map(|number| {
            let (begun, Source { path, read }) = (begun.clone(), source(number));
            let read = move || {
                begun.fetch_add(1, Ordering::SeqCst);
                read()
            };
            Source { path, read: Box::new(read) }
        });
        let stop = || begun.load(Ordering::SeqCst) >= 30;
        let mut numbers: Vec<usize> = Vec::new();
        run(&analyzer(), sources, None, stop, |record| {
            numbers.push(record.path.parse().unwrap());
            Ok::<(), ()>(())
        })
        .unwrap();
        assert_eq!(numbers.len(), begun.load(Ordering::SeqCst));
        assert!(numbers.is_sorted() && numbers.starts_with(&[1, 2, 3, 4]), "{numbers:?}");
        let threads = rayon::current_num_threads();
        assert!((30..30 + threads).contains(&numbers.len()), "{}", numbers.len());
    }

    #[test]
    fn an_error_of_the_sink_ends_the_work() {
        let read = AtomicUsize::new(0);
        let sources = (0..).map(|number| {
            read.fetch_add(1, Ordering::Relaxed);
            source(number)
        });
        let mut left = 70;
        let result = run(
            &analyzer(),
            sources,
            None,
            || false,
            |_| {
                left -= 1;
                if left == 0 { Err("full") } else { Ok(()) }
            },
        );
        assert_eq!(result, Err("full"));
        let read = read.into_inner();
        assert!(read <= 5 * CHUNK, "{read} of endless sources were read");
    }
}
