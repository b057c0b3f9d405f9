//! The transforms of Winograd's minimal filtering, F(m x m, r x r) for kernels of r = 3 and 5.
//!
//! In: tiles of vectors, one vector holding a run of channels. Out: the same tiles transformed along one axis; callers
//! apply each transform along both. With `Y = A^T [(G g G^T) . (B^T d B)] A` (Lavin & Gray 2016, "Fast algorithms for
//! convolutional neural networks", equation 8) a tile of m x m outputs costs (m + r - 1)^2 multiplications a channel pair
//! instead of r^2 m^2. Interpolation points of m + r - 1 = 4: 0, 1, -1 and infinity; of 5: also 2; of 6: +-2; of 8: +-2 and
//! +-1/2. Those of 9 are 0, +-1/2, +-1, +-3/2 and +-4 without infinity, chosen by trial for little error in single precision.
//! `B` depends on the points alone: kernels of 3 and of 5 share it.
//!
//! With stride 2 an output sees even inputs by the outer weights of three, and odd inputs by the middle one. Along a side the
//! first is Winograd's F(m, 2) with m + 1 points, the second m plain products: (2 m + 1)^2 multiplications a channel pair
//! instead of 9 m^2, and as many for the gradient of the input, where outputs and inputs change places.

use std::marker::PhantomData;

use crate::simd::Lanes;

/// Vectors along one side of a tile; those beyond a transform's size are not used.
pub(super) type Side<L> = [L; MOST_POINTS];

/// Most points along a side of a tile.
pub(super) const MOST_POINTS: usize = 9;

/// Most weights along a side of a kernel.
pub(super) const MOST_TAPS: usize = 5;

/// F(m x m, r x r) for one m, one r and one stride.
pub(super) trait Transform: Send + Sync + 'static {
    /// m: outputs along a side.
    const OUTPUTS: usize;
    /// r: weights along a side.
    const TAPS: usize;
    /// Points along a side.
    const POINTS: usize = Self::OUTPUTS + Self::TAPS - 1;
    /// Inputs along a side of a tile.
    const INPUTS: usize = Self::POINTS;
    /// Inputs from one tile to the next.
    const STEP: usize = Self::OUTPUTS;
    /// G, `[points, r]`.
    const WEIGHTS: [[f32; MOST_TAPS]; MOST_POINTS];
    /// B^T: from inputs to points.
    fn input<L: Lanes>(d: &Side<L>) -> Side<L>;
    /// A^T: from points to outputs.
    fn output<L: Lanes>(p: &Side<L>) -> Side<L>;
}

/// A transform of a convolution's forward pass, and what its gradients need.
pub(super) trait Forward: Transform {
    /// Inputs from one output to the next.
    const STRIDE: usize = 1;
    /// The transform of the gradient of the input, a convolution with weights turned round.
    type InputGradient: Transform;
    /// A: from gradients of outputs to points.
    fn gradient<L: Lanes>(y: &Side<L>) -> Side<L>;
}

/// What brings a line of a tile to points: an input or a gradient.
pub(super) trait ToPoints {
    /// Vectors of a line.
    const SIDE: usize;
    /// Points of a line.
    const POINTS: usize;
    /// From a line to points.
    fn apply<L: Lanes>(line: &Side<L>) -> Side<L>;
}

/// B^T of a transform.
pub(super) struct OfInput<T>(PhantomData<T>);
/// A of a transform.
pub(super) struct OfGradient<T>(PhantomData<T>);

impl<T: Transform> ToPoints for OfInput<T> {
    const SIDE: usize = T::INPUTS;
    const POINTS: usize = T::POINTS;

    #[inline(always)]
    fn apply<L: Lanes>(line: &Side<L>) -> Side<L> {
        T::input(line)
    }
}

impl<T: Forward> ToPoints for OfGradient<T> {
    const SIDE: usize = T::OUTPUTS;
    const POINTS: usize = T::POINTS;

    #[inline(always)]
    fn apply<L: Lanes>(line: &Side<L>) -> Side<L> {
        T::gradient(line)
    }
}

const UNUSED: [f32; MOST_TAPS] = [0.0; MOST_TAPS];

/// A line of `G` for a kernel of three.
const fn three(a: f32, b: f32, c: f32) -> [f32; MOST_TAPS] {
    [a, b, c, 0.0, 0.0]
}

