//! Few tokens: weights are unpacked from the file's layout in registers and used at once, `I::ROWS` rows per pass.

use core::marker::PhantomData;
use core::ops::Range;

use crate::activation::Activation;
use crate::ahead::{Ahead, CHUNK};
use crate::isa::SimdKernel;
use crate::isa::integers::Integers;
use crate::matmul::{Job, OutTile};
use crate::unpack::{Blocks, Rows, SIGNED, Sink, SuperBlocks, SuperScales, Walk};

/// Most tokens that are multiplied this way on a level with `lanes` lanes: as many as its registers hold sums for.
pub(crate) const fn most_tokens(lanes: usize) -> usize {
    if lanes >= 16 { 8 } else { 4 }
}

/// Most lanes of a level.
const MOST_LANES: usize = 16;

/// Rows that are computed together: `I::ROWS` from `start`, of which `write` are wanted.
///
/// Every group has all its rows inside the matrix: the last one of a range overlaps the one before or rows of another range,
/// and writes only its own.
#[derive(Clone)]
pub(crate) struct Group {
    pub(crate) start: usize,
    pub(crate) write: Range<usize>,
}

impl Group {
    /// The group that writes rows from `row` on. The matrix has at least `lanes` rows.
    #[inline(always)]
    pub(crate) fn at(job: &Job<'_>, row: usize, lanes: usize) -> Group {
        let write = row.min(job.rows.end)..(row + lanes).min(job.rows.end);
        Group { start: row.min(job.weights.rows - lanes), write }
    }

    /// The rows, at their first block.
    #[inline(always)]
    pub(crate) fn rows(&self, job: &Job<'_>) -> Rows {
        Rows::new(job.weights.data.as_ptr().wrapping_add(self.start * job.row_bytes), job.row_bytes)
    }

    /// Writes the outputs of a token.
    ///
    /// # Safety
    /// `out` was checked against the rows and the token, and no other thread writes the rows.
    #[inline(always)]
    pub(crate) unsafe fn store<I: Integers>(&self, isa: I, out: OutTile<'_>, token: usize, v: I::Floats) {
        if self.write.len() == I::ROWS {
            // SAFETY: all rows of the group are written; they are inside the tile.
            unsafe { isa.store_floats(out.at(token, self.start), v) };
        } else {
            let mut lanes = [0f32; MOST_LANES];
            const { assert!(I::ROWS <= MOST_LANES, "lanes of a vector") };
            // SAFETY: `lanes` has room for the vector; the rows written are inside the tile.
            unsafe {
                isa.store_floats(lanes.as_mut_ptr(), v);
                self.store_some(out, token, &lanes);
            }
        }
    }

    /// Writes those outputs of a token that are wanted. Not inlined: what prepares the loop would be computed for every group.
    ///
    /// # Safety
    /// As for [`store`](Group::store).
    #[cold]
    #[inline(never)]
    unsafe fn store_some(&self, out: OutTile<'_>, token: usize, lanes: &[f32; MOST_LANES]) {
        for row in self.write.clone() {
            // SAFETY: the rows written are inside the tile.
            unsafe { *out.at(token, row) = lanes[row - self.start] };
        }
    }
}

/// Multiplies `$tokens` tokens with a group of rows after the other.
macro_rules! each_group {
    ($isa:ident, $job:ident, $multiply:ident, $tokens:literal) => {{
        let mut ahead = Ahead::new();
        for row in $job.rows.clone().step_by(I::ROWS) {
            let group = Group::at($job, row, I::ROWS);
            // SAFETY: the job is checked, and the group is its own.
            unsafe { $multiply::<I, F, $tokens>($isa, $job, &group, &mut ahead) };
        }
    }};
}

