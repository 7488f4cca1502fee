//! Attention against its specification, against f64, and level against level.

use crate::{bits, other_levels, scalar};
use fastq_kernels::attention::*;
use fastq_kernels::half::{f16_to_f32, f32_to_f16};
use fastq_kernels::testing::{Cases, Guarded, Rng, Side};
use fastq_kernels::{Cpu, LANES};

/// A cache of one head, filled at random.
#[derive(Clone)]
struct Cache {
    layout: HeadLayout,
    pages: Vec<Vec<u16>>,
    first_page: usize,
}

impl Cache {
    fn new(rng: &mut Rng, layout: HeadLayout, first_page: usize, pages: usize) -> Cache {
        let pages = vec![vec![0; layout.page_len()]; pages];
        let mut cache = Cache { layout, pages, first_page };
        for (page, slot) in (0..cache.pages.len()).flat_map(|page| (0..TILE).map(move |slot| (page, slot))) {
            for d in 0..layout.key_dim {
                let at = cache.key_at(slot, d);
                cache.set(rng, page, at);
            }
            for d in 0..layout.value_dim {
                let at = cache.value_at(slot, d);
                cache.set(rng, page, at);
            }
            for at in cache.scales_at(slot) {
                cache.pages[page][at] = f32_to_f16((0.5 + rng.unit()) / 60.0);
            }
        }
        cache
    }

    /// A random value at `at`: the unit and whether it is the upper byte of it.
    fn set(&mut self, rng: &mut Rng, page: usize, (unit, upper): (usize, bool)) {
        let slot = &mut self.pages[page][unit..];
        match self.layout.format {
            KvFormat::F32 => slot[..2].copy_from_slice(&units_of(rng.bell())),
            KvFormat::F16 => slot[0] = f32_to_f16(rng.bell()),
            KvFormat::Q8_0 => {
                let byte = (rng.bell() * 40.0).clamp(-127.0, 127.0) as i8 as u8;
                let [low, high] = slot[0].to_le_bytes();
                slot[0] = u16::from_le_bytes(if upper { [low, byte] } else { [byte, high] });
            }
        }
    }

    /// Where a value of a key is, by the drawing of [`HeadLayout`].
    fn key_at(&self, slot: usize, d: usize) -> (usize, bool) {
        match self.layout.format {
            KvFormat::F32 => ((d * TILE + slot) * 2, false),
            KvFormat::F16 => (d * TILE + slot, false),
            KvFormat::Q8_0 => {
                let byte = (d / 4 * TILE + slot) * 4 + d % 4;
                (byte / 2, byte % 2 == 1)
            }
        }
    }

    /// Where a value of a value is.
    fn value_at(&self, slot: usize, d: usize) -> (usize, bool) {
        let HeadLayout { format, key_dim, value_dim } = self.layout;
        match format {
            KvFormat::F32 => ((key_dim * TILE + slot * value_dim + d) * 2, false),
            KvFormat::F16 => (key_dim * TILE + slot * value_dim + d, false),
            KvFormat::Q8_0 => {
                let before = key_dim.div_ceil(4) * 4 * TILE / 2 + key_dim.div_ceil(32) * TILE;
                let byte = slot * value_dim.div_ceil(16) * 16 + d;
                (before + byte / 2, byte % 2 == 1)
            }
        }
    }

    /// Where the scales of a slot are: of the key, then of the value.
    fn scales_at(&self, slot: usize) -> Vec<usize> {
        let HeadLayout { format, key_dim, value_dim } = self.layout;
        match format {
            KvFormat::F32 | KvFormat::F16 => Vec::new(),
            KvFormat::Q8_0 => {
                let keys = key_dim.div_ceil(4) * 4 * TILE / 2;
                let values = keys + key_dim.div_ceil(32) * TILE + TILE * value_dim.div_ceil(16) * 8;
                let of = |first: usize, dim: usize| (0..dim.div_ceil(32)).map(move |b| first + b * TILE + slot);
                of(keys, key_dim).chain(of(values, value_dim)).collect()
            }
        }
    }

    /// The byte, or the f32 or f16 value.
    fn get(&self, position: usize, (unit, upper): (usize, bool)) -> f32 {
        let units = &self.pages[position / TILE - self.first_page][unit..];
        match self.layout.format {
            KvFormat::F32 => f32::from_bits(u32::from(units[0]) | u32::from(units[1]) << 16),
            KvFormat::F16 => f16_to_f32(units[0]),
            KvFormat::Q8_0 => f32::from(units[0].to_le_bytes()[usize::from(upper)] as i8),
        }
    }

