//! Vectors for x86-64 processors: AVX2 with FMA, and AVX-512.

use std::arch::x86_64::*;

use super::{Kernel, Lanes};

#[target_feature(enable = "avx2,fma")]
pub(super) fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<Avx2>()
}

#[target_feature(enable = "avx2,fma,avx512f,avx512vl")]
pub(super) fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<Avx512>()
}

#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256);

/// A mask with the first `count` of eight lanes set.
#[inline(always)]
fn first_lanes(count: usize) -> __m256i {
    const MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: `count` is at most 8 by the callers' contracts (the minimum makes sure), so that eight numbers from
    // there on are inside the table; AVX2 is there, see the trait.
    unsafe { _mm256_loadu_si256(MASKS.as_ptr().add(8 - count.min(8)).cast()) }
}

/// # Safety
/// The processor has AVX2.
#[inline(always)]
unsafe fn sum_of_eight(lanes: __m256) -> f32 {
    // SAFETY: by this function's contract.
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
    }
}

// In all methods below the instructions exist, because the values do (see the trait); pointers are valid by the
// methods' own contracts.
impl Lanes for Avx2 {
    const WIDTH: usize = 8;
    const POINTER_ROWS: usize = 6;
    const TILE_VECTORS: usize = 2;
    const TILE_SUMS: usize = 12;
    const PANEL_SUMS: usize = 12;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: see above the implementation.
        Self(unsafe { _mm256_set1_ps(value) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see above the implementation.
        Self(unsafe { _mm256_loadu_ps(from) })
    }

    #[inline(always)]
    fn prefetch(address: *const f32) {
        // SAFETY: advice about an address does not read it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }

    #[inline(always)]
    fn prefetch_far(address: *const f32) {
        // SAFETY: advice about an address does not read it.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) }
    }

    #[inline(always)]
    unsafe fn load_some(from: *const f32, count: usize) -> Self {
        // SAFETY: see above the implementation; lanes that the mask leaves out are not read.
        Self(unsafe { _mm256_maskload_ps(from, first_lanes(count)) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see above the implementation.
        unsafe { _mm256_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn store_some(self, to: *mut f32, count: usize) {
        // SAFETY: see above the implementation; lanes that the mask leaves out are not written.
        unsafe { _mm256_maskstore_ps(to, first_lanes(count), self.0) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: see above the implementation.
        Self(unsafe { _mm256_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: see above the implementation.
        Self(unsafe { _mm256_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: see above the implementation.
        Self(unsafe { _mm256_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: see above the implementation.
        Self(unsafe { _mm256_div_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        // SAFETY: see above the implementation.
        Self(unsafe { _mm256_sqrt_ps(self.0) })
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: see above the implementation.
        Self(unsafe { _mm256_fmadd_ps(self.0, factor.0, term.0) })
    }

    #[inline(always)]
    fn at_least(self, floor: Self) -> Self {
        // SAFETY: see above the implementation. The second operand is what comes out if either is NaN.
        Self(unsafe { _mm256_max_ps(floor.0, self.0) })
    }

    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        // SAFETY: see above the implementation. The maximum is the second operand if either is NaN.
        unsafe {
            let nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(self.0, self.0);
            Self(_mm256_blendv_ps(_mm256_max_ps(self.0, other.0), self.0, nan))
        }
    }

    #[inline(always)]
    fn gated(self, gate: Self) -> Self {
        // SAFETY: see above the implementation.
        unsafe { Self(_mm256_and_ps(self.0, _mm256_cmp_ps::<_CMP_NLE_UQ>(gate.0, _mm256_setzero_ps()))) }
    }

    #[inline(always)]
    fn where_greater(self, left: Self, right: Self, otherwise: Self) -> Self {
        // SAFETY: see above the implementation.
        unsafe {
            let greater = _mm256_cmp_ps::<_CMP_GT_OQ>(left.0, right.0);
            Self(_mm256_blendv_ps(otherwise.0, self.0, greater))
        }
    }

    #[inline(always)]
    fn where_equal(self, left: Self, right: Self) -> Self {
        // SAFETY: see above the implementation.
        unsafe { Self(_mm256_and_ps(self.0, _mm256_cmp_ps::<_CMP_EQ_OQ>(left.0, right.0))) }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: see above the implementation.
        unsafe { sum_of_eight(self.0) }
    }

    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
        // SAFETY: see above the implementation; rows and columns are below `WIDTH`.
        unsafe {
            let mut rows = [_mm256_setzero_ps(); 8];
            for (index, row) in rows.iter_mut().enumerate() {
                *row = _mm256_loadu_ps(from.add(index * from_row));
            }
            // Column j of four rows at a time: of j < 4 in the lower half, of j + 4 in the upper.
            let mut fours = [_mm256_setzero_ps(); 8];
            for half in 0..2 {
                let [a, b, c, d] = [0, 1, 2, 3].map(|row| rows[4 * half + row]);
                let (ab, cd) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
                fours[half] = _mm256_shuffle_ps::<0x44>(ab, cd);
                fours[2 + half] = _mm256_shuffle_ps::<0xee>(ab, cd);
                let (ab, cd) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
                fours[4 + half] = _mm256_shuffle_ps::<0x44>(ab, cd);
                fours[6 + half] = _mm256_shuffle_ps::<0xee>(ab, cd);
            }
            for column in 0..4 {
                let (first, second) = (fours[2 * column], fours[2 * column + 1]);
                _mm256_storeu_ps(to.add(column * to_row), _mm256_permute2f128_ps::<0x20>(first, second));
                _mm256_storeu_ps(to.add((column + 4) * to_row), _mm256_permute2f128_ps::<0x31>(first, second));
            }
        }
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512);

#[inline(always)]
fn mask(count: usize) -> __mmask16 {
    ((1_u32 << count.min(16)) - 1) as __mmask16
}

// As above: the instructions exist because the values do, pointers are valid by contract.
impl Lanes for Avx512 {
    const WIDTH: usize = 16;
    const POINTER_ROWS: usize = 8;
    const TILE_VECTORS: usize = 4;
    const TILE_SUMS: usize = 24;
    const PANEL_SUMS: usize = 16;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: see above the implementation.
        Self(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see above the implementation.
        Self(unsafe { _mm512_loadu_ps(from) })
    }

    #[inline(always)]
    fn prefetch(address: *const f32) {
        // SAFETY: advice about an address does not read it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }

    #[inline(always)]
    fn prefetch_far(address: *const f32) {
        // SAFETY: advice about an address does not read it.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) }
    }

    #[inline(always)]
    unsafe fn load_some(from: *const f32, count: usize) -> Self {
        // SAFETY: see above the implementation; lanes that the mask leaves out are not read.
        Self(unsafe { _mm512_maskz_loadu_ps(mask(count), from) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see above the implementation.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn store_some(self, to: *mut f32, count: usize) {
        // SAFETY: see above the implementation; lanes that the mask leaves out are not written.
        unsafe { _mm512_mask_storeu_ps(to, mask(count), self.0) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: see above the implementation.
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: see above the implementation.
        Self(unsafe { _mm512_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: see above the implementation.
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: see above the implementation.
        Self(unsafe { _mm512_div_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        // SAFETY: see above the implementation.
        Self(unsafe { _mm512_sqrt_ps(self.0) })
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: see above the implementation.
        Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, term.0) })
    }

    #[inline(always)]
    fn at_least(self, floor: Self) -> Self {
        // SAFETY: see above the implementation. The second operand is what comes out if either is NaN.
        Self(unsafe { _mm512_max_ps(floor.0, self.0) })
    }

    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        // SAFETY: see above the implementation. The maximum is the second operand if either is NaN.
        unsafe {
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self.0, self.0);
            Self(_mm512_mask_mov_ps(_mm512_max_ps(self.0, other.0), nan, self.0))
        }
    }

    #[inline(always)]
    fn gated(self, gate: Self) -> Self {
        // SAFETY: see above the implementation.
        unsafe {
            let open = _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(gate.0, _mm512_setzero_ps());
            Self(_mm512_maskz_mov_ps(open, self.0))
        }
    }

    #[inline(always)]
    fn where_greater(self, left: Self, right: Self, otherwise: Self) -> Self {
        // SAFETY: see above the implementation.
        unsafe {
            let greater = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(left.0, right.0);
            Self(_mm512_mask_mov_ps(otherwise.0, greater, self.0))
        }
    }

    #[inline(always)]
    fn where_equal(self, left: Self, right: Self) -> Self {
        // SAFETY: see above the implementation.
        unsafe { Self(_mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_EQ_OQ>(left.0, right.0), self.0)) }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: see above the implementation.
        unsafe {
            let upper = _mm512_shuffle_f32x4::<0xee>(self.0, self.0);
            sum_of_eight(_mm512_castps512_ps256(_mm512_add_ps(self.0, upper)))
        }
    }

    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
        // SAFETY: see above the implementation; rows and columns are below `WIDTH`.
        unsafe {
            // Quarter q of `fours[i][j]` is column 4 q + j of the rows 4 i to 4 i + 3.
            let mut fours = [[_mm512_setzero_ps(); 4]; 4];
            for (index, four) in fours.iter_mut().enumerate() {
                let from = from.add(4 * index * from_row);
                let (a, b) = (_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(from_row)));
                let (c, d) = (_mm512_loadu_ps(from.add(2 * from_row)), _mm512_loadu_ps(from.add(3 * from_row)));
                let (ab, cd) = (_mm512_unpacklo_ps(a, b), _mm512_unpacklo_ps(c, d));
                four[0] = _mm512_shuffle_ps::<0x44>(ab, cd);
                four[1] = _mm512_shuffle_ps::<0xee>(ab, cd);
                let (ab, cd) = (_mm512_unpackhi_ps(a, b), _mm512_unpackhi_ps(c, d));
                four[2] = _mm512_shuffle_ps::<0x44>(ab, cd);
                four[3] = _mm512_shuffle_ps::<0xee>(ab, cd);
            }
            for column in 0..4 {
                let to = to.add(column * to_row);
                let even = _mm512_shuffle_f32x4::<0x88>(fours[0][column], fours[1][column]);
                let even_below = _mm512_shuffle_f32x4::<0x88>(fours[2][column], fours[3][column]);
                _mm512_storeu_ps(to, _mm512_shuffle_f32x4::<0x88>(even, even_below));
                _mm512_storeu_ps(to.add(8 * to_row), _mm512_shuffle_f32x4::<0xdd>(even, even_below));
                let odd = _mm512_shuffle_f32x4::<0xdd>(fours[0][column], fours[1][column]);
                let odd_below = _mm512_shuffle_f32x4::<0xdd>(fours[2][column], fours[3][column]);
                _mm512_storeu_ps(to.add(4 * to_row), _mm512_shuffle_f32x4::<0x88>(odd, odd_below));
                _mm512_storeu_ps(to.add(12 * to_row), _mm512_shuffle_f32x4::<0xdd>(odd, odd_below));
            }
        }
    }
}
