//! Who is who from frame to frame.
//!
//! In: the faces of one frame after the other. Out: the same faces with a person's number, and with probabilities smoothed
//! over the time of that person. A face belongs to the person whose box it overlaps most, where it was or moved on as it moved before.
//! Nobody is recognised again after a long absence: a number is not an identity.

use super::Person;
use crate::analyze::AnalyzedFace;
use crate::classifier::highest;
use crate::faces::overlap;

/// How faces become persons.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrackOptions {
    /// Least overlap (common over all area) of a face with where its person is expected.
    pub least_overlap: f32,
    /// How long a person may be out of sight, in seconds. Who is seen again two frames later is the same in any case.
    pub patience_s: f64,
    /// In how many seconds an old frame's weight falls to 1/e; 0 does not smooth.
    pub smoothing_s: f64,
}

impl Default for TrackOptions {
    fn default() -> Self {
        Self { least_overlap: 0.25, patience_s: 1.0, smoothing_s: 0.4 }
    }
}

/// Nobody is gone who is seen again so many frames later, however long they took.
const PATIENCE_FRAMES: u32 = 2;

/// Follows faces.
#[derive(Debug)]
pub struct Tracker {
    options: TrackOptions,
    abstain_below: f32,
    tracks: Vec<Track>,
    last_number: u64,
}

/// A person on their way.
#[derive(Debug)]
struct Track {
    number: u64,
    /// Left, top, width, height when last seen, in pixels.
    bounds: [f32; 4],
    /// Pixels a second of the centre.
    velocity: (f32, f32),
    seen_s: f64,
    /// Frames since then.
    frames: u32,
    /// Smoothed probabilities.
    probabilities: Vec<f32>,
}

impl Tracker {
    /// Nobody is there yet. Smoothed faces below `abstain_below` get no label.
    pub fn new(options: TrackOptions, abstain_below: f32) -> Self {
        Self { options, abstain_below, tracks: Vec::new(), last_number: 0 }
    }

    /// Takes the faces of the frame at `time_s` seconds, later than the one before; gives them back in their order, as
    /// persons.
    pub fn next(&mut self, time_s: f64, faces: Vec<AnalyzedFace>) -> Vec<Person> {
        self.tracks.retain_mut(|track| {
            track.frames += 1;
            track.frames <= PATIENCE_FRAMES || time_s - track.seen_s <= self.options.patience_s
        });
        let bounds: Vec<[f32; 4]> = faces.iter().map(|face| face.area.bounds()).collect();
        let matches = self.matches(time_s, &bounds);
        let mut persons = Vec::with_capacity(faces.len());
        for ((face, bounds), place) in faces.into_iter().zip(bounds).zip(matches) {
            let probabilities = face.probabilities.iter().map(|(_, probability)| *probability).collect();
            let track = match place {
                Some(place) => {
                    self.tracks[place].see(time_s, bounds, probabilities, self.options.smoothing_s);
                    &self.tracks[place]
                }
                None => {
                    self.last_number += 1;
                    let (number, velocity) = (self.last_number, (0.0, 0.0));
                    self.tracks.push(Track { number, bounds, velocity, seen_s: time_s, frames: 0, probabilities });
                    &self.tracks[self.tracks.len() - 1]
                }
            };
            persons.push(track.person(face, self.abstain_below));
        }
        persons
    }

    /// For each box the place of its track; the pairs that overlap most come first.
    fn matches(&self, time_s: f64, bounds: &[[f32; 4]]) -> Vec<Option<usize>> {
        let mut pairs = Vec::new();
        for (place, track) in self.tracks.iter().enumerate() {
            let expected = track.expected(time_s);
            for (face, bounds) in bounds.iter().enumerate() {
                let overlap = overlap(&expected, bounds).max(overlap(&track.bounds, bounds));
                if overlap >= self.options.least_overlap {
                    pairs.push((overlap, place, face));
                }
            }
        }
        pairs.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut matches = vec![None; bounds.len()];
        let mut taken = vec![false; self.tracks.len()];
        for (_, place, face) in pairs {
            if !taken[place] && matches[face].is_none() {
                (taken[place], matches[face]) = (true, Some(place));
            }
        }
        matches
    }
}

impl Track {
    /// Where the box should be by now.
    fn expected(&self, time_s: f64) -> [f32; 4] {
        let [x, y, width, height] = self.bounds;
        let passed = (time_s - self.seen_s) as f32;
        [x + self.velocity.0 * passed, y + self.velocity.1 * passed, width, height]
    }

