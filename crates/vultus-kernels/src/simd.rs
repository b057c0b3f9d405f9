//! Vectors of single-precision numbers, and the choice of instruction set while the program runs.
//!
//! A kernel is written once, against `Lanes`, as a `Kernel`; `InstructionSet::run` calls the copy that was
//! compiled for the machine at hand. The portable copy is plain arrays that the compiler vectorises as it can. The
//! environment variable `VULTUS_SIMD` (`portable`, `avx2`, `avx512`) keeps the choice at or below what it names. It does no
//! arithmetic beyond single vectors.

use std::sync::OnceLock;

use portable::Portable;

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

/// A vector of `WIDTH` single-precision numbers.
///
/// Values of a type are only made inside [`Kernel::run`] as called by [`InstructionSet::run`], and there is an
/// [`InstructionSet`] only where the processor has the instructions; that is what makes the methods without `unsafe` sound.
pub(crate) trait Lanes: Copy + Send + Sync + 'static {
    /// Numbers in the vector.
    const WIDTH: usize;
    /// Vectors of one [`PANEL`], at most two.
    const VECTORS: usize = PANEL / Self::WIDTH;
    /// Vectors of sums of a register tile: for at most twelve rows of two vectors, and six of four.
    const TILE_SUMS: usize;
    /// Most vectors of a row of a register tile, whole panels: two or four. A number is spread over the lanes once for all of them: where
    /// there is one only, a processor with two multiply-adders may be too slow at that for them.
    const TILE_VECTORS: usize;
    /// Most rows of a register tile, however few vectors they have.
    const TILE_ROWS: usize = Self::TILE_SUMS / 2;
    /// Most rows of a register tile with an address for each row.
    const POINTER_ROWS: usize;
    /// Most vectors of sums of a register tile of a product of two packed operands.
    const PANEL_SUMS: usize;

    /// All lanes equal to `value`.
    fn splat(value: f32) -> Self;
    /// `WIDTH` numbers from memory.
    ///
    /// # Safety
    /// `from` is valid for reads of `WIDTH` numbers.
    unsafe fn load(from: *const f32) -> Self;
    /// The first `count` numbers from memory, zero in the other lanes.
    ///
    /// # Safety
    /// `from` is valid for reads of `count` numbers, and `count <= WIDTH`.
    unsafe fn load_some(from: *const f32, count: usize) -> Self;
    /// Writes all lanes.
    ///
    /// # Safety
    /// `to` is valid for writes of `WIDTH` numbers.
    unsafe fn store(self, to: *mut f32);
    /// Writes the first `count` lanes.
    ///
    /// # Safety
    /// `to` is valid for writes of `count` numbers, and `count <= WIDTH`.
    unsafe fn store_some(self, to: *mut f32, count: usize);
    /// `self + other`.
    fn add(self, other: Self) -> Self;
    /// `self - other`.
    fn sub(self, other: Self) -> Self;
    /// `self * other`.
    fn mul(self, other: Self) -> Self;
    /// `self / other`.
    fn div(self, other: Self) -> Self;
    /// The square root.
    fn sqrt(self) -> Self;
    /// `self * factor + term`, rounded once where the processor can.
    fn mul_add(self, factor: Self, term: Self) -> Self;
    /// The larger of `self` and `floor`; NaN in `self` stays.
    fn at_least(self, floor: Self) -> Self;
    /// The larger of two; NaN if either is.
    fn larger(self, other: Self) -> Self;
    /// Zero where `gate <= 0`, `self` elsewhere: also where the gate is NaN.
    fn gated(self, gate: Self) -> Self;
    /// `self` where `left > right`, `otherwise` elsewhere.
    fn where_greater(self, left: Self, right: Self, otherwise: Self) -> Self;
    /// `self` where `left == right`, zero elsewhere.
    fn where_equal(self, left: Self, right: Self) -> Self;
    /// The sum of all lanes, half of them added to the other half until one is left.
    fn sum(self) -> f32;
    /// Transposes a block of `WIDTH` rows and columns: what stands in row `i` and column `j` of `from`, whose rows are
    /// `from_row` numbers apart, goes to row `j` and column `i` of `to`.
    ///
    /// # Safety
    /// `WIDTH` rows of `WIDTH` numbers can be read at `from` and written at `to`.
    unsafe fn transpose(from: *const f32, from_row: usize, to: *mut f32, to_row: usize);

    /// Asks for the cache line of an address, which need not be valid, where the processor takes such advice.
    #[inline(always)]
    fn prefetch(_address: *const f32) {}

    /// As [`Lanes::prefetch`], but no nearer than the second-level cache.
    #[inline(always)]
    fn prefetch_far(_address: *const f32) {}

    /// `factor * self + term` with the same factor in all lanes.
    #[inline(always)]
    fn scaled(self, factor: f32, term: Self) -> Self {
        self.mul_add(Self::splat(factor), term)
    }

    /// `factor * self`.
    #[inline(always)]
    fn times(self, factor: f32) -> Self {
        self.mul(Self::splat(factor))
    }

    /// [`Lanes::load`] of a whole vector, or [`Lanes::load_some`] of what is left of `length` numbers after `first`.
    ///
    /// # Safety
    /// `from` is valid for reads of the numbers `first..min(first + WIDTH, length)`.
    #[inline(always)]
    unsafe fn load_within(from: *const f32, first: usize, length: usize) -> Self {
        // SAFETY: as this function's own contract.
        unsafe {
            if first + Self::WIDTH <= length {
                Self::load(from.add(first))
            } else {
                Self::load_some(from.add(first), length - first)
            }
        }
    }

    /// As [`Lanes::load_within`], and zeros where `first` is past the end.
    ///
    /// # Safety
    /// As for [`Lanes::load_within`].
    #[inline(always)]
    unsafe fn load_padded(from: *const f32, first: usize, length: usize) -> Self {
        if first >= length {
            return Self::splat(0.0);
        }
        // SAFETY: as this function's own contract.
        unsafe { Self::load_within(from, first, length) }
    }

    /// [`Lanes::store`] of a whole vector, or [`Lanes::store_some`] of what is left of `length` numbers after `first`.
    ///
    /// # Safety
    /// `to` is valid for writes of the numbers `first..min(first + WIDTH, length)`.
    #[inline(always)]
    unsafe fn store_within(self, to: *mut f32, first: usize, length: usize) {
        // SAFETY: as this function's own contract.
        unsafe {
            if first + Self::WIDTH <= length {
                self.store(to.add(first));
            } else {
                self.store_some(to.add(first), length - first);
            }
        }
    }
}