/// A line of `G` for a kernel of five: `factor` times the powers of a point.
const fn powers(factor: f32, point: f32) -> [f32; MOST_TAPS] {
    let square = point * point;
    [factor, factor * point, factor * square, factor * square * point, factor * square * square]
}

/// The line of `G` for the point at infinity, of a kernel of five.
const INFINITY: [f32; MOST_TAPS] = [0.0, 0.0, 0.0, 0.0, 1.0];

#[inline(always)]
fn side<L: Lanes>() -> Side<L> {
    [L::splat(0.0); MOST_POINTS]
}

/// F(2 x 2, 3 x 3).
pub(super) struct F2;
/// F(3 x 3, 3 x 3).
pub(super) struct F3;
/// F(4 x 4, 3 x 3).
pub(super) struct F4;
/// F(6 x 6, 3 x 3).
pub(super) struct F6;
/// F(7 x 7, 3 x 3).
pub(super) struct F7;
/// F(2 x 2, 5 x 5).
pub(super) struct F2Of5;
/// F(4 x 4, 5 x 5).
pub(super) struct F4Of5;
/// F(3 x 3, 3 x 3) with stride 2: points 0 to 3 of the even inputs, 4 to 6 of the odd ones.
pub(super) struct F3By2;
/// The gradient of its input, for an odd padding: a tile of 6 x 6 begins with a row and a column that the middle weights reach.
pub(super) struct F3By2OfInput;

impl Transform for F2 {
    const OUTPUTS: usize = 2;
    const TAPS: usize = 3;
    const WEIGHTS: [[f32; MOST_TAPS]; MOST_POINTS] = [
        three(1.0, 0.0, 0.0),
        three(0.5, 0.5, 0.5),
        three(0.5, -0.5, 0.5),
        three(0.0, 0.0, 1.0),
        UNUSED,
        UNUSED,
        UNUSED,
        UNUSED,
        UNUSED,
    ];

    #[inline(always)]
    fn input<L: Lanes>(d: &Side<L>) -> Side<L> {
        let mut r = side();
        r[0] = d[0].sub(d[2]);
        r[1] = d[1].add(d[2]);
        r[2] = d[2].sub(d[1]);
        r[3] = d[1].sub(d[3]);
        r
    }

    #[inline(always)]
    fn output<L: Lanes>(p: &Side<L>) -> Side<L> {
        let mut r = side();
        r[0] = p[0].add(p[1]).add(p[2]);
        r[1] = p[1].sub(p[2]).sub(p[3]);
        r
    }
}

impl Forward for F2 {
    type InputGradient = Self;

    #[inline(always)]
    fn gradient<L: Lanes>(y: &Side<L>) -> Side<L> {
        let mut r = side();
        r[0] = y[0];
        r[1] = y[0].add(y[1]);
        r[2] = y[0].sub(y[1]);
        r[3] = y[1].times(-1.0);
        r
    }
}

impl Transform for F3 {
    const OUTPUTS: usize = 3;
    const TAPS: usize = 3;
    const WEIGHTS: [[f32; MOST_TAPS]; MOST_POINTS] = [
        three(0.5, 0.0, 0.0),
        three(-0.5, -0.5, -0.5),
        three(-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0),
        three(1.0 / 6.0, 1.0 / 3.0, 2.0 / 3.0),
        three(0.0, 0.0, 1.0),
        UNUSED,
        UNUSED,
        UNUSED,
        UNUSED,
    ];

    #[inline(always)]
    fn input<L: Lanes>(d: &Side<L>) -> Side<L> {
        let mut r = side();
        let odd = d[3].sub(d[1]);
        r[0] = d[0].sub(d[2]).scaled(2.0, odd);
        r[1] = d[1].scaled(-2.0, d[3]).sub(d[2]);
        r[2] = d[1].scaled(2.0, d[2].scaled(-3.0, d[3]));
        r[3] = odd;
        r[4] = odd.scaled(-2.0, d[4]).sub(d[2]);
        r
    }

    #[inline(always)]
    fn output<L: Lanes>(p: &Side<L>) -> Side<L> {
        let mut r = side();
        let sum = p[1].add(p[2]);
        r[0] = p[0].add(sum).add(p[3]);
        r[1] = p[3].scaled(2.0, p[1].sub(p[2]));
        r[2] = p[3].scaled(4.0, sum.add(p[4]));
        r
    }
}

impl Forward for F3 {
    type InputGradient = Self;

