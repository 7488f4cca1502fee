//! The hostile files of `../shared/hostile` (or `$FASTQ_SHARED/hostile`), at the stage of parsing, and random mutants.
//!
//! Needs a Python with numpy: `$FASTQ_PYTHON`, else `python3`. Skipped with a printed reason without them.
#![allow(clippy::print_stdout, reason = "a skipped test says so")]

#[path = "gguf/build.rs"]
mod build;

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fastq_core::Error;
use fastq_core::gguf::{Gguf, OpenOptions, Value};
use serde_json::Value as Json;

/// Files that are wrong only for the loader, but are refused while opening: the other parts of a split model are missing.
const EARLY: &[&str] = &["hp_split_of_5"];

fn script() -> Option<PathBuf> {
    let shared = std::env::var_os("FASTQ_SHARED").map(PathBuf::from);
    let shared = shared.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"));
    let script = shared.join("hostile/mutate_gguf.py");
    if !script.is_file() {
        println!("skipped: {} is not there; set FASTQ_SHARED", script.display());
        return None;
    }
    Some(script)
}

/// Runs a Python program; `None` with the reason printed when that is not possible.
fn python(arguments: &[&std::ffi::OsStr]) -> Option<()> {
    let python = std::env::var_os("FASTQ_PYTHON").unwrap_or_else(|| "python3".into());
    if !Command::new(&python).args(["-c", "import numpy"]).output().is_ok_and(|output| output.status.success()) {
        println!("skipped: {} has no numpy; set FASTQ_PYTHON", python.display());
        return None;
    }
    let output = Command::new(python).args(arguments).output().expect("run Python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(())
}

/// Looks at everything in a file.
fn walk(file: &Gguf) -> usize {
    let mut sum = 0;
    for (key, value) in file.metadata() {
        sum += key.len();
        let _ = (file.str(key), file.f32(key), file.bool(key), file.usize(key), file.i32s(key), file.f32s(key));
        let _ = (file.usizes(key), file.bools(key));
        if let Value::Array(array) = value {
            assert_eq!(array.iter().count(), array.len());
            sum += array.strings().map_or(0, |strings| strings.iter().map(<[u8]>::len).sum());
        }
    }
    sum + file.tensors().iter().map(|tensor| file.tensor_data(tensor).len()).sum::<usize>()
}

/// Opens a file in both ways without panic; the results must be the same.
fn open(path: &Path) -> Result<Gguf, Error> {
    let [mapped, read] = [true, false].map(|mmap| {
        let open = || {
            let file = Gguf::open(path, &OpenOptions { mmap, ..OpenOptions::default() });
            file.inspect(|file| _ = std::hint::black_box(walk(file)))
        };
        catch_unwind(open).unwrap_or_else(|_| panic!("{} panicked", path.display()))
    });
    let text = |result: &Result<Gguf, Error>| result.as_ref().map(drop).map_err(Error::to_string);
    assert_eq!(text(&mapped), text(&read));
    mapped
}

#[test]
fn all_cases() {
    let Some(script) = script() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    for vocabulary in ["spm", "bpe"] {
        let base = folder.path().join(format!("{vocabulary}.gguf"));
        let cases = folder.path().join(vocabulary);
        let craft = [script.as_os_str(), "--craft".as_ref(), base.as_os_str(), "--vocab".as_ref(), vocabulary.as_ref()];
        if python(&craft).is_none() {
            return;
        }
        let random = ["--random".as_ref(), "1000".as_ref(), "--seed".as_ref(), "7".as_ref()];
        python(&[&[script.as_os_str(), base.as_os_str(), cases.as_os_str()][..], &random].concat())
            .expect("numpy is there");
        let manifest = std::fs::read(cases.join("manifest.json")).expect("the manifest");
        let manifest: Json = serde_json::from_slice(&manifest).expect("JSON");
        let mut counts = [0; 3];
        for case in manifest["cases"].as_array().expect("cases") {
            let text = |key: &str| case[key].as_str().expect("a string");
            let name = text("name");
            let start = Instant::now();
            let result = open(&cases.join(text("file")));
            let seconds = start.elapsed().as_secs_f64();
            assert!(seconds < 10.0, "{name} took {seconds:.1} s");
            let strict = case["strict"].as_bool().expect("a bool");
            let refused_here = text("stage") == "parse" && text("expect") == "error";
            match result {
                Ok(_) if refused_here && strict => panic!("{vocabulary} {name} was not refused"),
                Ok(_) => counts[0] += 1,
                Err(error) => {
                    assert!(matches!(error, Error::ModelFile { .. }), "{name}: {error:?}");
                    assert!(error.to_string().len() < 1200, "{name}: a message of {} bytes", error.to_string().len());
                    let allowed = refused_here || !strict || EARLY.contains(&name);
                    assert!(allowed, "{vocabulary} {name} was refused while parsing: {error}");
                    counts[1 + usize::from(text("expect") == "nocrash")] += 1;
                }
            }
        }
        println!("{vocabulary}: {} opened, {} cases and {} mutants refused", counts[0], counts[1], counts[2]);
        assert!(counts[0] > 50 && counts[1] > 150 && counts[2] > 100, "{counts:?}");
        let pairs = cases.join("kv_100k_pairs.gguf");
        let times = (0..3).map(|_| {
            let start = Instant::now();
            assert!(
                Gguf::open(&pairs, &OpenOptions::default()).expect("many pairs are fine").metadata().len() > 100_000
            );
            start.elapsed()
        });
        let best = times.min().expect("three times");
        println!("{vocabulary}: kv_100k_pairs opened in {:.1} ms", best.as_secs_f64() * 1e3);
        assert!(best < Duration::from_millis(500), "kv_100k_pairs took {best:?}");
    }
}

/// Small and fast: no system has to be asked for random numbers (Vigna's splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// Numbers that have hurt readers.
const NUMBERS: &[u64] = &[
    0,
    1,
    7,
    8,
    12,
    13,
    31,
    32,
    33,
    255,
    256,
    1 << 16,
    1 << 31,
    1 << 32,
    1 << 40,
    1 << 62,
    1 << 63,
    u64::MAX - 31,
    u64::MAX,
];

#[test]
fn random_mutants_do_not_panic() {
    let base = build::sample().bytes();
    let mut random = Random(7);
    let (mut opened, mut refused) = (0, 0);
    for round in 0..20_000 {
        let mut bytes = base.clone();
        for _ in 0..[1, 1, 1, 2, 3, 8][random.below(6)] {
            let at = random.below(bytes.len());
            match random.below(6) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes[at] = random.next() as u8,
                2 => bytes.truncate(at.max(4)),
                3 => drop(bytes.drain(at..(at + random.below(64)).min(bytes.len()))),
                4 => drop(bytes.splice(at..at, (0..random.below(64)).map(|byte| byte as u8).collect::<Vec<u8>>())),
                _ => {
                    let number = NUMBERS[random.below(NUMBERS.len())].to_le_bytes();
                    let width = [4, 8][random.below(2)].min(bytes.len() - at);
                    bytes[at..at + width].copy_from_slice(&number[..width]);
                }
            }
            if bytes.is_empty() {
                break;
            }
        }
        let parse =
            || Gguf::parse(Path::new("mutant.gguf"), bytes.into()).inspect(|file| _ = std::hint::black_box(walk(file)));
        match catch_unwind(std::panic::AssertUnwindSafe(parse)).unwrap_or_else(|_| panic!("mutant {round} panicked")) {
            Ok(_) => opened += 1,
            Err(Error::ModelFile { what, .. }) if !what.is_empty() => refused += 1,
            Err(other) => panic!("mutant {round}: {other:?}"),
        }
    }
    println!("{opened} mutants opened, {refused} refused");
    assert!(opened > 1000 && refused > 1000);
}