    /// A dimension of a key without its scale.
    fn key(&self, position: usize, d: usize) -> f32 {
        self.get(position, self.key_at(position % TILE, d))
    }

    /// A dimension of a value without its scale.
    fn value(&self, position: usize, d: usize) -> f32 {
        self.get(position, self.value_at(position % TILE, d))
    }

    /// The scale of a block of 32 dimensions of a key; 1 in f32 and f16.
    fn key_scale(&self, position: usize, block: usize) -> f32 {
        self.scale(position, block)
    }

    /// The scale of a block of 32 dimensions of a value; 1 in f32 and f16.
    fn value_scale(&self, position: usize, block: usize) -> f32 {
        self.scale(position, self.layout.key_dim.div_ceil(32) + block)
    }

    fn scale(&self, position: usize, index: usize) -> f32 {
        match self.scales_at(position % TILE).get(index) {
            Some(&at) => f16_to_f32(self.pages[position / TILE - self.first_page][at]),
            None => 1.0,
        }
    }

    /// Fills every position outside `start..end` with `garbage`, which is f16.
    fn spoil(&mut self, start: usize, end: usize, garbage: u16) {
        let first = self.first_page * TILE;
        for position in (first..first + self.pages.len() * TILE).filter(|p| !(start..end).contains(p)) {
            self.spoil_one(position, garbage);
        }
    }

    fn spoil_one(&mut self, position: usize, garbage: u16) {
        let (page, slot) = (position / TILE - self.first_page, position % TILE);
        let keys = (0..self.layout.key_dim).map(|d| self.key_at(slot, d).0);
        let values = (0..self.layout.value_dim).map(|d| self.value_at(slot, d).0);
        for at in keys.chain(values).chain(self.scales_at(slot)).collect::<Vec<_>>() {
            let units = &mut self.pages[page][at..];
            match self.layout.format {
                KvFormat::F32 => units[..2].copy_from_slice(&units_of(f16_to_f32(garbage))),
                KvFormat::F16 | KvFormat::Q8_0 => units[0] = garbage,
            }
        }
    }

    fn run(&self, cpu: Cpu, queries: &[Query], scores: Scores, q: &[f32], out: &mut [f32], s: &mut AttentionScratch) {
        let pages: Vec<&[u16]> = self.pages.iter().map(|page| &page[..]).collect();
        let kv = KvHead { layout: self.layout, first_page: self.first_page, pages: &pages };
        attention(cpu, kv, queries, scores, q, out, s);
    }

    /// By parts, each query on its own.
    fn run_by_parts(&self, cpu: Cpu, queries: &[Query], scores: Scores, q: &[f32], out: &mut [f32]) {
        let pages: Vec<&[u16]> = self.pages.iter().map(|page| &page[..]).collect();
        let record = part_len(self.layout.value_dim);
        for query in queries {
            let parts = query.start / SPLIT..(query.end - 1) / SPLIT + 1;
            let mut records = vec![UNTOUCHED; parts.len() * record];
            // Last part first, and with a scratch that knows nothing.
            for (index, part) in parts.enumerate().rev() {
                let (start, end) = (query.start.max(part * SPLIT), query.end.min((part + 1) * SPLIT));
                let first_page = start / TILE;
                let pages = &pages[first_page - self.first_page..end.div_ceil(TILE) - self.first_page];
                let kv = KvHead { layout: self.layout, first_page, pages };
                let query = Query { start, end, out: index * record, ..*query };
                attention_part(cpu, kv, &[query], scores, q, &mut records, &mut AttentionScratch::default());
            }
            let out = &mut out[query.out..][..self.layout.value_dim];
            combine(cpu, &records, query.sink, out, &mut AttentionScratch::default());
        }
    }
}

/// An f32 in a page.
fn units_of(x: f32) -> [u16; 2] {
    [x.to_bits() as u16, (x.to_bits() >> 16) as u16]
}

