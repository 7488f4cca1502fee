//! Matrix products per format and level on one thread, beside the limits of the machine measured in the same run.
//!
//! ```text
//! cargo bench --bench kernels -- --quantize 16 [--formats Q4_K] [--levels avx2] [--k 2048] [--rounds 7] [--take median]
//! cargo bench --bench kernels -- [--formats Q4_0,Q4_K] [--levels avx512] [--rows 4096] [--k 2048] [--tokens 1,8,256] [--rounds 7] [--take median]
//! ```
//!
//! Prints a Markdown table: GB/s of weights for one token, GOP/s (two per weight and token) for more. Every round runs every
//! case once, so that a disturbance hits all alike; figures are medians (`--take best` on a machine that others use). A `%` is the share of the memory bandwidth for one
//! token, of the int8 dot peak (of the widest vectors the CPU has) for more.
//!
//! With `--quantize ROWS` it encodes so many rows instead, and prints nanoseconds per weight without and with importance.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

use std::collections::BTreeMap;
use std::hint::black_box;

use fastq_kernels::activation::quantize_activations;
use fastq_kernels::matmul::MatmulScratch;
use fastq_kernels::testing::{Bits, Rng, blocks, values};
use fastq_kernels::{Cpu, Format, Level, Matrix, OutTile, matmul};

struct Options {
    formats: Vec<Format>,
    levels: Vec<Level>,
    rows: usize,
    k: usize,
    tokens: Vec<usize>,
    rounds: usize,
    best: bool,
    quantize: Option<usize>,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        formats: Format::ALL.to_vec(),
        levels: Level::available().into_iter().filter(|&level| level != Level::Scalar).collect(),
        rows: 16384,
        k: 2048,
        tokens: vec![1, 8, 256],
        rounds: 7,
        best: false,
        quantize: None,
    };
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or(format!("{name} needs a value"))?;
        let number = |value: &str| value.parse::<usize>().map_err(|error| format!("{name} {value}: {error}"));
        match name.as_str() {
            "--formats" => {
                let find = |name: &str| Format::from_name(name).ok_or(format!("{name} is not a format"));
                options.formats = value.split(',').map(find).collect::<Result<_, _>>()?;
            }
            "--levels" => {
                let find = |name: &str| Level::from_name(name).ok_or(format!("{name} is not a level"));
                options.levels = value.split(',').map(find).collect::<Result<_, _>>()?;
            }
            "--rows" => options.rows = number(&value)?,
            "--k" => options.k = number(&value)?,
            "--tokens" => options.tokens = value.split(',').map(number).collect::<Result<_, _>>()?,
            "--rounds" => options.rounds = number(&value)?.max(1),
            "--quantize" => options.quantize = Some(number(&value)?.max(1)),
            "--take" => {
                options.best = match value.as_str() {
                    "best" => true,
                    "median" => false,
                    _ => return Err(format!("--take {value}: median or best")),
                }
            }
            _ => return Err(format!("{name} is not an option; see the head of benches/kernels.rs")),
        }
    }
    Ok(options)
}

/// Calls with a few rows before a measurement.
const WARM_UPS: usize = 20;

/// Seconds of processor time of one call: what other programs take away does not count.
fn seconds(f: impl FnOnce()) -> f64 {
    let start = thread_time();
    f();
    thread_time() - start
}

