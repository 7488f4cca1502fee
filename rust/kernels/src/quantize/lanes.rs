//! Sixteen rows side by side, as plain arrays that the compiler turns into vectors of whatever the level has.

/// Rows that are quantized at once.
pub const LANES: usize = 16;

/// A number of each row.
pub(super) type Lanes = [f32; LANES];

/// The same number for each row.
#[inline(always)]
pub(super) fn all(value: f32) -> Lanes {
    [value; LANES]
}

/// `f` of each lane.
#[inline(always)]
pub(super) fn map2(a: &Lanes, b: &Lanes, f: impl Fn(f32, f32) -> f32) -> Lanes {
    core::array::from_fn(|l| f(a[l], b[l]))
}

/// `1 / x`, and 0 where `x` is 0.
#[inline(always)]
pub(super) fn reciprocals(x: &Lanes) -> Lanes {
    x.map(|x| if x == 0.0 { 0.0 } else { 1.0 / x })
}

/// `then` where `take`, else `or`.
#[inline(always)]
pub(super) fn select(take: &[bool; LANES], then: &Lanes, or: &Lanes) -> Lanes {
    core::array::from_fn(|l| if take[l] { then[l] } else { or[l] })
}

/// How numbers become values of a grid.
pub(super) trait Round: Copy {
    /// The value nearest to each number.
    fn near(self, x: &Lanes) -> Lanes;

    /// The least value.
    fn low(self) -> f32;

    /// The greatest value.
    fn high(self) -> f32;
}

/// All integers of a range.
#[derive(Clone, Copy)]
pub(super) struct Integers {
    pub(super) low: f32,
    pub(super) high: f32,
}

/// The nearest integer, ties to even, of numbers below 2^22 in magnitude.
#[inline(always)]
pub(super) fn nearest(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    (x + MAGIC) - MAGIC
}

impl Round for Integers {
    #[inline(always)]
    fn near(self, x: &Lanes) -> Lanes {
        x.map(|x| {
            // Comparisons in this form are single instructions, and send a NaN to the least value.
            let x = if x > self.low { x } else { self.low };
            let x = if x < self.high { x } else { self.high };
            nearest(x)
        })
    }

    #[inline(always)]
    fn low(self) -> f32 {
        self.low
    }

    #[inline(always)]
    fn high(self) -> f32 {
        self.high
    }
}

/// A few values at any distances.
#[derive(Clone, Copy)]
pub(super) struct Table {
    values: [f32; 16],
    /// The number half-way to the next value.
    middles: [f32; 16],
}

impl Table {
    /// The table of at most 16 ascending values.
    pub(super) fn new(values: &[i8]) -> Table {
        let value = |i: usize| f32::from(values[i.min(values.len() - 1)]);
        Table {
            values: core::array::from_fn(value),
            middles: core::array::from_fn(|i| {
                if i + 1 < values.len() { (value(i) + value(i + 1)) / 2.0 } else { f32::INFINITY }
            }),
        }
    }
}

impl Round for Table {
    #[inline(always)]
    fn near(self, x: &Lanes) -> Lanes {
        let mut near = all(self.values[0]);
        for i in 0..15 {
            for l in 0..LANES {
                near[l] = if x[l] >= self.middles[i] { self.values[i + 1] } else { near[l] };
            }
        }
        near
    }

    #[inline(always)]
    fn low(self) -> f32 {
        self.values[0]
    }

    #[inline(always)]
    fn high(self) -> f32 {
        self.values[15]
    }
}