/// A query as the walk sees it: its values, and the scale of each block of 32; 1 in f32 and f16.
fn seen(layout: HeadLayout, q: &[f32]) -> (Vec<f32>, Vec<f32>) {
    match layout.format {
        KvFormat::F32 | KvFormat::F16 => (q.to_vec(), vec![1.0; q.len().div_ceil(32)]),
        KvFormat::Q8_0 => {
            let blocks = q.chunks(32).map(|block| {
                let largest = block.iter().fold(0.0f32, |a, x| a.max(x.abs()));
                if block.iter().all(|x| x.is_finite()) {
                    let bytes = block.iter().map(|x| (x * (127.0 / largest)).round_ties_even()).collect::<Vec<_>>();
                    (bytes, largest / 127.0)
                } else {
                    (vec![0.0; block.len()], f32::NAN)
                }
            });
            let (bytes, scales): (Vec<_>, Vec<_>) = blocks.unzip();
            (bytes.concat(), scales)
        }
    }
}

/// `e^x` and `tanh x` of one value, by the scalar level.
fn exp(x: f32) -> f32 {
    fastq_kernels::math::exp(fastq_kernels::isa::scalar::Scalar, [x; LANES])[0]
}

fn capped(x: f32, cap: Option<f32>) -> f32 {
    cap.map_or(x, |cap| fastq_kernels::math::softcap(fastq_kernels::isa::scalar::Scalar, [x; LANES], [cap; LANES])[0])
}

/// The documentation of the module, word by word.
fn specification(cache: &Cache, query: Query, scores: Scores, q: &[f32]) -> Vec<f32> {
    let HeadLayout { format, key_dim, value_dim } = cache.layout;
    let (q, scales) = seen(cache.layout, &q[query.q..][..key_dim]);
    let score = |position: usize| {
        let s = match format {
            KvFormat::F32 | KvFormat::F16 => (0..key_dim).fold(0.0f32, |s, d| q[d].mul_add(cache.key(position, d), s)),
            KvFormat::Q8_0 => (0..key_dim.div_ceil(32)).fold(0.0f32, |s, block| {
                let dims = 32 * block..key_dim.min(32 * block + 32);
                let isum = dims.map(|d| q[d] as i32 * cache.key(position, d) as i32).sum::<i32>();
                (isum as f32).mul_add(cache.key_scale(position, block) * scales[block], s)
            }),
        };
        capped(s * scores.scale, scores.softcap)
    };
    let mut total: Option<(f32, f32, Vec<f32>)> = None;
    for part in query.start / SPLIT..(query.end - 1) / SPLIT + 1 {
        let (first, last) = (query.start.max(part * SPLIT), query.end.min((part + 1) * SPLIT));
        let (mut m, mut l, mut o) = (f32::NEG_INFINITY, 0.0f32, vec![0.0f32; value_dim]);
        for tile in first / TILE..last.div_ceil(TILE) {
            let positions = first.max(tile * TILE)..last.min((tile + 1) * TILE);
            let s: Vec<f32> = positions.clone().map(score).collect();
            let largest = s.iter().fold(m, |a, &b| a.max(b));
            let c = exp(m - largest);
            let mut lanes = [0.0f32; LANES];
            let p: Vec<f32> = s.iter().map(|s| exp(s - largest)).collect();
            for (position, p) in positions.clone().zip(&p) {
                lanes[position % LANES] += p;
            }
            for half in [8, 4, 2, 1] {
                for lane in 0..half {
                    lanes[lane] += lanes[lane + half];
                }
            }
            l = l.mul_add(c, lanes[0]);
            for (d, o) in o.iter_mut().enumerate() {
                *o *= c;
                for (position, p) in positions.clone().zip(&p) {
                    *o = (p * cache.value_scale(position, d / 32)).mul_add(cache.value(position, d), *o);
                }
            }
            m = largest;
        }
        total = Some(match total {
            None => (m, l, o),
            Some((before_m, before_l, before_o)) => {
                let largest = before_m.max(m);
                let (a, b) = (exp(before_m - largest), exp(m - largest));
                let o = o.iter().zip(before_o).map(|(o, before)| o.mul_add(b, before * a)).collect();
                (largest, l.mul_add(b, before_l * a), o)
            }
        });
    }
    let (m, l, o) = total.unwrap();
    let (l, a) = query.sink.map_or((l, 1.0), |sink| {
        let largest = m.max(sink);
        let a = exp(m - largest);
        (l.mul_add(a, exp(sink - largest)), a)
    });
    o.iter().map(|o| o * a / l).collect()
}