    #[inline(always)]
    fn gradient<L: Lanes>(y: &Side<L>) -> Side<L> {
        let mut r = side();
        let even = y[0].add(y[2]);
        r[0] = y[0];
        r[1] = even.add(y[1]);
        r[2] = even.sub(y[1]);
        r[3] = y[1].scaled(2.0, y[2].scaled(4.0, y[0]));
        r[4] = y[2];
        r
    }
}

impl Transform for F4 {
    const OUTPUTS: usize = 4;
    const TAPS: usize = 3;
    const WEIGHTS: [[f32; MOST_TAPS]; MOST_POINTS] = [
        three(0.25, 0.0, 0.0),
        three(-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0),
        three(-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0),
        three(1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0),
        three(1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0),
        three(0.0, 0.0, 1.0),
        UNUSED,
        UNUSED,
        UNUSED,
    ];

    #[inline(always)]
    fn input<L: Lanes>(d: &Side<L>) -> Side<L> {
        let mut r = side();
        let (t0, t1) = (d[2].scaled(-4.0, d[4]), d[1].scaled(-4.0, d[3]));
        let (t2, t3) = (d[4].sub(d[2]), d[3].sub(d[1]));
        r[0] = d[0].scaled(4.0, d[2].scaled(-5.0, d[4]));
        r[1] = t0.add(t1);
        r[2] = t0.sub(t1);
        r[3] = t3.scaled(2.0, t2);
        r[4] = t3.scaled(-2.0, t2);
        r[5] = d[1].scaled(4.0, d[3].scaled(-5.0, d[5]));
        r
    }

    #[inline(always)]
    fn output<L: Lanes>(p: &Side<L>) -> Side<L> {
        let mut r = side();
        let (sum, difference) = (p[1].add(p[2]), p[1].sub(p[2]));
        let (sum2, difference2) = (p[3].add(p[4]), p[3].sub(p[4]));
        r[0] = p[0].add(sum).add(sum2);
        r[1] = difference2.scaled(2.0, difference);
        r[2] = sum2.scaled(4.0, sum);
        r[3] = difference2.scaled(8.0, difference.add(p[5]));
        r
    }
}

impl Forward for F4 {
    type InputGradient = Self;

    #[inline(always)]
    fn gradient<L: Lanes>(y: &Side<L>) -> Side<L> {
        let mut r = side();
        let (even, odd) = (y[0].add(y[2]), y[1].add(y[3]));
        let (even2, odd2) = (y[2].scaled(4.0, y[0]), y[3].scaled(4.0, y[1]));
        r[0] = y[0];
        r[1] = even.add(odd);
        r[2] = even.sub(odd);
        r[3] = odd2.scaled(2.0, even2);
        r[4] = odd2.scaled(-2.0, even2);
        r[5] = y[3];
        r
    }
}

impl Transform for F6 {
    const OUTPUTS: usize = 6;
    const TAPS: usize = 3;
    const WEIGHTS: [[f32; MOST_TAPS]; MOST_POINTS] = [
        three(1.0, 0.0, 0.0),
        three(-2.0 / 9.0, -2.0 / 9.0, -2.0 / 9.0),
        three(-2.0 / 9.0, 2.0 / 9.0, -2.0 / 9.0),
        three(1.0 / 90.0, 1.0 / 45.0, 2.0 / 45.0),
        three(1.0 / 90.0, -1.0 / 45.0, 2.0 / 45.0),
        three(1.0 / 45.0, 1.0 / 90.0, 1.0 / 180.0),
        three(1.0 / 45.0, -1.0 / 90.0, 1.0 / 180.0),
        three(0.0, 0.0, 1.0),
        UNUSED,
    ];

    #[inline(always)]
    fn input<L: Lanes>(d: &Side<L>) -> Side<L> {
        let mut r = side();
        r[0] = d[4].sub(d[2]).scaled(5.25, d[0].sub(d[6]));
        r[7] = d[3].sub(d[5]).scaled(5.25, d[7].sub(d[1]));
        let even = d[4].scaled(-4.25, d[2].add(d[6]));
        let odd = d[3].scaled(-4.25, d[1].add(d[5]));
        r[1] = even.add(odd);
        r[2] = even.sub(odd);
        let even = d[2].scaled(0.25, d[4].scaled(-1.25, d[6]));
        let odd = d[1].scaled(0.5, d[3].scaled(-2.5, d[5].add(d[5])));
        r[3] = even.add(odd);
        r[4] = even.sub(odd);
        let even = d[4].scaled(-1.25, d[2]).scaled(4.0, d[6]);
        let odd = d[5].scaled(0.5, d[3].scaled(-2.5, d[1].add(d[1])));
        r[5] = even.add(odd);
        r[6] = even.sub(odd);
        r
    }

