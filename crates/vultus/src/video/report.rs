//! A film's timeline as one page: stacked curves of probabilities, for everyone and for each person.
//!
//! In: a [`Timeline`] and facts about the film. Out: HTML that loads nothing from elsewhere and has no scripts. It does not
//! write files.

use minijinja::Environment;
use minijinja::value::Serde;
use serde::Serialize;

use super::timeline::{Curve, Timeline};
use crate::annotate::COLOURS;

const TEMPLATE: &str = include_str!("../../templates/video.html.jinja");

/// Persons who get curves of their own.
const MOST_PERSONS: usize = 12;

/// Size of a curve in the units of its drawing.
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 110.0;

/// Facts for the head of the page.
#[derive(Clone, Debug, Serialize)]
pub struct ReportFacts {
    /// The film's name.
    pub film: String,
    /// The model's name.
    pub model: String,
    /// Width and height of the frames in pixels.
    pub size: (u32, u32),
    /// Name and version of the program that writes the page.
    pub program: String,
}

/// One stack of curves.
#[derive(Serialize)]
struct Stack {
    title: String,
    faces: u64,
    /// A path a class, in the order of the labels.
    paths: Vec<String>,
    means: Vec<String>,
}

/// What the template shows.
#[derive(Serialize)]
struct Page<'a> {
    facts: &'a ReportFacts,
    labels: &'a [String],
    colours: Vec<String>,
    stacks: Vec<Stack>,
    /// Texts below the curves, evenly spaced.
    ticks: Vec<String>,
    width: f64,
    height: f64,
    frames: u64,
    frames_per_second: String,
    length: String,
    person_count: u64,
    shown: usize,
    bin_s: String,
}

/// The page about `timeline`, whose classes are `labels`.
///
/// # Errors
/// The template's, which no film can cause.
pub fn page(timeline: &Timeline, labels: &[String], facts: &ReportFacts) -> Result<String, minijinja::Error> {
    let environment = Environment::new();
    let length_s = timeline.length_s();
    let stack = |title: String, curve: &Curve| Stack {
        title,
        faces: curve.faces,
        paths: paths(curve, labels.len(), timeline),
        means: curve.means().iter().map(|mean| format!("{mean:.3}")).collect(),
    };
    let persons = timeline.most_seen(MOST_PERSONS);
    let mut stacks = vec![stack("Everyone".to_owned(), &timeline.everyone)];
    stacks.extend(persons.iter().map(|(number, curve)| stack(format!("Person {number}"), curve)));
    let colours: Vec<String> = (0..labels.len())
        .map(|class| {
            let [red, green, blue] = COLOURS[class % COLOURS.len()].0;
            format!("#{red:02x}{green:02x}{blue:02x}")
        })
        .collect();
    let ticks = (0..=4).map(|quarter| clock(f64::from(quarter) / 4.0 * length_s)).collect();
    let page = Page {
        facts,
        labels,
        colours,
        stacks,
        ticks,
        width: WIDTH,
        height: HEIGHT,
        frames: timeline.frames,
        frames_per_second: format!("{:.2}", timeline.frames as f64 / length_s),
        length: clock(length_s),
        person_count: timeline.person_count,
        shown: persons.len(),
        bin_s: format!("{:.1}", timeline.bin_s),
    };
    environment.render_named_str("video.html", TEMPLATE, Serde(&page))
}