/// The definition in f64.
fn naive(cache: &Cache, query: Query, scores: Scores, q: &[f32]) -> Vec<f64> {
    let HeadLayout { key_dim, value_dim, .. } = cache.layout;
    let (q, scales) = seen(cache.layout, &q[query.q..][..key_dim]);
    let product = |a: f32, b: f32| f64::from(a) * f64::from(b);
    let s: Vec<f64> = (query.start..query.end)
        .map(|position| {
            let term = |d: usize| {
                product(q[d], scales[d / 32]) * product(cache.key(position, d), cache.key_scale(position, d / 32))
            };
            let s = (0..key_dim).map(term).sum::<f64>() * f64::from(scores.scale);
            scores.softcap.map_or(s, |cap| f64::from(cap) * (s / f64::from(cap)).tanh())
        })
        .collect();
    let sink = query.sink.map(f64::from);
    let max = s.iter().copied().chain(sink).fold(f64::NEG_INFINITY, f64::max);
    let p: Vec<f64> = s.iter().map(|s| (s - max).exp()).collect();
    let sum = p.iter().sum::<f64>() + sink.map_or(0.0, |sink| (sink - max).exp());
    (0..value_dim)
        .map(|d| {
            let weighted = |(i, p): (usize, &f64)| {
                p * product(cache.value(query.start + i, d), cache.value_scale(query.start + i, d / 32))
            };
            p.iter().enumerate().map(weighted).sum::<f64>() / sum
        })
        .collect()
}

/// A cache, queries on it, and their vectors.
struct Case {
    name: String,
    cache: Cache,
    queries: Vec<Query>,
    scores: Scores,
    q: Vec<f32>,
    out_len: usize,
}

/// `(first page, pages, key_dim, value_dim, heads, soft cap, ranges)`; every range is seen by `heads` queries.
type Shape = (usize, usize, usize, usize, usize, Option<f32>, Vec<(usize, usize)>);

fn cases() -> Vec<Case> {
    let mut shapes: Vec<Shape> = vec![
        (0, 1, 1, 1, 1, None, vec![(0, 1)]),
        (0, 2, 5, 17, 1, None, vec![(0, 100)]),
        (0, 4, 64, 64, 3, None, vec![(0, 250)]),
        (0, 3, 64, 64, 8, Some(50.0), vec![(0, 129)]),
        (3, 3, 80, 80, 1, Some(2.0), vec![(200, 384), (201, 300), (384 - 1, 384)]),
        (0, 4, 256, 256, 4, None, vec![(0, 256)]),
        (2, 6, 64, 48, 3, None, (0..40).map(|t| (150 + t, 470 + t)).collect()),
        (0, 3, 128, 128, 2, Some(30.0), (0..70).map(|t| (0, 60 + t)).collect()),
        // More than one part: whole, cut at both ends, one key of the next, parts that only some see.
        (0, 18, 64, 64, 4, None, vec![(0, 1152), (500, 520), (511, 513), (512, 1024), (0, 512), (0, 513)]),
        (6, 20, 32, 48, 3, Some(20.0), (0..60).map(|t| (390 + 9 * t, 1000 + 10 * t)).collect()),
        // Neighbours that see quite different keys, some tiles not at all.
        (0, 5, 32, 24, 1, None, vec![(0, 10), (300, 320), (63, 65), (64, 128), (0, 320), (127, 129), (5, 6)]),
    ];
    // Every rest of values, and small key dimensions.
    shapes.extend((1..=33).map(|d| (0, 2, d, 34 - d, d % 5 + 1, None, vec![(d, 64 + d), (0, d + 1)])));
    shapes.extend((60..=72).map(|d| (0, 3, d, 132 - d, d % 5 + 1, None, vec![(d, 64 + d), (0, d + 1)])));
    let mut rng = Rng::new(7);
    let shapes = KvFormat::ALL.iter().flat_map(|format| shapes.iter().map(|shape| (*format, shape.clone())));
    let mut share = Cases::new();
    let cases = shapes.filter(|_| share.take()).map(
        |(format, (first_page, pages, key_dim, value_dim, heads, softcap, ranges))| {
            let cache = Cache::new(&mut rng, HeadLayout { format, key_dim, value_dim }, first_page, pages);
            let count = ranges.len() * heads;
            // Not on any alignment, and outputs in the opposite order.
            let queries: Vec<Query> = (0..count)
                .map(|i| {
                    let (start, end) = ranges[i / heads];
                    // None, one below most scores, and one above.
                    let sink = [None, Some(-1.0), Some(9.0)][i % 3];
                    Query { q: 1 + i * (key_dim + 1), out: (count - 1 - i) * (value_dim + 1), start, end, sink }
                })
                .collect();
            let q = (0..1 + count * (key_dim + 1)).map(|_| rng.bell()).collect();
            let scores = Scores { scale: 1.5 / (key_dim as f32).sqrt(), softcap };
            let name = format!(
                "{}, {heads} heads, {key_dim}/{value_dim}, {} ranges, cap {softcap:?}",
                format.name(),
                ranges.len()
            );
            Case { name, cache, queries, scores, q, out_len: count * (value_dim + 1) }
        },
    );
    cases.collect()
}