/// Multiplies all tokens, of which there are at most [`most_tokens`]: eight, four or one. Where there are fewer, the last one is
/// computed several times: the weights are what takes the time, and every further number of tokens would be compiled for every
/// format and level. Each number has a loop of its own, so that no group pays for what another number prepares.
macro_rules! all_tokens {
    ($isa:ident, $job:expr, $multiply:ident) => {{
        let job = $job;
        match job.tokens {
            1 => each_group!($isa, job, $multiply, 1),
            5.. if I::ROWS >= 16 => each_group!($isa, job, $multiply, 8),
            _ => each_group!($isa, job, $multiply, 4),
        }
    }};
}

/// The product of the job with a format of [`Blocks`].
pub(crate) struct BlocksGemv<'a, F>(pub(crate) Job<'a>, pub(crate) PhantomData<F>);

impl<F: Blocks> SimdKernel for BlocksGemv<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<I: Integers>(self, isa: I) {
        all_tokens!(isa, &self.0, blocks);
    }
}

/// The product of the job with a format of [`SuperBlocks`].
pub(crate) struct SuperBlocksGemv<'a, F>(pub(crate) Job<'a>, pub(crate) PhantomData<F>);

impl<F: SuperBlocks> SimdKernel for SuperBlocksGemv<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<I: Integers>(self, isa: I) {
        all_tokens!(isa, &self.0, super_blocks);
    }
}

/// Multiplies the halves of a part of a block with `T` tokens. What is known of the format comes with its type: as values, it
/// would be looked up again and again where the compiler does not unroll the loops around.
struct Dot<I: Integers, F, const T: usize> {
    /// Of the halves where they are apart, else the first of both.
    isum: [[I::Sum; 2]; T],
    /// The activations of the part.
    x: [*const u8; T],
    format: PhantomData<F>,
}

impl<I: Integers, F: Blocks, const T: usize> Sink<I> for Dot<I, F, T> {
    #[inline(always)]
    fn take(&mut self, isa: I, j: usize, bytes: [I::Words; 4]) {
        self.dot::<0>(isa, j, bytes);
    }

    #[inline(always)]
    fn take_fields<const SHIFT: u32, const MASK: u8>(&mut self, isa: I, j: usize, packed: [I::Words; 4]) {
        if I::SHIFTS_SUMS {
            self.dot::<SHIFT>(isa, j, isa.fields_in_place::<SHIFT, MASK>(packed));
        } else {
            self.dot::<0>(isa, j, isa.fields::<SHIFT, MASK>(packed));
        }
    }
}

impl<I: Integers, F: Blocks, const T: usize> Dot<I, F, T> {
    /// Takes weights times `2^SHIFT`.
    #[inline(always)]
    fn dot<const SHIFT: u32>(&mut self, isa: I, j: usize, bytes: [I::Words; 4]) {
        let half = if F::SPLIT { j } else { 0 };
        for t in 0..T {
            // SAFETY: whoever made this has whole blocks of activations.
            self.isum[t][half] =
                unsafe { isa.dot16::<SHIFT>(self.isum[t][half], &bytes, self.x[t].add(16 * j), F::PEAK) };
        }
    }
}

/// As [`Dot`], for the sub-blocks of a super-block.
struct ScaledDot<'a, I: Integers, F, const T: usize> {
    isum: [I::Sum; T],
    /// The activations of the block.
    x: [*const u8; T],
    /// Behind a reference, so that the sums are in registers even where the scales are looked up in memory.
    scales: &'a [I::Words; 4],
    ask: AskBlocks,
    format: PhantomData<F>,
}

impl<I: Integers, F: SuperBlocks, const T: usize> Sink<I> for ScaledDot<'_, I, F, T> {
    #[inline(always)]
    fn take(&mut self, isa: I, j: usize, bytes: [I::Words; 4]) {
        self.dot::<0>(isa, j, bytes);
    }

    #[inline(always)]
    fn take_fields<const SHIFT: u32, const MASK: u8>(&mut self, isa: I, j: usize, packed: [I::Words; 4]) {
        if I::SHIFTS_SUMS {
            self.dot::<SHIFT>(isa, j, isa.fields_in_place::<SHIFT, MASK>(packed));
        } else {
            self.dot::<0>(isa, j, isa.fields::<SHIFT, MASK>(packed));
        }
    }

    #[inline(always)]
    fn take_two(&mut self, isa: I, j: usize, bytes: [[I::Words; 4]; 2]) {
        if !(I::JOINS && F::WIDE) {
            self.take(isa, j, bytes[0]);
            self.take(isa, j + 1, bytes[1]);
            return;
        }
        // Of two equal bytes the outer one.
        let scale = isa.outer_scale(self.scales[j / 4], !j.is_multiple_of(4), F::PEAK, !F::MINIMA);
        for t in 0..T {
            // SAFETY: whoever made this has whole blocks of activations.
            self.isum[t] = unsafe { isa.dot32_scaled(self.isum[t], &bytes, self.x[t].add(16 * j), scale, F::PEAK) };
        }
    }
}