    #[inline(always)]
    fn output<L: Lanes>(p: &Side<L>) -> Side<L> {
        let mut r = side();
        let (s1, d1) = (p[1].add(p[2]), p[1].sub(p[2]));
        let (s2, d2) = (p[3].add(p[4]), p[3].sub(p[4]));
        let (s3, d3) = (p[5].add(p[6]), p[5].sub(p[6]));
        r[0] = s3.scaled(32.0, p[0].add(s1).add(s2));
        r[2] = s3.scaled(8.0, s2.scaled(4.0, s1));
        r[4] = s3.scaled(2.0, s2.scaled(16.0, s1));
        r[1] = d3.scaled(16.0, d2.scaled(2.0, d1));
        r[3] = d3.scaled(4.0, d2.scaled(8.0, d1));
        r[5] = d2.scaled(32.0, p[7].add(d1).add(d3));
        r
    }
}

impl Forward for F6 {
    type InputGradient = Self;

    #[inline(always)]
    fn gradient<L: Lanes>(y: &Side<L>) -> Side<L> {
        let mut r = side();
        r[0] = y[0];
        r[7] = y[5];
        let even = y[0].add(y[2]).add(y[4]);
        let odd = y[1].add(y[3]).add(y[5]);
        r[1] = even.add(odd);
        r[2] = even.sub(odd);
        let even = y[4].scaled(16.0, y[2].scaled(4.0, y[0]));
        let odd = y[5].scaled(16.0, y[3].scaled(4.0, y[1])).times(2.0);
        r[3] = even.add(odd);
        r[4] = even.sub(odd);
        let even = y[0].scaled(16.0, y[2].scaled(4.0, y[4])).times(2.0);
        let odd = y[1].scaled(16.0, y[3].scaled(4.0, y[5]));
        r[5] = even.add(odd);
        r[6] = even.sub(odd);
        r
    }
}

/// Points of F(7 x 7, 3 x 3) with either sign.
const PAIRS: [f32; 4] = [0.5, 1.0, 1.5, 4.0];

/// Of each pair the factors of x^4, x^2 and 1 in the product of `x^2 - q^2` over the other three pairs q; that of x^6 is 1.
const OTHERS: [[f32; 3]; 4] =
    [[-19.25, 54.25, -36.0], [-18.5, 40.5625, -9.0], [-17.25, 20.25, -4.0], [-3.5, 3.0625, -0.5625]];

/// Powers of each pair's positive point, from 0 to 6.
const POWERS: [[f32; 7]; 4] = {
    let mut powers = [[1.0; 7]; 4];
    let mut pair = 0;
    while pair < 4 {
        let mut exponent = 1;
        while exponent < 7 {
            powers[pair][exponent] = powers[pair][exponent - 1] * PAIRS[pair];
            exponent += 1;
        }
        pair += 1;
    }
    powers
};

impl Transform for F7 {
    const OUTPUTS: usize = 7;
    const TAPS: usize = 3;
    /// 1, p and p^2 of each point p over the product of its distances to the others.
    const WEIGHTS: [[f32; MOST_TAPS]; MOST_POINTS] = [
        three(1.0 / 9.0, 0.0, 0.0),
        three(-16.0 / 189.0, -8.0 / 189.0, -4.0 / 189.0),
        three(-16.0 / 189.0, 8.0 / 189.0, -4.0 / 189.0),
        three(8.0 / 225.0, 8.0 / 225.0, 8.0 / 225.0),
        three(8.0 / 225.0, -8.0 / 225.0, 8.0 / 225.0),
        three(-16.0 / 2475.0, -24.0 / 2475.0, -36.0 / 2475.0),
        three(-16.0 / 2475.0, 24.0 / 2475.0, -36.0 / 2475.0),
        three(1.0 / 103_950.0, 4.0 / 103_950.0, 16.0 / 103_950.0),
        three(1.0 / 103_950.0, -4.0 / 103_950.0, 16.0 / 103_950.0),
    ];