/// What stands in the output where no query writes.
const UNTOUCHED: f32 = 12345.0;

impl Case {
    fn run(&self, cpu: Cpu) -> Vec<f32> {
        let mut out = vec![UNTOUCHED; self.out_len];
        self.cache.run(cpu, &self.queries, self.scores, &self.q, &mut out, &mut AttentionScratch::default());
        out
    }
}

#[test]
fn scalar_is_the_specification() {
    for case in cases() {
        let out = case.run(scalar());
        for query in &case.queries {
            let want = specification(&case.cache, *query, case.scores, &case.q);
            let got = &out[query.out..][..case.cache.layout.value_dim];
            assert_eq!(bits(got), bits(&want), "{}: {query:?}", case.name);
            assert_eq!(
                out[query.out + case.cache.layout.value_dim],
                UNTOUCHED,
                "{}: written beyond {query:?}",
                case.name
            );
        }
    }
}

#[test]
fn close_to_f64() {
    for case in cases() {
        let out = case.run(scalar());
        for query in &case.queries {
            let want = naive(&case.cache, *query, case.scores, &case.q);
            for (got, want) in out[query.out..].iter().zip(want) {
                assert!((f64::from(*got) - want).abs() < 3e-6, "{}: {query:?}: {got} for {want}", case.name);
            }
        }
    }
}

#[test]
fn every_level_has_the_bits_of_scalar() {
    for case in cases() {
        let want = bits(&case.run(scalar()));
        for cpu in other_levels() {
            assert_eq!(bits(&case.run(cpu)), want, "{} on {}", case.name, cpu.level().name());
        }
    }
}

#[test]
fn one_by_one_is_all_together() {
    for cpu in [vec![scalar()], other_levels()].concat() {
        // One scratch for all: what a call leaves in it must not matter.
        let mut scratch = AttentionScratch::default();
        for case in cases() {
            let together = case.run(cpu);
            for size in [1, 2, 5] {
                let mut out = vec![UNTOUCHED; case.out_len];
                for queries in case.queries.chunks(size) {
                    case.cache.run(cpu, queries, case.scores, &case.q, &mut out, &mut scratch);
                }
                assert_eq!(bits(&out), bits(&together), "{} by {size} on {}", case.name, cpu.level().name());
            }
        }
    }
}

#[test]
fn nothing_outside_the_range_matters() {
    for mut case in cases() {
        let clean = case.run(scalar());
        let start = case.queries.iter().map(|q| q.start).min().unwrap();
        let end = case.queries.iter().map(|q| q.end).max().unwrap();
        // NaN, infinities, the largest.
        for garbage in [0x7e00, 0xfc01, 0x7c00, 0xfc00, 0x7bff] {
            case.cache.spoil(start, end, garbage);
            for cpu in [vec![scalar()], other_levels()].concat() {
                assert_eq!(bits(&case.run(cpu)), bits(&clean), "{} with {garbage:#x}", case.name);
            }
        }
    }
}

#[test]
fn a_query_ignores_what_only_its_neighbours_see() {
    for &format in KvFormat::ALL {
        ignores(format);
    }
}