impl<I: Integers, F: SuperBlocks, const T: usize> ScaledDot<'_, I, F, T> {
    /// Takes weights times `2^SHIFT`.
    #[inline(always)]
    fn dot<const SHIFT: u32>(&mut self, isa: I, j: usize, bytes: [I::Words; 4]) {
        self.ask.next::<I, F>(isa, j);
        let peak = isa.whole_peak(F::PEAK);
        let same = if F::WIDE { j & !1 } else { j };
        let scale = isa.sub_scale(self.scales[same / 4], same % 4, peak, !F::MINIMA);
        for t in 0..T {
            // SAFETY: whoever made this has whole blocks of activations.
            self.isum[t] =
                unsafe { isa.dot16_scaled::<SHIFT>(self.isum[t], &bytes, self.x[t].add(16 * j), scale, peak) };
        }
    }
}

/// How far ahead the weights of a row are asked for, in bytes; those of all rows of a group together are far enough for the
/// latency of memory at its full rate, and so little that they are still in the second-level cache when they are used.
///
/// Sixteen rows at once are too many streams for the prefetchers of the hardware. Few lines are asked for at a time, in step with
/// the arithmetic: the first-level cache can wait for some sixteen lines, and while it does, it gets no weights from the second.
const DISTANCE: usize = 2 << 10;

/// Where to ask for weights of [`Blocks`]: line by line.
///
/// In rows of a page or more that is the walk along the rows of a group and of the ones behind it, [`DISTANCE`] ahead, which
/// the prefetchers of the hardware follow in each page. Of shorter ones there would be several in a page; so the whole of the
/// next group, which is not too much then, is asked for from its first byte to its last.
struct AskLines {
    /// The line to ask for next.
    at: *const u8,
    /// Bytes from a line to the next.
    step: usize,
    /// Lines until the turn, which comes every `I::ROWS` lines.
    lines: usize,
    /// Bytes from the place after a line before a turn to the line after it.
    turn: usize,
    /// Offset in the rows of the lines after the turn.
    column: usize,
    /// Bytes that were used and not yet replaced.
    used: usize,
}

impl AskLines {
    /// At the first block of a group.
    #[inline(always)]
    fn new<I: Integers>(rows: Rows) -> AskLines {
        let group = I::ROWS * rows.stride;
        if rows.stride >= 4 << 10 {
            let (at, turn) = (rows.block.wrapping_add(DISTANCE), 64usize.wrapping_sub(group));
            AskLines { at, step: rows.stride, lines: I::ROWS, turn, column: DISTANCE + 64, used: 0 }
        } else {
            AskLines { at: rows.block.wrapping_add(group), step: 64, lines: I::ROWS, turn: 0, column: 0, used: 0 }
        }
    }

    /// Asks for as many lines as the next block of every row has.
    #[inline(always)]
    fn next<I: Integers>(&mut self, isa: I, rows: Rows, bytes: usize) {
        if !I::AHEAD {
            return;
        }
        self.used += I::ROWS * bytes;
        while self.used >= 64 {
            self.used -= 64;
            isa.prefetch_line(self.at);
            self.at = self.at.wrapping_add(self.step);
            self.lines -= 1;
            if self.lines == 0 {
                self.lines = I::ROWS;
                self.at = self.at.wrapping_add(self.turn);
                if self.turn != 0 {
                    if self.column >= rows.stride {
                        // The same column of the next group.
                        self.at = self.at.wrapping_add((I::ROWS - 1) * rows.stride);
                        self.column -= rows.stride;
                    }
                    self.column += 64;
                }
            }
        }
    }
}