/// Columns of a packed panel of a matrix product: a multiple of every vector's width, and one cache line.
pub(crate) const PANEL: usize = 16;

/// Work that is compiled once for each instruction set. Implementations mark `run` and everything it calls
/// `#[inline(always)]`, so that all of it is compiled with the instructions of the caller.
pub(crate) trait Kernel {
    /// What it computes.
    type Output;
    /// Does the work with vectors of type `L`.
    fn run<L: Lanes>(self) -> Self::Output;
}

/// Instructions that a kernel may be run with, which this machine has. Results differ between them by rounding; those with
/// wider vectors are the greater.
///
/// Only [`InstructionSet::available`] makes one, of what it finds the processor to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InstructionSet(Instructions);

/// All instructions that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Instructions {
    /// What every processor of the target has.
    Portable,
    /// 8 lanes with fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 16 lanes with fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

#[cfg(test)]
thread_local! {
    /// What this thread takes for the best.
    static INSTEAD: std::cell::Cell<Option<InstructionSet>> = const { std::cell::Cell::new(None) };
}

/// Names of all instructions on any machine, the simplest first.
const NAMES: [&str; 3] = ["portable", "avx2", "avx512"];

impl InstructionSet {
    /// The best one of this machine, or what the environment variable `VULTUS_SIMD` allows; a value that names none of
    /// them allows all.
    pub fn best() -> Self {
        #[cfg(test)]
        if let Some(set) = INSTEAD.get() {
            return set;
        }
        static BEST: OnceLock<InstructionSet> = OnceLock::new();
        *BEST.get_or_init(|| {
            let most = Self::requested().ok().flatten().unwrap_or(NAMES[NAMES.len() - 1]);
            let rank = |name| NAMES.iter().position(|&known| known == name);
            let allowed = Self::available().into_iter().filter(|set| rank(set.name()) <= rank(most));
            allowed.max().expect("every machine has the portable ones")
        })
    }

    /// Does `work` with these as the best ones that there are, wherever this thread asks for those.
    #[cfg(test)]
    pub(crate) fn as_best<R>(self, work: impl FnOnce() -> R) -> R {
        let before = INSTEAD.replace(Some(self));
        let result = work();
        INSTEAD.set(before);
        result
    }