    #[inline(always)]
    fn input<L: Lanes>(d: &Side<L>) -> Side<L> {
        let mut r = side();
        // The product over all four pairs.
        r[0] = d[0].scaled(9.0, d[2].scaled(-49.5625, d[4].scaled(59.0625, d[6].scaled(-19.5, d[8]))));
        for pair in 0..4 {
            let (point, [a, b, c]) = (PAIRS[pair], OTHERS[pair]);
            let even = d[2].scaled(c, d[4].scaled(b, d[6].scaled(a, d[8])));
            let odd = d[1].scaled(c, d[3].scaled(b, d[5].scaled(a, d[7])));
            r[2 * pair + 1] = odd.scaled(point, even);
            r[2 * pair + 2] = odd.scaled(-point, even);
        }
        r
    }

    #[inline(always)]
    fn output<L: Lanes>(p: &Side<L>) -> Side<L> {
        let mut r = side();
        r[0] = p[0];
        for pair in 0..4 {
            let (plus, minus) = (p[2 * pair + 1], p[2 * pair + 2]);
            let both = [plus.add(minus), plus.sub(minus)];
            for output in 0..7 {
                r[output] = both[output % 2].scaled(POWERS[pair][output], r[output]);
            }
        }
        r
    }
}

impl Forward for F7 {
    type InputGradient = Self;

    #[inline(always)]
    fn gradient<L: Lanes>(y: &Side<L>) -> Side<L> {
        let mut r = side();
        r[0] = y[0];
        for pair in 0..4 {
            let point = PAIRS[pair];
            let square = point * point;
            let even = y[6].scaled(square, y[4]).scaled(square, y[2]).scaled(square, y[0]);
            let odd = y[5].scaled(square, y[3]).scaled(square, y[1]);
            r[2 * pair + 1] = odd.scaled(point, even);
            r[2 * pair + 2] = odd.scaled(-point, even);
        }
        r
    }
}

impl Transform for F2Of5 {
    const OUTPUTS: usize = 2;
    const TAPS: usize = 5;
    const WEIGHTS: [[f32; MOST_TAPS]; MOST_POINTS] = [
        powers(0.25, 0.0),
        powers(-1.0 / 6.0, 1.0),
        powers(-1.0 / 6.0, -1.0),
        powers(1.0 / 24.0, 2.0),
        powers(1.0 / 24.0, -2.0),
        INFINITY,
        UNUSED,
        UNUSED,
        UNUSED,
    ];

    #[inline(always)]
    fn input<L: Lanes>(d: &Side<L>) -> Side<L> {
        F4::input(d)
    }

    #[inline(always)]
    fn output<L: Lanes>(p: &Side<L>) -> Side<L> {
        let mut r = side();
        r[0] = p[0].add(p[1].add(p[2])).add(p[3].add(p[4]));
        r[1] = p[3].sub(p[4]).scaled(2.0, p[1].sub(p[2]).add(p[5]));
        r
    }
}

impl Forward for F2Of5 {
    type InputGradient = Self;

    #[inline(always)]
    fn gradient<L: Lanes>(y: &Side<L>) -> Side<L> {
        let mut r = side();
        r[0] = y[0];
        r[1] = y[0].add(y[1]);
        r[2] = y[0].sub(y[1]);
        r[3] = y[1].scaled(2.0, y[0]);
        r[4] = y[1].scaled(-2.0, y[0]);
        r[5] = y[1];
        r
    }
}

impl Transform for F4Of5 {
    const OUTPUTS: usize = 4;
    const TAPS: usize = 5;
    const WEIGHTS: [[f32; MOST_TAPS]; MOST_POINTS] = [
        powers(1.0, 0.0),
        powers(-2.0 / 9.0, 1.0),
        powers(-2.0 / 9.0, -1.0),
        powers(1.0 / 90.0, 2.0),
        powers(1.0 / 90.0, -2.0),
        powers(4.0 / 45.0, 0.5),
        powers(4.0 / 45.0, -0.5),
        INFINITY,
        UNUSED,
    ];

    #[inline(always)]
    fn input<L: Lanes>(d: &Side<L>) -> Side<L> {
        F6::input(d)
    }

    #[inline(always)]
    fn output<L: Lanes>(p: &Side<L>) -> Side<L> {
        let mut r = side();
        let (s1, d1) = (p[1].add(p[2]), p[1].sub(p[2]));
        let (s2, d2) = (p[3].add(p[4]), p[3].sub(p[4]));
        let (s3, d3) = (p[5].add(p[6]), p[5].sub(p[6]));
        r[0] = s3.scaled(8.0, p[0].add(s1).add(s2));
        r[1] = d3.scaled(4.0, d2.scaled(2.0, d1));
        r[2] = s3.scaled(2.0, s2.scaled(4.0, s1));
        r[3] = d2.scaled(8.0, p[7].add(d1).add(d3));
        r
    }
}