fn ignores(format: KvFormat) {
    let mut rng = Rng::new(3);
    let cache = Cache::new(&mut rng, HeadLayout { format, key_dim: 16, value_dim: 16 }, 0, 2);
    // Position 91 is seen by the third query alone.
    let mut spoiled = cache.clone();
    spoiled.spoil_one(91, 0x7e00);
    let q: Vec<f32> = (0..64).map(|_| rng.bell()).collect();
    let query = |i: usize, start, end| Query { q: 16 * i, out: 16 * i, start, end, sink: None };
    let queries = [query(0, 0, 90), query(1, 0, 91), query(2, 7, 92), query(3, 6, 70)];
    let scores = Scores { scale: 0.25, softcap: None };
    for cpu in [vec![scalar()], other_levels()].concat() {
        let [mut clean, mut out] = [[0.0; 64]; 2];
        cache.run(cpu, &queries, scores, &q, &mut clean, &mut AttentionScratch::default());
        spoiled.run(cpu, &queries, scores, &q, &mut out, &mut AttentionScratch::default());
        assert_eq!(bits(&out[..32]), bits(&clean[..32]));
        assert_eq!(bits(&out[48..]), bits(&clean[48..]));
        assert!(out[32..48].iter().all(|x| x.is_nan()), "a NaN that is seen must show");
    }
}

#[test]
fn parts_are_the_whole() {
    for cpu in [vec![scalar()], other_levels()].concat() {
        for case in cases() {
            let mut out = vec![UNTOUCHED; case.out_len];
            case.cache.run_by_parts(cpu, &case.queries, case.scores, &case.q, &mut out);
            assert_eq!(bits(&out), bits(&case.run(cpu)), "{} on {}", case.name, cpu.level().name());
        }
    }
}

#[test]
fn faults_show() {
    for &format in KvFormat::ALL {
        let layout = HeadLayout { format, key_dim: 40, value_dim: 24 };
        let clean = Cache::new(&mut Rng::new(9), layout, 0, 18);
        let query = Query { q: 0, out: 0, start: 0, end: 18 * TILE, sink: None };
        let scores = Scores { scale: 0.2, softcap: None };
        // A fault in the first, a middle or the last part, or in the query.
        for (cpu, place) in
            [vec![scalar()], other_levels()].concat().into_iter().flat_map(|cpu| (0..5).map(move |i| (cpu, i)))
        {
            let (mut cache, mut q) = (clean.clone(), vec![0.5; 40]);
            match place {
                0..3 => cache.spoil_one([3, 700, 1100][place], 0x7e00),
                3 => q[33] = f32::NAN,
                _ => q[33] = f32::INFINITY,
            }
            let mut out = [0.0; 24];
            cache.run(cpu, &[query], scores, &q, &mut out, &mut AttentionScratch::default());
            assert!(out.iter().all(|x| x.is_nan()), "{}, {place} on {}", format.name(), cpu.level().name());
            cache.run_by_parts(cpu, &[query], scores, &q, &mut out);
            assert!(out.iter().all(|x| x.is_nan()), "{}, {place} on {}", format.name(), cpu.level().name());
        }
    }
}

#[test]
fn stored_tokens_are_read_back() {
    let mut rng = Rng::new(5);
    let sizes = [(1, 1), (16, 16), (37, 19), (64, 80), (32, 96), (65, 33)];
    for (&format, (key_dim, value_dim)) in KvFormat::ALL.iter().flat_map(|f| sizes.map(|size| (f, size))) {
        let layout = HeadLayout { format, key_dim, value_dim };
        let key: Vec<f32> = (0..key_dim).map(|_| rng.bell()).collect();
        let value: Vec<f32> = (0..value_dim).map(|_| rng.bell()).collect();
        let before = Cache::new(&mut rng, layout, 0, 1);
        for cpu in [vec![scalar()], other_levels()].concat() {
            let mut cache = before.clone();
            let mut scratch = StoreScratch::default();
            layout.store(cpu, &key, &value, &mut cache.pages[0], 41, &mut scratch);
            let (want_key, key_scales) = seen(layout, &key);
            let (want_value, value_scales) = seen(layout, &value);
            let stored = |x: f32| if format == KvFormat::F16 { f16_to_f32(f32_to_f16(x)) } else { x };
            for d in 0..key_dim {
                assert_eq!(cache.key(41, d), stored(want_key[d]));
                assert_eq!(cache.key_scale(41, d / 32), f16_to_f32(f32_to_f16(key_scales[d / 32])));
            }
            for d in 0..value_dim {
                assert_eq!(cache.value(41, d), stored(want_value[d]));
                assert_eq!(cache.value_scale(41, d / 32), f16_to_f32(f32_to_f16(value_scales[d / 32])));
            }
            // Everything else is as it was.
            for position in (0..TILE).filter(|&position| position != 41) {
                let all = |cache: &Cache| -> Vec<f32> {
                    let scales = (0..cache.scales_at(0).len()).map(|i| cache.scale(position, i));
                    let keys = (0..key_dim).map(|d| cache.key(position, d));
                    keys.chain((0..value_dim).map(|d| cache.value(position, d))).chain(scales).collect()
                };
                assert_eq!(all(&cache), all(&before), "slot {position} was written");
            }
        }
    }
}