/// Where to ask for weights of [`SuperBlocks`]: a block of a row for every sub-block, [`DISTANCE`] ahead. The whole of
/// the next group, as of short rows of [`Blocks`], would come at 69 instead of 75 % of a plain read in Q3_K.
struct AskBlocks {
    /// The block to ask for next.
    at: *const u8,
    /// Bytes from a row to the next.
    stride: usize,
}

impl AskBlocks {
    /// At block `b` of the `blocks` of a row.
    #[inline(always)]
    fn at<I: Integers, F: SuperBlocks>(rows: Rows, b: usize, blocks: usize) -> AskBlocks {
        // What is beyond the row is in the next group, or, of short rows, behind its first rows.
        let ahead = b + DISTANCE.div_ceil(F::BYTES);
        let beyond = if ahead < blocks { 0 } else { (I::ROWS - 1) * rows.stride };
        AskBlocks { at: rows.block.wrapping_add(ahead * F::BYTES + beyond), stride: rows.stride }
    }

    /// Asks for the next row's, before sub-block `j`.
    #[inline(always)]
    fn next<I: Integers, F: SuperBlocks>(&mut self, isa: I, j: usize) {
        const { assert!(matches!(I::ROWS, 4 | 8 | 16), "a row for every sub-block, two or four") };
        if !I::AHEAD || !j.is_multiple_of(16 / I::ROWS) {
            return;
        }
        // Places up to 66 bytes apart reach all lines, or all but few, which wait for the arithmetic to need them.
        let lines = (F::BYTES - 2).div_ceil(64);
        for line in 0..lines {
            isa.prefetch_line(self.at.wrapping_add(line * F::BYTES / lines));
        }
        self.at = self.at.wrapping_add(self.stride);
    }
}

/// Asks for what lies `distance` bytes behind the block at `at`, in every row.
#[inline(always)]
pub(crate) fn prefetch<I: Integers>(isa: I, rows: Rows, at: usize, bytes: usize, distance: usize) {
    if !I::AHEAD {
        return;
    }
    let mut line = at.next_multiple_of(64);
    while line < at + bytes {
        isa.prefetch(rows.at(distance + line));
        line += 64;
    }
}

/// Two i16 in every lane.
#[inline(always)]
pub(crate) fn splat_pair<I: Integers>(isa: I, low: i32, high: i32) -> I::Words {
    isa.splat(low & 0xffff | high << 16)
}

/// What the bytes of a format are above its weights on the level.
pub(crate) const fn offset<I: Integers>(peak: u32, offset: i32) -> i32 {
    if peak == SIGNED { I::SIGNED_OFFSET } else { offset }
}

/// Pairs that multiply the sums of the halves of 32 activations to subtract `offset`: for both halves in the first, or, where they
/// are apart, for one each.
#[inline(always)]
pub(crate) fn offset_pairs<I: Integers>(isa: I, offset: i32, split: bool) -> [I::Words; 2] {
    [splat_pair(isa, -offset, if split { 0 } else { -offset }), splat_pair(isa, 0, -offset)]
}

/// A group of rows times `T` tokens, on the way along the rows.
struct BlocksProduct<'a, I: Integers, F, const T: usize> {
    /// The group, at its first block.
    rows: Rows,
    /// Blocks of a row.
    blocks: usize,
    walk: Walk,
    ahead: &'a mut Ahead,
    ask: AskLines,
    /// The activations of the tokens, their scales, and their sums.
    x: [*const u8; T],
    scales: [*const u8; T],
    sums: [*const u8; T],
    dot: Dot<I, F, T>,
    acc: [I::Floats; T],
}

