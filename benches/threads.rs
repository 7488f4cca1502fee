//! How several threads do beside a busy neighbour: `cargo bench --bench threads -- --model FILE --threads 1,2`.
//!
//! Every round measures prefill and decode of every number of threads, with the machine to itself and beside one process that never
//! sleeps, in turn. What is printed are medians, and the medians of the ratios to the first number of threads in the same round
//! and place. A sample during which other processes took more than a tenth of a processor is thrown away, where `/proc/stat` tells.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints its results")]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fastq_core::{BatchItem, LoadOptions, Logits, Model, Never};

struct Arguments {
    model: String,
    threads: Vec<usize>,
    rounds: usize,
    prompt: usize,
    decode: usize,
    /// Keep samples that others disturbed.
    all: bool,
}

/// A process that takes what it gets of one processor until it is dropped.
struct Neighbour(Child);

impl Neighbour {
    fn start() -> Neighbour {
        let program = std::env::current_exe().expect("this program has a path");
        let child = Command::new(program).arg("--spin").stdin(Stdio::null()).spawn().expect("a second process starts");
        std::thread::sleep(Duration::from_millis(50));
        Neighbour(child)
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        // It may have been ended from outside.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Hundredths of seconds that all processors were busy, and that this process was.
fn busy() -> Option<(u64, u64)> {
    let all = std::fs::read_to_string("/proc/stat").ok()?;
    let fields: Vec<u64> = all.lines().next()?.split_whitespace().skip(1).flat_map(str::parse).collect();
    let idle = fields.get(3)? + fields.get(4)?;
    let own = std::fs::read_to_string("/proc/self/stat").ok()?;
    let own: Vec<u64> = own.rsplit_once(')')?.1.split_whitespace().skip(11).take(2).flat_map(str::parse).collect();
    Some((fields.iter().take(8).sum::<u64>() - idle, own.iter().sum()))
}

/// Seconds that `work` took; `None` when others than this process and `neighbours` processes were busy meanwhile.
fn quiet(neighbours: u64, all: bool, work: impl FnOnce()) -> Option<f64> {
    let (before, start) = (busy(), Instant::now());
    work();
    let took = start.elapsed().as_secs_f64();
    if let (Some(before), Some(after), false) = (before, busy(), all) {
        let hundredths = (took * 100.0) as u64;
        // What the neighbour gets is at most one processor, and less when it has to share.
        let expected = after.1 - before.1 + neighbours * hundredths;
        if after.0 - before.0 > expected + hundredths / 10 + 2 {
            return None;
        }
    }
    Some(took)
}

fn forward(model: &Model, sequence: &mut fastq_core::Sequence, tokens: &[u32], out: &mut Vec<f32>) {
    model.forward(&mut [BatchItem { sequence, tokens, logits: Logits::Last, out }], &Never).expect("computes");
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    if values.is_empty() { f64::NAN } else { (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0 }
}

fn main() {
    let mut list = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let mut arguments =
        Arguments { model: String::new(), threads: vec![1, 2], rounds: 5, prompt: 256, decode: 128, all: false };
    while let Some(name) = list.next() {
        if name == "--spin" {
            loop {
                std::hint::black_box(());
            }
        }
        let value = list.next().unwrap_or_else(|| panic!("{name} needs a value"));
        let number = || value.parse().unwrap_or_else(|_| panic!("{name} must be a number, found {value}"));
        match name.as_str() {
            "--model" => arguments.model = value,
            "--threads" => arguments.threads = value.split(',').map(|n| n.parse().expect("a number")).collect(),
            "--rounds" => arguments.rounds = number(),
            "--prompt" => arguments.prompt = number(),
            "--decode" => arguments.decode = number(),
            "--all" => arguments.all = number() != 0,
            other => panic!("{other} is not one of --model --threads --rounds --prompt --decode --all"),
        }
    }
    if arguments.model.is_empty() {
        eprintln!("no --model: nothing measured");
        return;
    }
    let Arguments { model, threads, rounds, prompt, decode, all } = arguments;
    let load = |threads| {
        let options =
            LoadOptions { context: Some(prompt.max(decode)), threads: Some(threads), ..LoadOptions::default() };
        Model::load(model.as_ref(), &options, &Never).expect("the model loads")
    };
    let models: Vec<Model> = threads.iter().map(|&threads| load(threads)).collect();
    let tokens: Vec<u32> = (0..prompt.max(decode) as u32).map(|at| at.wrapping_mul(0x9e37_79b9) >> 18).collect();
    // Seconds by neighbours, threads, and prefill or decode.
    let mut times = vec![vec![[const { Vec::new() }; 2]; threads.len()]; 2];
    for round in 0..=rounds {
        for neighbours in [0, 1] {
            let busy = (neighbours == 1).then(Neighbour::start);
            for (index, model) in models.iter().enumerate() {
                let mut out = Vec::new();
                let prefill = || forward(model, &mut model.new_sequence(), &tokens[..prompt], &mut out);
                let prefill = quiet(neighbours, all, prefill);
                let mut sequence = model.new_sequence();
                let step =
                    || tokens[..decode].chunks(1).for_each(|token| forward(model, &mut sequence, token, &mut out));
                let step = quiet(neighbours, all, step);
                // The first round warms up.
                if round > 0 {
                    times[neighbours as usize][index][0].push(prefill);
                    times[neighbours as usize][index][1].push(step);
                }
            }
            drop(busy);
        }
    }
    println!(
        "{model}, {rounds} rounds, prefill {prompt}, decode {decode}: tokens/s (ratio to {} threads; samples)",
        threads[0]
    );
    for (neighbours, times) in times.iter().enumerate() {
        for (index, count) in threads.iter().enumerate() {
            let cell = |what: usize, tokens: usize| {
                let speed: Vec<f64> = times[index][what].iter().flatten().map(|took| tokens as f64 / took).collect();
                let pairs = times[0][what].iter().zip(&times[index][what]);
                let ratios: Vec<f64> = pairs.filter_map(|(one, many)| Some((*one)? / (*many)?)).collect();
                let samples = ratios.len();
                format!("{:8.1} ({:.3}; {samples})", median(speed), median(ratios))
            };
            println!(
                "neighbours {neighbours}, threads {count}: prefill {}, decode {}",
                cell(0, prompt),
                cell(1, decode)
            );
        }
    }
}
