//! Attention against its specification, against f64, and level against level.

use super::*;
use crate::half::{f16_to_f32, f32_to_f16};
use crate::math::tests::{bits, other_levels, scalar};
use crate::testing::{Guarded, Rng, Side};

/// A cache of one head, filled at random.
struct Cache {
    keys: Vec<Vec<u16>>,
    values: Vec<Vec<u16>>,
    key_dim: usize,
    value_dim: usize,
    first_page: usize,
}

impl Cache {
    fn new(rng: &mut Rng, first_page: usize, pages: usize, key_dim: usize, value_dim: usize) -> Cache {
        let mut fill = |n: usize| (0..n).map(|_| f32_to_f16(rng.bell())).collect::<Vec<u16>>();
        let keys = (0..pages).map(|_| fill(key_dim * TILE)).collect();
        let values = (0..pages).map(|_| fill(TILE * value_dim)).collect();
        Cache { keys, values, key_dim, value_dim, first_page }
    }

    fn key(&self, position: usize, d: usize) -> f32 {
        f16_to_f32(self.keys[position / TILE - self.first_page][d * TILE + position % TILE])
    }

    fn value(&self, position: usize, d: usize) -> f32 {
        f16_to_f32(self.values[position / TILE - self.first_page][position % TILE * self.value_dim + d])
    }

    /// Fills every position outside `start..end` with `garbage`.
    fn spoil(&mut self, start: usize, end: usize, garbage: u16) {
        let first = self.first_page * TILE;
        for position in (first..first + self.keys.len() * TILE).filter(|p| !(start..end).contains(p)) {
            let (page, slot) = (position / TILE - self.first_page, position % TILE);
            for d in 0..self.key_dim {
                self.keys[page][d * TILE + slot] = garbage;
            }
            self.values[page][slot * self.value_dim..][..self.value_dim].fill(garbage);
        }
    }

    fn run(&self, cpu: Cpu, queries: &[Query], scores: Scores, q: &[f32], out: &mut [f32], s: &mut AttentionScratch) {
        let keys: Vec<&[u16]> = self.keys.iter().map(|page| &page[..]).collect();
        let values: Vec<&[u16]> = self.values.iter().map(|page| &page[..]).collect();
        let kv = KvHead {
            first_page: self.first_page,
            keys: &keys,
            values: &values,
            key_dim: self.key_dim,
            value_dim: self.value_dim,
        };
        attention(cpu, kv, queries, scores, q, out, s);
    }
}

/// `e^x` and `tanh x` of one value, by the scalar level.
fn exp(x: f32) -> f32 {
    crate::math::exp(crate::isa::scalar::Scalar, [x; LANES])[0]
}

fn capped(x: f32, cap: Option<f32>) -> f32 {
    cap.map_or(x, |cap| crate::math::softcap(crate::isa::scalar::Scalar, [x; LANES], [cap; LANES])[0])
}

/// The documentation of [`attention`], word by word.
fn specification(cache: &Cache, query: Query, scores: Scores, q: &[f32]) -> Vec<f32> {
    let (mut m, mut l, mut o) = (f32::NEG_INFINITY, 0.0f32, vec![0.0f32; cache.value_dim]);
    for tile in query.start / TILE..query.end.div_ceil(TILE) {
        let positions = query.start.max(tile * TILE)..query.end.min((tile + 1) * TILE);
        let s: Vec<f32> = positions
            .clone()
            .map(|position| {
                let chain = |s: f32, d: usize| q[query.q + d].mul_add(cache.key(position, d), s);
                capped((0..cache.key_dim).fold(0.0, chain) * scores.scale, scores.softcap)
            })
            .collect();
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
                *o = p.mul_add(cache.value(position, d), *o);
            }
        }
        m = largest;
    }
    o.iter().map(|o| o / l).collect()
}