    /// What the environment variable `VULTUS_SIMD` names, if it is set; the machine need not have it.
    ///
    /// # Errors
    /// Its value, where that is none of the names.
    pub fn requested() -> Result<Option<&'static str>, String> {
        let Some(value) = std::env::var_os("VULTUS_SIMD").filter(|value| !value.is_empty()) else { return Ok(None) };
        let named = NAMES.into_iter().find(|&name| value == name);
        named.map(Some).ok_or_else(|| value.to_string_lossy().into_owned())
    }

    /// All that this machine has, the simplest first.
    pub fn available() -> Vec<Self> {
        let mut sets = vec![Self(Instructions::Portable)];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            sets.push(Self(Instructions::Avx2));
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
                sets.push(Self(Instructions::Avx512));
            }
        }
        sets
    }

    /// The name used in `VULTUS_SIMD` and in reports.
    pub fn name(self) -> &'static str {
        match self.0 {
            Instructions::Portable => NAMES[0],
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => NAMES[1],
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => NAMES[2],
        }
    }

    /// Runs `kernel` with these instructions.
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            Instructions::Portable => kernel.run::<Portable>(),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: only `available` makes this value, where it finds the processor to have AVX2 and FMA.
            Instructions::Avx2 => unsafe { x86::run_avx2(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: only `available` makes this value, where it finds the processor to have AVX2, FMA, and AVX-512 F
            // and VL.
            Instructions::Avx512 => unsafe { x86::run_avx512(kernel) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every operation on a few awkward numbers, lane by lane against plain arithmetic.
    struct Check;

    impl Kernel for Check {
        type Output = ();

        #[inline(always)]
        fn run<L: Lanes>(self) {
            let numbers: Vec<f32> =
                (0..16).map(|i| [1.5, -2.0, 0.0, f32::NAN, f32::INFINITY][i % 5] + i as f32).collect();
            let others: Vec<f32> = (0..16).map(|i| 3.0 - i as f32).collect();
            let all = |vector: L| {
                let mut lanes = [7.0; 16];
                // SAFETY: no vector has more than sixteen lanes.
                unsafe { vector.store(lanes.as_mut_ptr()) }
                lanes
            };
            // SAFETY: sixteen numbers are there, no vector has more lanes.
            let (a, b) = unsafe { (L::load(numbers.as_ptr()), L::load(others.as_ptr())) };
            let check = |vector: L, f: &dyn Fn(f32, f32) -> f32| {
                for (lane, &value) in all(vector).iter().enumerate().take(L::WIDTH) {
                    let expected = f(numbers[lane], others[lane]);
                    assert!(value == expected || value.is_nan() && expected.is_nan(), "lane {lane}: {value}");
                }
            };
            check(a.add(b), &|a, b| a + b);
            check(a.sub(b), &|a, b| a - b);
            check(a.mul(b), &|a, b| a * b);
            check(a.div(b), &|a, b| a / b);
            check(b.sqrt(), &|_, b| b.sqrt());
            check(a.mul_add(b, b), &|a, b| a * b + b);
            check(a.scaled(2.0, b), &|a, b| 2.0 * a + b);
            check(b.times(0.5), &|_, b| 0.5 * b);
            check(a.at_least(b), &|a, b| if a < b { b } else { a });
            check(a.larger(b), &|a, b| if a.is_nan() || a > b { a } else { b });
            check(b.larger(a), &|a, b| if a.is_nan() || a > b { a } else { b });
            check(a.gated(b), &|a, b| if b <= 0.0 { 0.0 } else { a });
            check(b.gated(a), &|a, b| if a <= 0.0 { 0.0 } else { b });
            check(a.where_greater(a, b, b), &|a, b| if a > b { a } else { b });
            check(b.where_equal(a, a), &|a, b| if a.is_nan() { 0.0 } else { b });
            let whole: f32 = others[..L::WIDTH].iter().sum(); // whole numbers: exact in any order
            assert!(b.sum() == whole && a.sum().is_nan());
            let square: Vec<f32> = (0..18 * 16).map(|i| i as f32).collect();
            let mut transposed = vec![-1.0; 17 * 16];
            // SAFETY: sixteen rows are there, of 18 and 17 numbers; no vector has more lanes.
            unsafe { L::transpose(square.as_ptr(), 18, transposed.as_mut_ptr(), 17) }
            for (row, column) in (0..16).flat_map(|row| (0..17).map(move |column| (row, column))) {
                let inside = row < L::WIDTH && column < L::WIDTH;
                let expected = if inside { square[column * 18 + row] } else { -1.0 };
                assert_eq!(transposed[row * 17 + column], expected, "row {row}, column {column}");
            }
            for count in 0..=L::WIDTH {
                // SAFETY: count is at most the width.
                let some = unsafe { L::load_some(others.as_ptr(), count) };
                check(some, &|_, b| if 3.0 - b < count as f32 { b } else { 0.0 });
                let mut target = [9.0; 16];
                // SAFETY: as above.
                unsafe { L::splat(1.0).store_some(target.as_mut_ptr(), count) }
                assert!(target.iter().enumerate().all(|(lane, &v)| v == if lane < count { 1.0 } else { 9.0 }));
            }
        }
    }

    #[test]
    fn every_instruction_set_does_the_same() {
        for set in InstructionSet::available() {
            set.run(Check);
        }
        assert!(InstructionSet::available().contains(&InstructionSet::best()));
    }
}
