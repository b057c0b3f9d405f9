//! What every person showed when.
//!
//! In: the persons of one frame after the other. Out: curves of mean probabilities over time, for everyone together and
//! for each person. Time is cut into equal bins, at most [`MOST_BINS`]; when a film is longer, two become one. Memory
//! therefore does not grow with the film. Frames may come at any times, later than the one before: it is known of each bin
//! whether a frame was looked at in it.

use std::collections::{BTreeMap, BTreeSet};

use super::Person;

/// Most points of a curve.
pub const MOST_BINS: usize = 600;

/// More persons than this are not kept: those who were seen least go first.
const MOST_PERSONS: usize = 200;

/// Frames of the shortest bins, where frames come as evenly as announced.
const FRAMES_PER_BIN: f64 = 2.0;

/// Sums over one bin of time.
#[derive(Clone, Debug, Default, PartialEq)]
struct Bin {
    /// One sum a class.
    sums: Vec<f64>,
    faces: u32,
}

/// Mean probabilities over time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    bins: BTreeMap<usize, Bin>,
    /// Faces that went into it.
    pub faces: u64,
}

impl Curve {
    fn add(&mut self, bin: usize, probabilities: &[(String, f32)]) {
        self.faces += 1;
        let bin = self.bins.entry(bin).or_default();
        bin.sums.resize(probabilities.len(), 0.0);
        for (sum, (_, probability)) in bin.sums.iter_mut().zip(probabilities) {
            *sum += f64::from(*probability);
        }
        bin.faces += 1;
    }

    /// Makes one bin of each two.
    fn halve(&mut self) {
        for (index, bin) in std::mem::take(&mut self.bins) {
            let both = self.bins.entry(index / 2).or_default();
            both.sums.resize(bin.sums.len(), 0.0);
            for (sum, more) in both.sums.iter_mut().zip(bin.sums) {
                *sum += more;
            }
            both.faces += bin.faces;
        }
    }

    /// The bins that have faces, in order: their number and the mean probability of each class.
    pub fn points(&self) -> impl Iterator<Item = (usize, Vec<f64>)> {
        self.bins.iter().map(|(index, bin)| (*index, bin.sums.iter().map(|sum| sum / f64::from(bin.faces)).collect()))
    }

    /// Mean probability of each class over all faces.
    pub fn means(&self) -> Vec<f64> {
        let mut means = Vec::new();
        for bin in self.bins.values() {
            means.resize(bin.sums.len(), 0.0);
            for (mean, sum) in means.iter_mut().zip(&bin.sums) {
                *mean += sum / self.faces as f64;
            }
        }
        means
    }
}

/// The curves of a film.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeline {
    /// Seconds of one bin.
    pub bin_s: f64,
    /// Frames that were added.
    pub frames: u64,
    /// Time of the last frame in seconds.
    pub end_s: f64,
    /// Bins in which a frame was looked at.
    looked: BTreeSet<usize>,
    /// All persons together.
    pub everyone: Curve,
    persons: BTreeMap<u64, Curve>,
    /// Persons who were counted, also those who are not kept.
    pub person_count: u64,
}

impl Timeline {
    /// For a film of `frames_per_second`, or a camera that announces as many.
    pub fn new(frames_per_second: f64) -> Self {
        Self {
            bin_s: FRAMES_PER_BIN / frames_per_second.max(1e-3),
            frames: 0,
            end_s: 0.0,
            looked: BTreeSet::new(),
            everyone: Curve::default(),
            persons: BTreeMap::new(),
            person_count: 0,
        }
    }

    /// Adds the frame at `time_s` seconds, later than the one before.
    pub fn add(&mut self, time_s: f64, persons: &[Person]) {
        while bin_at(time_s, self.bin_s) >= MOST_BINS {
            self.bin_s *= 2.0;
            self.looked = self.looked.iter().map(|bin| bin / 2).collect();
            self.everyone.halve();
            self.persons.values_mut().for_each(Curve::halve);
        }
        self.frames += 1;
        self.end_s = time_s;
        let bin = bin_at(time_s, self.bin_s);
        self.looked.insert(bin);
        for Person { person, face } in persons {
            self.person_count = self.person_count.max(*person);
            self.everyone.add(bin, &face.probabilities);
            self.persons.entry(*person).or_default().add(bin, &face.probabilities);
        }
        if self.persons.len() > 2 * MOST_PERSONS {
            let mut most: Vec<(u64, u64)> = self.persons.iter().map(|(person, curve)| (curve.faces, *person)).collect();
            most.sort_unstable_by(|a, b| b.cmp(a));
            most.truncate(MOST_PERSONS);
            // Who has just come has had no time yet.
            let kept: BTreeSet<u64> =
                most.iter().map(|(_, person)| *person).chain(persons.iter().map(|person| person.person)).collect();
            self.persons.retain(|person, _| kept.contains(person));
        }
    }

    /// Bins in which a frame was looked at.
    pub fn bins(&self) -> usize {
        self.looked.len()
    }