/// The definition in f64.
fn naive(cache: &Cache, query: Query, scores: Scores, q: &[f32]) -> Vec<f64> {
    let s: Vec<f64> = (query.start..query.end)
        .map(|position| {
            let dot =
                (0..cache.key_dim).map(|d| f64::from(q[query.q + d]) * f64::from(cache.key(position, d))).sum::<f64>();
            let s = dot * f64::from(scores.scale);
            scores.softcap.map_or(s, |cap| f64::from(cap) * (s / f64::from(cap)).tanh())
        })
        .collect();
    let max = s.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let p: Vec<f64> = s.iter().map(|s| (s - max).exp()).collect();
    let sum: f64 = p.iter().sum();
    (0..cache.value_dim)
        .map(|d| {
            let weighted = |(i, p): (usize, &f64)| p * f64::from(cache.value(query.start + i, d));
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
        // Neighbours that see quite different keys, some tiles not at all.
        (0, 5, 32, 24, 1, None, vec![(0, 10), (300, 320), (63, 65), (64, 128), (0, 320), (127, 129), (5, 6)]),
    ];
    // Every rest of values, and small key dimensions.
    shapes.extend((1..=33).map(|d| (0, 2, d, 34 - d, d % 5 + 1, None, vec![(d, 64 + d), (0, d + 1)])));
    let mut rng = Rng::new(7);
    let cases = shapes.into_iter().map(|(first_page, pages, key_dim, value_dim, heads, softcap, ranges)| {
        let cache = Cache::new(&mut rng, first_page, pages, key_dim, value_dim);
        let count = ranges.len() * heads;
        // Not on any alignment, and outputs in the opposite order.
        let queries: Vec<Query> = (0..count)
            .map(|i| {
                let (start, end) = ranges[i / heads];
                Query { q: 1 + i * (key_dim + 1), out: (count - 1 - i) * (value_dim + 1), start, end }
            })
            .collect();
        let q = (0..1 + count * (key_dim + 1)).map(|_| rng.bell()).collect();
        let scores = Scores { scale: 1.5 / (key_dim as f32).sqrt(), softcap };
        let name = format!("{heads} heads, {key_dim}/{value_dim}, {} ranges, cap {softcap:?}", ranges.len());
        Case { name, cache, queries, scores, q, out_len: count * (value_dim + 1) }
    });
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
            let got = &out[query.out..][..case.cache.value_dim];
            assert_eq!(bits(got), bits(&want), "{}: {query:?}", case.name);
            assert_eq!(out[query.out + case.cache.value_dim], UNTOUCHED, "{}: written beyond {query:?}", case.name);
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
    let mut rng = Rng::new(3);
    let cache = Cache::new(&mut rng, 0, 2, 16, 16);
    // Position 91 is seen by the third query alone.
    let mut spoiled = Cache { keys: cache.keys.clone(), values: cache.values.clone(), ..cache };
    spoiled.keys[1][91 - TILE] = 0x7e00;
    spoiled.values[1][(91 - TILE) * 16..][..16].fill(0x7c00);
    let q: Vec<f32> = (0..64).map(|_| rng.bell()).collect();
    let query = |i: usize, start, end| Query { q: 16 * i, out: 16 * i, start, end };
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
fn stored_tokens_are_read_back() {
    let mut rng = Rng::new(5);
    for cpu in [vec![scalar()], other_levels()].concat() {
        for (key_dim, value_dim) in [(1, 1), (16, 16), (37, 19), (64, 80)] {
            let mut cache = Cache::new(&mut rng, 0, 1, key_dim, value_dim);
            let (keys, values) = (cache.keys[0].clone(), cache.values[0].clone());
            let key: Vec<f32> = (0..key_dim).map(|_| rng.bell()).collect();
            let value: Vec<f32> = (0..value_dim).map(|_| rng.bell()).collect();
            store_key(cpu, &key, &mut cache.keys[0], 41);
            store_value(cpu, &value, &mut cache.values[0], 41);
            for (d, &x) in key.iter().enumerate() {
                assert_eq!(cache.key(41, d), f16_to_f32(f32_to_f16(x)));
                cache.keys[0][d * TILE + 41] = keys[d * TILE + 41];
            }
            for (d, &x) in value.iter().enumerate() {
                assert_eq!(cache.value(41, d), f16_to_f32(f32_to_f16(x)));
                cache.values[0][41 * value_dim + d] = values[41 * value_dim + d];
            }
            assert_eq!((&cache.keys[0], &cache.values[0]), (&keys, &values), "another slot was written");
        }
    }
}

#[test]
fn nothing_outside_the_buffers_is_touched() {
    for case in cases() {
        for side in Side::ALL {
            let guard = |pages: &[Vec<u16>]| pages.iter().map(|page| Guarded::new(page, side)).collect::<Vec<_>>();
            let (keys, values) = (guard(&case.cache.keys), guard(&case.cache.values));
            let keys: Vec<&[u16]> = keys.iter().map(|page| &page[..]).collect();
            let values: Vec<&[u16]> = values.iter().map(|page| &page[..]).collect();
            let Cache { key_dim, value_dim, first_page, .. } = case.cache;
            let kv = KvHead { first_page, keys: &keys, values: &values, key_dim, value_dim };
            let q = Guarded::new(&case.q, side);
            let mut out = Guarded::new(&vec![UNTOUCHED; case.out_len], side);
            for cpu in [vec![scalar()], other_levels()].concat() {
                attention(cpu, kv, &case.queries, case.scores, &q, &mut out, &mut AttentionScratch::default());
            }
        }
    }
}

#[test]
fn wrong_arguments_panic() {
    let cache = Cache::new(&mut Rng::new(1), 1, 1, 8, 8);
    let run = |start, end| {
        std::panic::catch_unwind(|| {
            let query = Query { q: 0, out: 0, start, end };
            let scores = Scores { scale: 1.0, softcap: None };
            cache.run(scalar(), &[query], scores, &[0.0; 8], &mut [0.0; 8], &mut AttentionScratch::default());
        })
    };
    assert!(run(64, 128).is_ok());
    for (start, end) in [(64, 64), (63, 128), (64, 129), (100, 90)] {
        assert!(run(start, end).is_err(), "{start}..{end}");
    }
}
