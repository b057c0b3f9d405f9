//! Which places of a row or column meet under the taps of a kernel.
//!
//! In: one direction of a convolution, forward or back. Out: the taps that meet a place, and runs of places that all meet
//! the same taps. It knows no channels and no numbers.

/// One direction of a convolution. Forward, inputs are read and outputs written; back, the other way round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    /// Places that are read.
    pub(super) from: usize,
    /// Places that are written.
    pub(super) to: usize,
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) padding: usize,
    /// Whether gradients flow back to inputs.
    pub(super) back: bool,
}

/// Places that are written, all with the same taps.
#[derive(Debug, PartialEq)]
pub(super) struct Run {
    /// The first of them.
    pub(super) first: usize,
    /// How many; [`Axis::steps`] says how far apart they are, and what they read.
    pub(super) count: usize,
    /// Taps, each with the place that it reads for the first one.
    pub(super) taps: Vec<(usize, usize)>,
}

impl Axis {
    /// The taps that meet a place which is written, each with the place that it reads.
    pub(super) fn taps(self, place: usize) -> impl Iterator<Item = (usize, usize)> {
        (0..self.kernel).filter_map(move |tap| {
            let from = if self.back {
                let ahead = (place + self.padding).checked_sub(tap)?;
                ahead.is_multiple_of(self.stride).then_some(ahead / self.stride)?
            } else {
                (place * self.stride + tap).checked_sub(self.padding)?
            };
            (from < self.from).then_some((tap, from))
        })
    }

    /// Distances of neighbours in a run: of the places that are written, and of those that are read.
    pub(super) fn steps(self) -> (usize, usize) {
        if self.back { (self.stride, 1) } else { (1, self.stride) }
    }

    /// All places in as few runs as they make.
    pub(super) fn runs(self) -> Vec<Run> {
        let (step, _) = self.steps();
        let mut runs: Vec<Run> = Vec::new();
        for phase in 0..step.min(self.to) {
            let start = runs.len();
            for place in (phase..self.to).step_by(step) {
                let taps: Vec<(usize, usize)> = self.taps(place).collect();
                match runs[start..].last_mut() {
                    Some(run) if run.taps.iter().map(|tap| tap.0).eq(taps.iter().map(|tap| tap.0)) => run.count += 1,
                    _ => runs.push(Run { first: place, count: 1, taps }),
                }
            }
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_padded_row_has_two_ends_and_a_middle() {
        let axis = Axis { from: 6, to: 6, kernel: 3, stride: 1, padding: 1, back: false };
        let run = |first, count, taps: &[(usize, usize)]| Run { first, count, taps: taps.to_vec() };
        let middle = run(1, 4, &[(0, 0), (1, 1), (2, 2)]);
        assert_eq!(axis.runs(), [run(0, 1, &[(1, 0), (2, 1)]), middle, run(5, 1, &[(0, 4), (1, 5)])]);
    }

    #[test]
    fn on_the_way_back_every_phase_of_the_stride_has_its_taps() {
        // Outputs 0 to 2 stand over inputs 0, 2 and 4: even inputs meet taps 0 and 2, odd ones tap 1.
        let axis = Axis { from: 3, to: 7, kernel: 3, stride: 2, padding: 0, back: true };
        let run = |first, count, taps: &[(usize, usize)]| Run { first, count, taps: taps.to_vec() };
        let even = [run(0, 1, &[(0, 0)]), run(2, 2, &[(0, 1), (2, 0)]), run(6, 1, &[(2, 2)])];
        let odd = run(1, 3, &[(1, 0)]);
        assert_eq!(axis.runs()[..3], even);
        assert_eq!(axis.runs()[3..], [odd]);
    }

    #[test]
    fn places_that_nothing_meets_have_no_taps() {
        let axis = Axis { from: 2, to: 5, kernel: 1, stride: 3, padding: 0, back: true };
        let counts: Vec<(usize, usize)> = axis.runs().iter().map(|run| (run.count, run.taps.len())).collect();
        assert_eq!(counts, [(2, 1), (2, 0), (1, 0)]);
    }
}