/// The processor time of this thread so far, in seconds.
#[cfg(unix)]
fn thread_time() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the system writes the time to a valid place.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(result, 0, "the system has a clock per thread");
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// The wall clock, in seconds, where threads have no clock.
#[cfg(not(unix))]
fn thread_time() -> f64 {
    use std::time::{SystemTime, UNIX_EPOCH};
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

#[cfg(target_arch = "x86_64")]
mod peak {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    /// Dot products of the loops below: 12 chains, as deep as latency and registers allow.
    pub(crate) const STEPS: usize = 4_000_000;

    /// Operations of a run with 512-bit vectors.
    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(crate) fn avx512() -> f64 {
        let mut sums = [_mm512_setzero_si512(); 12];
        let (a, b) = (black_box(_mm512_set1_epi8(1)), black_box(_mm512_set1_epi8(1)));
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, a, b);
            }
        }
        black_box(sums);
        (STEPS * 12 * 64 * 2) as f64
    }

    /// Operations of a run with 256-bit vectors.
    #[target_feature(enable = "avx2,avxvnni")]
    pub(crate) fn avxvnni() -> f64 {
        let mut sums = [_mm256_setzero_si256(); 12];
        let (a, b) = (black_box(_mm256_set1_epi8(1)), black_box(_mm256_set1_epi8(1)));
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = _mm256_dpbusd_avx_epi32(*sum, a, b);
            }
        }
        black_box(sums);
        (STEPS * 12 * 32 * 2) as f64
    }

    /// Operations of a run without VNNI, with the additions of pairs that it takes.
    #[target_feature(enable = "avx2")]
    pub(crate) fn avx2() -> f64 {
        let mut sums = [_mm256_setzero_si256(); 8];
        let (a, b) = (_mm256_set1_epi8(1), _mm256_set1_epi8(1));
        for _ in 0..STEPS {
            let a = black_box(a);
            for sum in &mut sums {
                *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(a, _mm256_xor_si256(b, *sum)));
            }
        }
        black_box(sums);
        (STEPS * 8 * 32 * 2) as f64
    }

    /// As [`avx2`], with 128-bit vectors.
    #[target_feature(enable = "ssse3")]
    pub(crate) fn sse41() -> f64 {
        let mut sums = [_mm_setzero_si128(); 8];
        let (a, b) = (_mm_set1_epi8(1), _mm_set1_epi8(1));
        for _ in 0..STEPS {
            let a = black_box(a);
            for sum in &mut sums {
                *sum = _mm_add_epi16(*sum, _mm_maddubs_epi16(a, _mm_xor_si128(b, *sum)));
            }
        }
        black_box(sums);
        (STEPS * 8 * 16 * 2) as f64
    }

    /// The sum of the bytes' words, read with wide loads.
    #[target_feature(enable = "avx2")]
    pub(crate) fn read(bytes: &[u8]) -> u64 {
        let mut sums = [_mm256_setzero_si256(); 8];
        for chunk in bytes.chunks_exact(256) {
            for (i, sum) in sums.iter_mut().enumerate() {
                // SAFETY: a chunk has eight times 32 bytes.
                *sum = _mm256_add_epi64(*sum, unsafe { _mm256_loadu_si256(chunk.as_ptr().add(32 * i).cast()) });
            }
        }
        let sum = sums.into_iter().reduce(|a, b| _mm256_add_epi64(a, b)).unwrap_or(_mm256_setzero_si256());
        _mm256_extract_epi64::<0>(sum) as u64
    }
}

/// Runs the level's plain dot loop; its GOP/s.
fn dot_peak(level: Level) -> f64 {
    let mut operations = 0.0;
    let time = seconds(|| {
        operations = match level {
            Level::Scalar => f64::NAN,
            // SAFETY: only available levels are asked for.
            #[cfg(target_arch = "x86_64")]
            Level::Sse41 => unsafe { peak::sse41() },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { peak::avx2() },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni => unsafe { peak::avxvnni() },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 | Level::Amx => unsafe { peak::avx512() },
        };
    });
    operations / time / 1e9
}

/// Reads `bytes` once; GB/s.
fn read_bandwidth(bytes: &[u8]) -> f64 {
    let time = seconds(|| {
        #[cfg(target_arch = "x86_64")]
        if Level::Avx2.is_available() {
            // SAFETY: the level has AVX2.
            black_box(unsafe { peak::read(bytes) });
            return;
        }
        black_box(
            bytes.as_chunks::<8>().0.iter().fold(0, |sum: u64, word| sum.wrapping_add(u64::from_ne_bytes(*word))),
        );
    });
    bytes.len() as f64 / time / 1e9
}

/// The median or the largest.
fn typical(samples: &[f64], best: bool) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[if best { sorted.len() - 1 } else { sorted.len() / 2 }]
}

/// Encodes `rows` rows and prints what a weight takes.
fn quantizers(options: &Options, cpus: &[Cpu], rows: usize) {
    let k = options.k;
    let mut rng = Rng::new(1);
    let x = values(&mut rng, rows * k, 0.05);
    let importance: Vec<f32> = (0..k).map(|_| rng.bell()).map(|x| x * x).collect();
    let cases = [None, Some(&importance[..])];
    // Nanoseconds per weight, negative so that the largest is the best; none where the format does not take the case.
    let mut samples: BTreeMap<(usize, usize, usize), Vec<f64>> = BTreeMap::new();
    for _ in 0..options.rounds {
        for (f, format) in options.formats.iter().enumerate() {
            let info = format.info();
            for (l, &cpu) in cpus.iter().enumerate() {
                for (c, &importance) in cases.iter().enumerate() {
                    if importance.is_none() && info.needs_importance || importance.is_some() && !info.uses_importance {
                        continue;
                    }
                    let mut out = vec![0; format.row_bytes(k).unwrap_or(0)];
                    let mut encode = |x: &[f32]| {
                        format.quantize_row(cpu, x, importance, &mut out).unwrap_or_else(|error| {
                            eprintln!("{error}");
                            std::process::exit(2)
                        });
                        black_box(&out);
                    };
                    encode(&x[..k]);
                    let time = seconds(|| x.chunks_exact(k).for_each(&mut encode));
                    samples.entry((f, l, c)).or_default().push(-1e9 * time / (rows * k) as f64);
                }
            }
        }
    }
    let kind = if options.best { "best" } else { "medians" };
    println!("rows of {k}, one thread, {kind} of {} rounds\n", options.rounds);
    println!("| format | level | ns per weight | with importance |\n|---|---|---|---|");
    for (f, format) in options.formats.iter().enumerate() {
        for (l, cpu) in cpus.iter().enumerate() {
            let figure = |c: usize| match samples.get(&(f, l, c)) {
                Some(samples) => format!("{:.1}", -typical(samples, options.best)),
                None => String::new(),
            };
            println!("| {} | {} | {} | {} |", format.name(), cpu.level().name(), figure(0), figure(1));
        }
    }
}