#[test]
fn faults_are_stored() {
    let layout = HeadLayout { format: KvFormat::Q8_0, key_dim: 48, value_dim: 80 };
    let (key, mut value) = ([1.0; 48], [1.0; 80]);
    value[64] = f32::INFINITY;
    for cpu in [vec![scalar()], other_levels()].concat() {
        let mut page = vec![0; layout.page_len()];
        layout.store(cpu, &key, &value, &mut page, 7, &mut StoreScratch::default());
        let cache = Cache { layout, pages: vec![page], first_page: 0 };
        let scales: Vec<bool> = (0..3).map(|block| cache.value_scale(7, block).is_nan()).collect();
        assert_eq!(scales, [false, false, true]);
        assert!(!cache.key_scale(7, 1).is_nan());
    }
}

#[test]
fn nothing_outside_the_buffers_is_touched() {
    for case in cases() {
        for side in Side::ALL {
            let pages: Vec<_> = case.cache.pages.iter().map(|page| Guarded::new(page, side)).collect();
            let slices: Vec<&[u16]> = pages.iter().map(|page| &page[..]).collect();
            let layout = case.cache.layout;
            let kv = KvHead { layout, first_page: case.cache.first_page, pages: &slices };
            let q = Guarded::new(&case.q, side);
            let mut out = Guarded::new(&vec![UNTOUCHED; case.out_len], side);
            let mut page = Guarded::new(&vec![0; layout.page_len()], side);
            let (key, value) = (vec![1.0; layout.key_dim], vec![1.0; layout.value_dim]);
            let (key, value) = (Guarded::new(&key, side), Guarded::new(&value, side));
            for cpu in [vec![scalar()], other_levels()].concat() {
                attention(cpu, kv, &case.queries, case.scores, &q, &mut out, &mut AttentionScratch::default());
                for slot in [0, TILE - 1] {
                    layout.store(cpu, &key, &value, &mut page, slot, &mut StoreScratch::default());
                }
            }
        }
    }
}

#[test]
fn wrong_arguments_panic() {
    for &format in KvFormat::ALL {
        let cache = Cache::new(&mut Rng::new(1), HeadLayout { format, key_dim: 8, value_dim: 8 }, 1, 1);
        let run = |start, end| {
            std::panic::catch_unwind(|| {
                let query = Query { q: 0, out: 0, start, end, sink: None };
                let scores = Scores { scale: 1.0, softcap: None };
                cache.run(scalar(), &[query], scores, &[0.0; 8], &mut [0.0; 8], &mut AttentionScratch::default());
            })
        };
        assert!(run(64, 128).is_ok());
        for (start, end) in [(64, 64), (63, 128), (64, 129), (100, 90)] {
            assert!(run(start, end).is_err(), "{start}..{end}");
        }
    }
    let crossing = std::panic::catch_unwind(|| {
        let layout = HeadLayout { format: KvFormat::F16, key_dim: 8, value_dim: 8 };
        let cache = Cache::new(&mut Rng::new(1), layout, 0, 9);
        let pages: Vec<&[u16]> = cache.pages.iter().map(|page| &page[..]).collect();
        let kv = KvHead { layout, first_page: 0, pages: &pages };
        let query = Query { q: 0, out: 0, start: SPLIT - 1, end: SPLIT + 1, sink: None };
        let (scores, mut out) = (Scores { scale: 1.0, softcap: None }, vec![0.0; part_len(8)]);
        attention_part(scalar(), kv, &[query], scores, &[0.0; 8], &mut out, &mut AttentionScratch::default());
    });
    assert!(crossing.is_err());
}
