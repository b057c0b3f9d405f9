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
    /// Seconds of a point; none where each point is one frame.
    bin_s: Option<String>,
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
    let (step_s, bins) = (length_s / 4.0, timeline.bins() as u64);
    let places = places_of(step_s);
    let ticks = (0..=4).map(|quarter| clock(f64::from(quarter) * step_s, places)).collect();
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
        length: clock(length_s, places),
        person_count: timeline.person_count,
        shown: persons.len(),
        bin_s: (timeline.frames > bins).then(|| two_digits(timeline.bin_s)),
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

/// Decimals of a second, three at most, by which clock times a step apart are told apart, and no more than a little rounded.
fn places_of(step_s: f64) -> usize {
    (0..3).find(|&places| step_s * 10_f64.powi(places) >= 4.0).unwrap_or(3) as usize
}

/// Seconds as `1:02:03` or `2:03`, or with `places` decimals as `2:03.5`.
fn clock(seconds: f64, places: usize) -> String {
    let parts = 10_u64.pow(places as u32);
    let all = (seconds * parts as f64).round() as u64;
    let (whole, part) = (all / parts, all % parts);
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    let clock =
        if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") };
    if places > 0 { format!("{clock}.{part:0places$}") } else { clock }
}

/// A number above 0 with two digits that say something, or all whole ones.
fn two_digits(number: f64) -> String {
    let decimals = (1.0 - number.log10().floor()).clamp(0.0, 9.0) as usize;
    format!("{number:.decimals$}")
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
        assert_eq!([clock(0.0, 0), clock(62.4, 0), clock(3723.0, 0)], ["0:00", "1:02", "1:02:03"]);
        assert_eq!([clock(0.0, 1), clock(59.96, 1), clock(3723.04, 2)], ["0:00.0", "1:00.0", "1:02:03.04"]);
    }

    #[test]
    fn ticks_of_short_films_are_told_apart() {
        assert_eq!([0.001, 0.01, 0.3, 0.7, 1.3, 4.0, 900.0].map(places_of), [3, 3, 2, 1, 1, 0, 0]);
        let mut timeline = Timeline::new(10.0);
        (0..26).for_each(|frame| timeline.add(f64::from(frame) / 10.0, &[]));
        let page = page(&timeline, &[], &facts()).unwrap();
        for tick in ["0:00.0", "0:00.7", "0:01.3", "0:02.0", "0:02.6"] {
            assert_eq!(page.matches(&format!("<span>{tick}</span>")).count(), 1, "{tick}");
        }
    }

    #[test]
    fn lengths_of_a_point_have_two_digits() {
        let lengths = [1.0 / 30.0, 0.1, 0.96, 2.0, 9.6, 12.8, 409.6];
        assert_eq!(lengths.map(two_digits), ["0.033", "0.10", "0.96", "2.0", "9.6", "13", "410"]);
    }

    #[test]
    fn the_page_counts_in_words() {
        let text = |persons: &[&[u64]]| {
            let mut timeline = Timeline::new(10.0);
            for (frame, persons) in persons.iter().enumerate() {
                let persons: Vec<_> = persons.iter().map(|number| person(*number, 0.5)).collect();
                timeline.add(frame as f64 / 10.0, &persons);
            }
            page(&timeline, &["happy".to_owned(), "sad".to_owned()], &facts()).unwrap()
        };
        let one = text(&[&[1]]);
        for words in ["<p>1 frame of", "\n1 person, with curves of their own.", ">1 face<"] {
            assert!(one.contains(words), "no {words} in {one}");
        }
        assert!(!one.contains("A point is"), "each is a frame");
        let two = text(&[&[1, 2], &[1], &[2]]);
        for words in
            ["<p>3 frames of", "\n2 persons, each with curves of their own.", ">4 faces<", "mean over 0.20 seconds"]
        {
            assert!(two.contains(words), "no {words} in {two}");
        }
        assert!(text(&[&[], &[]]).contains("\n0 persons. Model"));
        let many: Vec<u64> = (1..=13).collect();
        assert!(text(&[&many]).contains("\n13 persons, of whom the 12 seen most have curves of their own."));
    }
}