fn main() {
    let options = options().unwrap_or_else(|error| {
        eprintln!("{error}");
        std::process::exit(2)
    });
    let Options { rows, k, rounds, best: best_of, .. } = options;
    let cpus: Vec<Cpu> = options
        .levels
        .iter()
        .map(|&level| {
            Cpu::new(level).unwrap_or_else(|error| {
                eprintln!("{error}");
                std::process::exit(2)
            })
        })
        .collect();
    if let Some(rows) = options.quantize {
        return quantizers(&options, &cpus, rows);
    }
    let mut rng = Rng::new(1);
    let most = options.tokens.iter().copied().max().unwrap_or(1);
    let inputs = values(&mut rng, most * k, 1.0);
    let mut out = vec![0.0; most * rows];
    let mut scratch = MatmulScratch::default();
    // One matrix per format, each large enough not to stay in a cache between rounds.
    let matrices: Vec<(Format, Vec<u8>)> = options
        .formats
        .iter()
        .map(|&format| {
            let block = format.info().block;
            // Random blocks are slow to make, so some rows are repeated. Rows that are computed together differ: look-ups in
            // tables would be faster in equal ones.
            let some = blocks(&mut rng, format, rows.min(64) * (k / block), Bits::Sensible);
            let bytes = format.row_bytes(k).unwrap_or(0) * rows;
            let data = some.iter().copied().cycle().take(bytes).collect();
            (format, data)
        })
        .collect();
    let plain = vec![1u8; 512 << 20];

    let mut samples: BTreeMap<(usize, usize, usize), Vec<f64>> = BTreeMap::new();
    let mut bandwidth = Vec::new();
    let mut peaks: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for _ in 0..rounds {
        bandwidth.push(read_bandwidth(&plain));
        for (l, cpu) in cpus.iter().enumerate() {
            peaks.entry(l).or_default().push(dot_peak(cpu.level()));
        }
        for (f, (format, data)) in matrices.iter().enumerate() {
            for (l, &cpu) in cpus.iter().enumerate() {
                for (t, &tokens) in options.tokens.iter().enumerate() {
                    let kind = format.activation();
                    let mut x = vec![0; tokens * kind.row_bytes(k)];
                    quantize_activations(cpu, kind, &inputs[..tokens * k], k, &mut x);
                    // Long runs are cut, so that all cases take a similar time.
                    let rows = if tokens > 1 { (rows * 16 / tokens.max(16)).max(64) } else { rows };
                    let bytes = format.row_bytes(k).unwrap_or(0) * rows;
                    let matrix = Matrix { format: *format, rows, k, data: &data[..bytes] };
                    let mut multiply = |rows: usize| {
                        let tile = OutTile::new(&mut out, rows);
                        let matrix = Matrix { rows, data: &data[..bytes / matrix.rows * rows], ..matrix };
                        // SAFETY: the only thread.
                        unsafe { matmul(cpu, matrix, 0..rows, &x, tokens, tile, &mut scratch) };
                    };
                    // Processors take a while to wake their widest units; until then everything counts double.
                    for _ in 0..WARM_UPS {
                        multiply(rows.min(64));
                    }
                    let time = seconds(|| multiply(rows));
                    let amount = if tokens == 1 { bytes as f64 } else { (2 * rows * k * tokens) as f64 };
                    samples.entry((f, l, t)).or_default().push(amount / time / 1e9);
                }
            }
        }
    }

    let bandwidth = typical(&bandwidth, best_of);
    let peaks: Vec<f64> = (0..cpus.len()).map(|l| typical(&peaks[&l], best_of)).collect();
    let best = peaks.iter().copied().fold(0.0, f64::max);
    println!("matrix ({rows}, {k}), one thread, {} of {rounds} rounds\n", if best_of { "best" } else { "medians" });
    println!("plain read {bandwidth:.1} GB/s; int8 dot peaks in GOP/s:");
    for (cpu, peak) in cpus.iter().zip(&peaks) {
        println!("  {} {peak:.0}", cpu.level().name());
    }
    print!("\n| format | level |");
    for tokens in &options.tokens {
        print!(" {tokens} token{} |", if *tokens == 1 { " GB/s" } else { "s GOP/s" });
    }
    println!("\n|---|---|{}", "---|".repeat(options.tokens.len()));
    for (f, (format, _)) in matrices.iter().enumerate() {
        for (l, cpu) in cpus.iter().enumerate() {
            print!("| {} | {} |", format.name(), cpu.level().name());
            for (t, &tokens) in options.tokens.iter().enumerate() {
                let figure = typical(&samples[&(f, l, t)], best_of);
                let limit = if tokens == 1 { bandwidth } else { best };
                print!(" {figure:.1} ({:.0} %) |", 100.0 * figure / limit);
            }
            println!();
        }
    }
}