impl<I: Integers, F: Blocks, const T: usize> BlocksProduct<'_, I, F, T> {
    /// Adds the products of block `b`.
    ///
    /// # Safety
    /// The rows and the records have the block.
    #[inline(always)]
    #[allow(clippy::needless_range_loop, reason = "several arrays by token, of which one is behind `self`")]
    unsafe fn add(&mut self, isa: I, b: usize) {
        let parts = F::BLOCK / 32;
        let offset = offset::<I>(F::PEAK, F::OFFSET);
        let minus = offset_pairs(isa, offset, F::SPLIT);
        let (zero, ones) = (isa.splat(0), splat_pair(isa, 1, 1));
        if b.is_multiple_of(CHUNK) {
            // SAFETY: by the contract.
            unsafe { self.ahead.read::<I, F>(self.rows, b + CHUNK, self.blocks) };
        }
        let [words, block] = self.walk.block::<F>(b);
        // SAFETY: by the contract.
        let head = unsafe { self.ahead.head::<I, F>(words, b) };
        self.ask.next(isa, self.rows, F::BYTES);
        for part in 0..parts {
            let at = b * parts + part;
            // SAFETY: by the contract.
            unsafe {
                // Loops, not `map`: see `Sink`.
                let mut sum = [zero; T];
                let mut d_a = [isa.splat_float(0.0); T];
                for t in 0..T {
                    let p = self.sums[t].add(4 * at);
                    sum[t] = isa.splat_at(p);
                    if offset != 0 {
                        isa.start_pair(&mut self.dot.isum[t][0], minus[0], p);
                        if F::SPLIT {
                            isa.start_pair(&mut self.dot.isum[t][1], minus[1], p);
                        }
                    }
                    self.dot.x[t] = self.x[t].add(32 * at);
                    d_a[t] = isa.splat_float_at(self.scales[t].add(4 * at));
                }
                F::unpack(isa, block, head, part, &mut self.dot);
                let (d, m) = F::scales(isa, head, part);
                for t in 0..T {
                    let isum = isa.total(&mut self.dot.isum[t][0]);
                    self.acc[t] = isa.fma(isa.to_floats(isum), isa.mul(d, d_a[t]), self.acc[t]);
                }
                if F::SPLIT {
                    for t in 0..T {
                        let isum = isa.total(&mut self.dot.isum[t][1]);
                        self.acc[t] = isa.fma(isa.to_floats(isum), isa.mul(m, d_a[t]), self.acc[t]);
                    }
                }
                if F::MINIMUM {
                    for t in 0..T {
                        let sum = isa.to_floats(isa.pair_product(ones, sum[t]));
                        self.acc[t] = isa.fma(sum, isa.mul(m, d_a[t]), self.acc[t]);
                    }
                }
            }
        }
    }
}

/// # Safety
/// The job is checked, and the group is its own.
#[inline(always)]
unsafe fn blocks<I: Integers, F: Blocks, const T: usize>(isa: I, job: &Job<'_>, group: &Group, ahead: &mut Ahead) {
    let k = job.weights.k;
    let (rows, blocks) = (group.rows(job), k / F::BLOCK);
    // SAFETY: the group's rows are inside the matrix and have `blocks` blocks.
    unsafe { ahead.read::<I, F>(rows, 0, blocks) };
    let x: [*const u8; T] = core::array::from_fn(|t| job.record(t.min(job.tokens - 1)).as_ptr());
    let mut product = BlocksProduct::<I, F, T> {
        rows,
        blocks,
        walk: Walk::new(rows),
        ahead,
        ask: AskLines::new::<I>(rows),
        x,
        scales: x.map(|x| isa.apart(x.wrapping_add(Activation::Block32.scales_at(k)))),
        sums: x.map(|x| isa.apart(x.wrapping_add(Activation::Block32.sums_at(k)))),
        dot: Dot { isum: [[isa.sum(); 2]; T], x, format: PhantomData },
        acc: [isa.splat_float(0.0); T],
    };
    // With more than the scale to look up, four blocks at a time would not fit the registers.
    let fours = if I::FOURS && F::WORDS.len() == 1 && T == 1 { blocks / 4 } else { 0 };
    for four in 0..fours {
        let b = 4 * four;
        // SAFETY: as above; the records are those of k activations.
        unsafe {
            product.add(isa, b);
            product.add(isa, b + 1);
            product.add(isa, b + 2);
            product.add(isa, b + 3);
        }
    }
    for b in 4 * fours..blocks {
        // SAFETY: as above.
        unsafe { product.add(isa, b) };
    }
    for (t, acc) in product.acc.into_iter().enumerate() {
        // SAFETY: by the contract.
        unsafe { group.store(isa, job.out, t.min(job.tokens - 1), acc) };
    }
}