    /// The next bin after `bin` in which a frame was looked at: until there, what `bin` shows is all that is known.
    pub fn next_bin(&self, bin: usize) -> Option<usize> {
        self.looked.range(bin + 1..).next().copied()
    }

    /// Seconds from the first frame to the end of the last one, which lasts as long as the mean of the others.
    pub fn length_s(&self) -> f64 {
        match self.frames {
            0 | 1 => self.bin_s / FRAMES_PER_BIN,
            frames => self.end_s * frames as f64 / (frames - 1) as f64,
        }
    }

    /// The persons who were seen most, with their numbers; the first of equals first.
    pub fn most_seen(&self, count: usize) -> Vec<(u64, &Curve)> {
        let mut persons: Vec<(u64, &Curve)> = self.persons.iter().map(|(number, curve)| (*number, curve)).collect();
        persons.sort_by_key(|(_, curve)| std::cmp::Reverse(curve.faces));
        persons.truncate(count);
        persons
    }
}

/// The bin of a time, which may lie a little before where the bin begins by rounding alone.
fn bin_at(time_s: f64, bin_s: f64) -> usize {
    (time_s / bin_s + 1e-6) as usize
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::analyze::AnalyzedFace;
    use crate::faces::{Area, Region};

    pub(in crate::video) fn person(person: u64, happy: f32) -> Person {
        let face = AnalyzedFace {
            area: Area { x: 0, y: 0, width: 9, height: 9 },
            confidence: 1.0,
            label: None,
            score: happy,
            probabilities: vec![("happy".to_owned(), happy), ("sad".to_owned(), 1.0 - happy)],
            landmarks: None,
            region: Region::Whole,
        };
        Person { person, face }
    }

    #[test]
    fn a_curve_has_the_means_of_its_bins() {
        let mut timeline = Timeline::new(20.0);
        timeline.add(0.0, &[person(1, 1.0)]);
        timeline.add(0.05, &[person(1, 0.5), person(2, 0.0)]);
        timeline.add(0.34, &[]);
        timeline.add(0.42, &[person(1, 0.25)]);
        let points: Vec<_> = timeline.everyone.points().collect();
        assert_eq!(points, [(0, vec![0.5, 0.5]), (4, vec![0.25, 0.75])]);
        let most = timeline.most_seen(1);
        assert_eq!((most[0].0, most[0].1.faces), (1, 3));
        assert_eq!((timeline.frames, timeline.bins(), timeline.end_s, timeline.person_count), (4, 3, 0.42, 2));
        assert_eq!([0, 3, 4].map(|bin| timeline.next_bin(bin)), [Some(3), Some(4), None]);
        assert!((timeline.length_s() - 0.56).abs() < 1e-9);
    }

    #[test]
    fn a_frame_that_begins_a_bin_is_in_it_however_its_time_is_rounded() {
        let mut timeline = Timeline::new(10.0);
        // 0.6 / 0.2 and 1.4 / 0.2 are a little less than 3 and 7.
        for frame in 0..20 {
            timeline.add(f64::from(frame) / 10.0, &[person(1, 1.0)]);
        }
        assert_eq!(timeline.everyone.bins.values().map(|bin| bin.faces).collect::<Vec<_>>(), [2; 10]);
    }

    #[test]
    fn bins_become_longer_with_the_film_and_are_still_known() {
        let mut timeline = Timeline::new(2.0);
        for second in [0, 1, 599, 600, 2399] {
            timeline.add(f64::from(second), &[person(1, 1.0)]);
        }
        assert_eq!(timeline.bin_s, 4.0);
        assert_eq!([0, 149, 150].map(|bin| timeline.next_bin(bin)), [Some(149), Some(150), Some(599)]);
    }

    #[test]
    fn of_many_who_are_seen_alike_as_many_as_there_is_room_for_stay() {
        let mut timeline = Timeline::new(10.0);
        for number in 0..=2 * MOST_PERSONS as u64 {
            timeline.add(number as f64 / 10.0, &[person(number + 1, 1.0)]);
        }
        assert!((MOST_PERSONS..=MOST_PERSONS + 1).contains(&timeline.persons.len()), "{}", timeline.persons.len());
    }

    #[test]
    fn an_hour_with_many_persons_is_no_larger_than_a_minute_and_keeps_its_means() {
        let mut timeline = Timeline::new(2.5);
        let (mut sum, mut count) = (0.0, 0.0);
        for frame in 0..9000_u64 {
            let happy = (frame % 10) as f32 / 10.0;
            (sum, count) = (sum + f64::from(happy), count + 1.0);
            // The first person stays; others pass.
            let number = if frame % 2 == 0 { 1 } else { 2 + frame };
            timeline.add(frame as f64 * 0.4, &[person(number, happy)]);
        }
        assert!(timeline.everyone.points().count() <= MOST_BINS);
        assert!(timeline.persons.len() <= 2 * MOST_PERSONS);
        assert!((timeline.everyone.means()[0] - sum / count).abs() < 1e-6);
        assert_eq!(timeline.most_seen(1)[0].0, 1);
        assert_eq!(timeline.most_seen(1)[0].1.faces, 4500);
    }
}