    fn see(&mut self, time_s: f64, bounds: [f32; 4], probabilities: Vec<f32>, smoothing_s: f64) {
        let passed = (time_s - self.seen_s).max(1e-6);
        let centre = |[x, y, width, height]: [f32; 4]| (x + width / 2.0, y + height / 2.0);
        let ((old_x, old_y), (x, y)) = (centre(self.bounds), centre(bounds));
        // Half of the old motion stays: a detector's boxes tremble.
        let blend = |old: f32, moved: f32| 0.5 * old + 0.5 * moved / passed as f32;
        self.velocity = (blend(self.velocity.0, x - old_x), blend(self.velocity.1, y - old_y));
        let keep = if smoothing_s > 0.0 { (-passed / smoothing_s).exp() as f32 } else { 0.0 };
        for (old, new) in self.probabilities.iter_mut().zip(probabilities) {
            *old = keep * *old + (1.0 - keep) * new;
        }
        (self.bounds, self.seen_s, self.frames) = (bounds, time_s, 0);
    }

    /// `face` with the smoothed probabilities.
    fn person(&self, mut face: AnalyzedFace, abstain_below: f32) -> Person {
        for (entry, smoothed) in face.probabilities.iter_mut().zip(&self.probabilities) {
            entry.1 = *smoothed;
        }
        if !self.probabilities.is_empty() {
            let best = highest(&self.probabilities);
            face.score = self.probabilities[best];
            face.label = (face.score >= abstain_below).then(|| face.probabilities[best].0.clone());
        }
        Person { person: self.number, face }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faces::{Area, Region};

    fn face(x: u32, y: u32, happy: f32) -> AnalyzedFace {
        AnalyzedFace {
            area: Area { x, y, width: 40, height: 40 },
            confidence: 0.9,
            label: Some("happy".to_owned()),
            score: happy,
            probabilities: vec![("happy".to_owned(), happy), ("sad".to_owned(), 1.0 - happy)],
            landmarks: None,
            region: Region::Whole,
        }
    }

    fn numbers(persons: &[Person]) -> Vec<u64> {
        persons.iter().map(|person| person.person).collect()
    }

    #[test]
    fn two_persons_who_pass_each_other_keep_their_numbers() {
        let mut tracker = Tracker::new(TrackOptions::default(), 0.0);
        for frame in 0..40 {
            // One walks to the right, one to the left, a little lower; the finder names them in changing order.
            let (right, left) = (face(frame * 10, 100, 0.9), face(400 - frame * 10, 125, 0.1));
            let time_s = f64::from(frame) / 25.0;
            let numbers = if frame % 2 == 0 {
                numbers(&tracker.next(time_s, vec![right, left]))
            } else {
                let mut numbers = numbers(&tracker.next(time_s, vec![left, right]));
                numbers.reverse();
                numbers
            };
            assert_eq!(numbers, [1, 2], "frame {frame}");
        }
    }

    #[test]
    fn a_person_may_blink_out_but_not_for_long() {
        let mut tracker = Tracker::new(TrackOptions::default(), 0.0);
        assert_eq!(numbers(&tracker.next(0.0, vec![face(10, 10, 0.5)])), [1]);
        assert!(tracker.next(0.5, Vec::new()).is_empty());
        assert_eq!(numbers(&tracker.next(0.9, vec![face(14, 10, 0.5)])), [1]);
        assert!(tracker.next(1.2, Vec::new()).is_empty());
        assert!(tracker.next(1.6, Vec::new()).is_empty());
        assert_eq!(numbers(&tracker.next(2.0, vec![face(14, 10, 0.5)])), [2]);
        assert_eq!(numbers(&tracker.next(2.1, vec![face(300, 10, 0.5), face(14, 10, 0.5)])), [3, 2]);
    }

    #[test]
    fn frames_far_apart_lose_nobody() {
        let mut tracker = Tracker::new(TrackOptions::default(), 0.0);
        for (time_s, faces) in [(0.0, 1), (7.0, 1), (20.0, 0), (31.0, 1)] {
            let persons = tracker.next(time_s, vec![face(10, 10, 0.5); faces]);
            assert_eq!(numbers(&persons), vec![1; faces], "{time_s} s");
        }
    }

    #[test]
    fn probabilities_follow_slowly_and_sum_to_one() {
        let mut tracker = Tracker::new(TrackOptions::default(), 0.6);
        tracker.next(0.0, vec![face(10, 10, 1.0)]);
        let mut labels = Vec::new();
        for frame in 1..30 {
            let persons = tracker.next(f64::from(frame) * 0.04, vec![face(10, 10, 0.0)]);
            let said = &persons[0].face;
            let sum: f32 = said.probabilities.iter().map(|(_, probability)| probability).sum();
            assert!((sum - 1.0).abs() < 1e-5, "{sum}");
            assert_eq!(said.score, said.probabilities.iter().map(|(_, p)| *p).fold(0.0, f32::max));
            labels.push(said.label.clone().unwrap_or_default());
        }
        labels.dedup();
        assert_eq!(labels, ["happy", "", "sad"]);
    }

    #[test]
    fn without_smoothing_a_frame_stands_for_itself() {
        let mut tracker = Tracker::new(TrackOptions { smoothing_s: 0.0, ..TrackOptions::default() }, 0.0);
        tracker.next(0.0, vec![face(10, 10, 1.0)]);
        assert_eq!(tracker.next(0.04, vec![face(10, 10, 0.25)])[0].face.probabilities[0].1, 0.25);
    }
}