impl Forward for F4Of5 {
    type InputGradient = Self;

    #[inline(always)]
    fn gradient<L: Lanes>(y: &Side<L>) -> Side<L> {
        let mut r = side();
        r[0] = y[0];
        r[7] = y[3];
        let (even, odd) = (y[0].add(y[2]), y[1].add(y[3]));
        r[1] = even.add(odd);
        r[2] = even.sub(odd);
        let (even, odd) = (y[2].scaled(4.0, y[0]), y[3].scaled(4.0, y[1]).times(2.0));
        r[3] = even.add(odd);
        r[4] = even.sub(odd);
        let (even, odd) = (y[0].scaled(4.0, y[2]).times(2.0), y[1].scaled(4.0, y[3]));
        r[5] = even.add(odd);
        r[6] = even.sub(odd);
        r
    }
}

/// G of the phases: the outer weights as a kernel of two at 0, 1, -1 and infinity, then the middle one.
const PHASES: [[f32; MOST_TAPS]; MOST_POINTS] = [
    three(1.0, 0.0, 0.0),
    three(0.5, 0.0, 0.5),
    three(0.5, 0.0, -0.5),
    three(0.0, 0.0, 1.0),
    three(0.0, 1.0, 0.0),
    three(0.0, 1.0, 0.0),
    three(0.0, 1.0, 0.0),
    UNUSED,
    UNUSED,
];

/// B^T of the phases: four inputs under the outer weights, three under the middle one.
#[inline(always)]
fn to_phases<L: Lanes>(outer: [L; 4], middle: [L; 3]) -> Side<L> {
    let mut r = side();
    r[0] = outer[0].sub(outer[2]);
    r[1] = outer[1].add(outer[2]);
    r[2] = outer[2].sub(outer[1]);
    r[3] = outer[1].sub(outer[3]);
    (r[4], r[5], r[6]) = (middle[0], middle[1], middle[2]);
    r
}

/// A^T of the outer weights: three sums.
#[inline(always)]
fn from_phases<L: Lanes>(p: &Side<L>) -> [L; 3] {
    let sum = p[1].add(p[2]);
    [p[0].add(sum), p[1].sub(p[2]), sum.sub(p[3])]
}

impl Transform for F3By2 {
    const OUTPUTS: usize = 3;
    const TAPS: usize = 3;
    const POINTS: usize = 7;
    const STEP: usize = 6;
    const WEIGHTS: [[f32; MOST_TAPS]; MOST_POINTS] = PHASES;

    #[inline(always)]
    fn input<L: Lanes>(d: &Side<L>) -> Side<L> {
        to_phases([d[0], d[2], d[4], d[6]], [d[1], d[3], d[5]])
    }

    #[inline(always)]
    fn output<L: Lanes>(p: &Side<L>) -> Side<L> {
        let (mut r, outer) = (side(), from_phases(p));
        for output in 0..3 {
            r[output] = outer[output].add(p[4 + output]);
        }
        r
    }
}

impl Forward for F3By2 {
    const STRIDE: usize = 2;
    type InputGradient = F3By2OfInput;

    #[inline(always)]
    fn gradient<L: Lanes>(y: &Side<L>) -> Side<L> {
        let mut r = side();
        let even = y[0].add(y[2]);
        r[0] = y[0];
        r[1] = even.add(y[1]);
        r[2] = even.sub(y[1]);
        r[3] = y[2].times(-1.0);
        (r[4], r[5], r[6]) = (y[0], y[1], y[2]);
        r
    }
}

impl Transform for F3By2OfInput {
    const OUTPUTS: usize = 6;
    const TAPS: usize = 3;
    const POINTS: usize = 7;
    const INPUTS: usize = 4;
    const STEP: usize = 3;
    const WEIGHTS: [[f32; MOST_TAPS]; MOST_POINTS] = PHASES;

    #[inline(always)]
    fn input<L: Lanes>(d: &Side<L>) -> Side<L> {
        to_phases([d[0], d[1], d[2], d[3]], [d[0], d[1], d[2]])
    }

    #[inline(always)]
    fn output<L: Lanes>(p: &Side<L>) -> Side<L> {
        let outer = from_phases(p);
        let mut r = side();
        (r[0], r[2], r[4]) = (p[4], p[5], p[6]);
        (r[1], r[3], r[5]) = (outer[0], outer[1], outer[2]);
        r
    }
}