/// One closed path a class, each standing on the one before; a gap where frames were looked at and nobody was seen.
fn paths(curve: &Curve, classes: usize, timeline: &Timeline) -> Vec<String> {
    let mut paths = vec![String::new(); classes];
    let points: Vec<(usize, Vec<f64>)> = curve.points().collect();
    let x = |bin: usize| (bin as f64 * timeline.bin_s / timeline.length_s() * WIDTH).min(WIDTH);
    for run in points.chunk_by(|a, b| timeline.next_bin(a.0) == Some(b.0)) {
        let mut below = vec![0.0; run.len()];
        for (class, path) in paths.iter_mut().enumerate() {
            let above: Vec<f64> = run
                .iter()
                .zip(&below)
                .map(|((_, means), below)| below + means.get(class).copied().unwrap_or(0.0))
                .collect();
            // A bin is a step to the next one, so that one alone is seen, too.
            let edge = |heights: &[f64], backwards: bool| {
                let steps = run.iter().zip(heights).flat_map(|((bin, _), height)| {
                    let y = HEIGHT * (1.0 - height.min(1.0));
                    [(x(*bin), y), (timeline.next_bin(*bin).map_or(WIDTH, x), y)]
                });
                let mut steps: Vec<(f64, f64)> = steps.collect();
                if backwards {
                    steps.reverse();
                }
                steps
            };
            for (index, (x, y)) in edge(&above, false).into_iter().chain(edge(&below, true)).enumerate() {
                path.push_str(&format!("{}{x:.1} {y:.1}", if index == 0 { "M" } else { "L" }));
            }
            path.push('Z');
            below = above;
        }
    }
    paths
}

/// Seconds as `1:02:03` or `2:03`.
fn clock(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::video::timeline::tests::person;

    fn timeline() -> Timeline {
        let mut timeline = Timeline::new(10.0);
        for frame in 0..100 {
            let persons = if (40..60).contains(&frame) { vec![] } else { vec![person(1, frame as f32 / 100.0)] };
            timeline.add(f64::from(frame) / 10.0, &persons);
        }
        timeline
    }

    fn facts() -> ReportFacts {
        ReportFacts {
            film: "<b>holiday</b>.mp4".to_owned(),
            model: "runs/mine".to_owned(),
            size: (640, 480),
            program: "vultus".to_owned(),
        }
    }

    #[test]
    fn curves_are_stacked_from_floor_to_ceiling_with_a_gap_where_nobody_is() {
        let paths = paths(&timeline().everyone, 2, &timeline());
        assert_eq!(paths.len(), 2);
        for path in &paths {
            assert_eq!(path.matches('M').count(), 2, "two runs: {path}");
        }
        // At first only the upper class, which stands on the floor and reaches the ceiling.
        assert!(paths[1].starts_with("M0.0 0.0"), "{}", paths[1]);
        assert!(paths[0].starts_with("M0.0 109"), "{}", paths[0]);
    }

    #[test]
    fn frames_that_come_slower_than_announced_leave_no_gaps() {
        // A camera that announces 30 frames a second, of which 8 are looked at, now and then fewer.
        let mut timeline = Timeline::new(30.0);
        for frame in 0..40 {
            let time_s = f64::from(frame) / 8.0 + if frame > 20 { 1.5 } else { 0.0 };
            timeline.add(time_s, &[person(1, 0.5)]);
        }
        let paths = paths(&timeline.everyone, 2, &timeline);
        for path in &paths {
            assert_eq!(path.matches('M').count(), 1, "one run: {path}");
        }
        assert!(paths[1].starts_with("M0.0 0.0") && paths[1].contains("L960.0 0.0"), "{}", paths[1]);
        assert!(page(&timeline, &[], &facts()).unwrap().contains(" 6.12 a second"));
    }

    #[test]
    fn the_page_is_whole_and_loads_nothing() {
        let labels = ["happy".to_owned(), "sad".to_owned()];
        let page = page(&timeline(), &labels, &facts()).unwrap();
        for word in ["Everyone", "Person 1", "happy", "0:10", "&lt;b&gt;holiday", "Art. 50"] {
            assert!(page.contains(word), "no {word}");
        }
        for word in ["<script", "http://", "https://", "src=", "<b>holiday"] {
            assert!(!page.contains(word), "{word}");
        }
    }

    #[test]
    fn a_film_without_frames_or_faces_is_a_page_too() {
        for timeline in [Timeline::new(10.0), {
            let mut timeline = Timeline::new(10.0);
            timeline.add(0.0, &[]);
            timeline
        }] {
            assert!(page(&timeline, &["happy".to_owned()], &facts()).unwrap().contains("Everyone"));
        }
    }

    #[test]
    fn clocks_have_hours_only_when_needed() {
        assert_eq!([clock(0.0), clock(62.4), clock(3723.0)], ["0:00", "1:02", "1:02:03"]);
    }
}