/// # Safety
/// The job is checked, and the group is its own.
#[inline(always)]
unsafe fn super_blocks<I: Integers, F: SuperBlocks, const T: usize>(
    isa: I,
    job: &Job<'_>,
    group: &Group,
    ahead: &mut Ahead,
) {
    let k = job.weights.k;
    let blocks = k / 256;
    let offset = offset::<I>(F::PEAK, F::OFFSET);
    let (scales, sums) = (Activation::Super256.scales_at(k), Activation::Super256.sums_at(k));
    let x: [*const u8; T] = core::array::from_fn(|t| job.record(t.min(job.tokens - 1)).as_ptr());
    let rows = group.rows(job);
    let mut acc = [isa.splat_float(0.0); T];
    let mut walk = Walk::new(rows);
    let mut isum = [isa.sum(); T];
    // SAFETY: the group's rows are inside the matrix and have `blocks` blocks.
    unsafe { ahead.read::<I, F>(rows, 0, blocks) };
    for b in 0..blocks {
        if b.is_multiple_of(CHUNK) {
            // SAFETY: as above.
            unsafe { ahead.read::<I, F>(rows, b + CHUNK, blocks) };
        }
        let [words, block] = walk.block::<F>(b);
        // SAFETY: as above; the records are those of k activations.
        unsafe {
            let head = ahead.head::<I, F>(words, b);
            let SuperScales { scales: factors, minima, d, dmin } = F::scales(isa, block, head);
            let mut start = [isa.splat(0); T];
            let mut msum = start;
            let mut x_sums = x;
            for t in 0..T {
                x_sums[t] = x[t].add(sums + 32 * b);
            }
            if F::MINIMA {
                isa.add_sums(&mut msum, &minima, false, 1, &x_sums);
            } else if offset != 0 {
                isa.add_sums(&mut start, &factors, true, -offset, &x_sums);
            }
            // Where scales are looked up one by one, it would only take registers.
            let (factors, block) = if F::WIDE { isa.before(factors, block) } else { (factors, block) };
            let (msum, block) = if F::WIDE && F::MINIMA { isa.before(msum, block) } else { (msum, block) };
            let mut dot = ScaledDot::<I, F, T> {
                isum,
                x,
                scales: &factors,
                ask: AskBlocks::at::<I, F>(rows, b, blocks),
                format: PhantomData,
            };
            let mut d_a = [isa.splat_float(0.0); T];
            for t in 0..T {
                if !F::MINIMA && offset != 0 {
                    isa.start(&mut dot.isum[t], start[t]);
                }
                dot.x[t] = x[t].add(256 * b);
                d_a[t] = isa.splat_float_at(x[t].add(scales + 4 * b));
            }
            F::unpack(isa, block, head, &mut dot);
            isum = dot.isum;
            for t in 0..T {
                let sum = isa.total(&mut isum[t]);
                acc[t] = isa.fma(isa.to_floats(sum), isa.mul(d, d_a[t]), acc[t]);
            }
            if F::MINIMA {
                for t in 0..T {
                    acc[t] = isa.fnma(isa.to_floats(msum[t]), isa.mul(dmin, d_a[t]), acc[t]);
                }
            }
        }
    }
    for (t, acc) in acc.into_iter().enumerate() {
        // SAFETY: by the contract.
        unsafe { group.store(isa, job.out, t.min(job.tokens - 1), acc) };
    }
}
