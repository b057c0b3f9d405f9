//! The machine's measured peak: how many multiply-adds its cores can do in a second with nothing else in the way.
//!
//! Speeds of kernels are given beside it, because clock rates of shared machines change from hour to hour.

use std::hint::black_box;
use std::time::Instant;

use rayon::prelude::*;

use crate::simd::{InstructionSet, Kernel, Lanes};

/// Multiply-adds of each of the independent chains in one measurement.
const ROUNDS: usize = 400_000;
/// Independent chains: more than latency times throughput of any current processor.
const CHAINS: usize = 12;

struct MultiplyAdds;

impl Kernel for MultiplyAdds {
    type Output = f64;

    #[inline(always)]
    fn run<L: Lanes>(self) -> f64 {
        let (factor, term) = (L::splat(black_box(0.999)), L::splat(black_box(1e-3)));
        let mut chains = [L::splat(black_box(1.0)); CHAINS];
        for _ in 0..ROUNDS {
            for chain in &mut chains {
                *chain = chain.mul_add(factor, term);
            }
        }
        let mut sum = chains[0];
        for &chain in &chains[1..] {
            sum = sum.add(chain);
        }
        let mut lanes = [0.0; 16];
        // SAFETY: no vector has more than sixteen lanes.
        unsafe { sum.store(lanes.as_mut_ptr()) }
        black_box(lanes);
        (ROUNDS * CHAINS * L::WIDTH) as f64
    }
}

/// Multiply-adds a second, of all `threads` threads of the current pool together, in units of 1e9 floating-point
/// operations (a multiply-add is two). The best of thirty measurements of a millisecond or more: other work must not make
/// a peak low.
pub fn measure(threads: usize) -> f64 {
    let set = InstructionSet::best();
    let once = || {
        let started = Instant::now();
        let operations: f64 = (0..threads).into_par_iter().with_max_len(1).map(|_| set.run(MultiplyAdds)).sum();
        2.0 * operations / started.elapsed().as_secs_f64() / 1e9
    };
    (0..30).map(|_| once()).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_machine_does_some_work() {
        assert!(super::measure(1) > 0.1);
    }
}
