//! The `fastq` program from outside: answers, errors, exit codes, closed streams, Ctrl-C.

#[path = "../../../tests/common/tiny_model.rs"]
mod tiny_model;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tiny_model::Tiny;

/// A folder with a model, which is also home, cache and state folder of the programs started in it.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Place {
        let place = Place { folder: tempfile::tempdir().unwrap() };
        tiny_model::write(&place.path("tiny.gguf"), Tiny::default());
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn fastq(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fastq"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        for name in ["FASTQ_CACHE", "XDG_STATE_HOME", "XDG_CACHE_HOME", "HOME", "LOCALAPPDATA"] {
            command.env(name, self.folder.path());
        }
        command.env("FASTQ_PYTHON", self.path("no-python")).env_remove("FASTQ_LEVEL").env("RUST_BACKTRACE", "1");
        command
    }

    /// Runs to the end with `input` on stdin: exit code, stdout, stderr.
    fn run_with(&self, arguments: &[&str], input: &str) -> (i32, String, String) {
        let mut command = self.fastq(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        result(child.wait_with_output().unwrap())
    }

    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        result(self.fastq(arguments).output().unwrap())
    }

    /// Runs with success; stdout.
    fn ok(&self, arguments: &[&str]) -> String {
        let (code, out, err) = self.run(arguments);
        assert_eq!(code, 0, "{arguments:?}: {err}");
        out
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(arguments)).unwrap()
    }
}

fn result(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// All help texts in one file, which is looked at when it changes. `FASTQ_UPDATE=1` writes it anew.
#[test]
fn help_is_as_recorded() {
    let place = Place::new();
    let mut all = place.ok(&["--help"]);
    for command in [
        "run",
        "chat",
        "serve",
        "embed",
        "inspect",
        "plan",
        "convert",
        "calibrate",
        "quantize",
        "eval",
        "bench",
        "doctor",
    ] {
        all += &format!("\n$ fastq {command} --help\n{}", place.ok(&[command, "--help"]));
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help.txt");
    if std::env::var_os("FASTQ_UPDATE").is_some() {
        std::fs::write(&file, &all).unwrap();
    }
    let recorded = std::fs::read_to_string(&file).unwrap();
    assert!(recorded == all, "the help differs from {}; run again with FASTQ_UPDATE=1:\n{all}", file.display());
    assert_eq!(place.ok(&["--version"]), format!("fastq {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn run_answers_and_reports() {
    let place = Place::new();
    let arguments = ["run", "tiny.gguf", "abc", "-n", "8", "--seed", "7", "--ignore-eos"];
    let (code, out, err) = place.run(&arguments);
    assert_eq!(code, 0, "{err}");
    assert!(out.ends_with('\n'));
    assert!(err.contains("length") && err.contains("tokens/s") && err.contains("seed 7"), "{err}");
    assert_eq!(err.lines().count(), 1, "{err}");
    assert!(!err.contains('\x1b') && !out.contains("\x1b["), "no colours into a pipe");

    let json = place.json(&[&arguments[..], &["--json"]].concat());
    assert_eq!(json["text"].as_str().unwrap().trim_end_matches('\n'), out.trim_end_matches('\n'));
    assert_eq!(json["tokens"].as_array().unwrap().len(), 8);
    assert_eq!((json["finish_reason"].as_str(), json["seed"].as_u64()), (Some("length"), Some(7)));
    assert_eq!(json["usage"]["completion_tokens"], 8);
    assert!(json["timings"]["prefill_seconds"].as_f64().unwrap() > 0.0);

    let (_, quiet, err) = place.run(&[&arguments[..], &["--quiet"]].concat());
    assert_eq!((quiet.as_str(), err.as_str()), (out.as_str(), ""));
    let other = place.json(&["run", "tiny.gguf", "abc", "-n", "8", "--ignore-eos", "--json"]);
    assert!(other["seed"].is_u64(), "a seed is chosen and told");
}

#[test]
fn run_uses_the_template_unless_raw() {
    let place = Place::new();
    let count = |more: &[&str]| {
        let json = place.json(&[&["run", "tiny.gguf", "hi", "-n", "0", "--json"], more].concat());
        json["usage"]["prompt_tokens"].as_u64().unwrap()
    };
    // `<s>`, then bytes and letters: "user:hi", `</s>`, "assistant:".
    assert_eq!(count(&["--raw"]), 3);
    assert_eq!(count(&[]), 1 + 7 + 1 + 10);
    assert_eq!(count(&["--system", "be"]), 1 + 9 + 1 + 7 + 1 + 10);
    tiny_model::write(&place.path("plain.gguf"), Tiny { template: false, ..Tiny::default() });
    let (code, _, err) = place.run(&["run", "plain.gguf", "hi", "-n", "1"]);
    assert_eq!(code, 0, "{err}");
    let (code, _, err) = place.run(&["run", "plain.gguf", "hi", "--system", "be"]);
    assert!(code == 1 && err.contains("template"), "{err}");
}

#[test]
fn run_reads_the_prompt_from_stdin() {
    let place = Place::new();
    let usage = |arguments: &[&str], input: &str| {
        let (code, out, err) = place.run_with(arguments, input);
        assert_eq!(code, 0, "{err}");
        serde_json::from_str::<Value>(&out).unwrap()["usage"]["prompt_tokens"].as_u64().unwrap()
    };
    let options = ["--raw", "--json", "-n", "0"];
    assert_eq!(usage(&[&["run", "tiny.gguf", "-"], &options[..]].concat(), "abcd\n"), 5);
    assert_eq!(usage(&[&["run", "tiny.gguf"], &options[..]].concat(), "abcd"), 5);
    assert_eq!(usage(&[&["run", "tiny.gguf"], &options[..]].concat(), ""), 1);
    let mut child =
        place.fastq(&["run", "tiny.gguf", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"a\xff").unwrap();
    let (code, _, err) = result(child.wait_with_output().unwrap());
    assert!(code == 1 && err.contains("UTF-8 at byte 1"), "{err}");
}

#[test]
fn errors_are_one_line_with_their_exit_code() {
    let place = Place::new();
    std::fs::write(place.path("text.gguf"), "not a model").unwrap();
    let prompt = "a".repeat(300);
    let cases: [(&[&str], i32, &str); 17] = [
        (&["run", "missing.gguf", "hi"], 1, "missing.gguf"),
        (&["run", "text.gguf", "hi"], 1, "text.gguf"),
        (&["run", "tiny.gguf", "hi", "--temperature", "-1"], 1, "temperature must be"),
        (&["run", "tiny.gguf", "hi", "--top-p", "nan"], 1, "top_p must be"),
        (&["run", "tiny.gguf", "hi", "--logit-bias", "999=1"], 1, "token 999"),
        (&["run", "tiny.gguf", "hi", "--stop", ""], 1, "stop string 0 is empty"),
        (&["run", "tiny.gguf", &prompt, "--raw"], 1, "301 tokens"),
        (&["run", "tiny.gguf", "hi", "--context", "0"], 1, "context"),
        (&["run", "hello"], 1, "FASTQ_PYTHON"),
        (&["inspect", "missing.gguf"], 1, "missing.gguf"),
        (&["plan", "text.gguf"], 1, "text.gguf"),
        (&["run", "tiny.gguf", "hi", "--logit-bias", "x"], 2, "ID=X"),
        (&["run", "tiny.gguf", "hi", "--nonsense"], 2, "--nonsense"),
        (&["bench", "tiny.gguf", "-r", "0"], 2, "--rounds"),
        (&["run", "tiny.gguf", "hi", "--kv", "q4_0"], 2, "[possible values: f32, f16, q8_0]"),
        (&["plan", "tiny.gguf", "--kv", "Q8_0"], 2, "[possible values: f32, f16, q8_0]"),
        (&["nonsense"], 2, "nonsense"),
    ];
    for (arguments, expected, part) in cases {
        let (code, out, err) = place.run(arguments);
        assert_eq!((code, out.as_str()), (expected, ""), "{arguments:?}: {err}");
        assert!(err.starts_with("error:") && err.contains(part), "{arguments:?}: {err}");
        assert!(!err.contains("panicked") && !err.contains("backtrace"), "{err}");
        if expected == 1 {
            assert_eq!(err.lines().count(), 1, "{arguments:?}: {err}");
        }
    }
    assert_eq!(place.run(&[]).0, 2);
}

#[test]
fn inspect_shows_the_file() {
    let place = Place::new();
    let text = place.ok(&["inspect", "tiny.gguf"]);
    for part in ["llama", "tiny", "GGUF version 3", "F32", "tokenizer"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let text = place.ok(&["inspect", "tiny.gguf", "--tensors", "--metadata"]);
    assert!(text.contains("blk.1.ffn_down.weight") && text.contains("llama.context_length"), "{text}");
    let json = place.json(&["inspect", "tiny.gguf", "--tensors", "--metadata", "--json"]);
    assert_eq!(json["metadata"]["llama.context_length"], 256);
    assert_eq!(json["metadata"]["tokenizer.ggml.tokens"].as_array().unwrap().len(), 286);
    assert_eq!(json["metadata"]["llama.attention.layer_norm_rms_epsilon"], 1e-5);
    let tensors = json["tensors"].as_array().unwrap();
    assert_eq!(tensors.len(), 3 + 2 * 9);
    let weights: u64 = tensors
        .iter()
        .map(|t| t["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).product::<u64>())
        .sum();
    assert_eq!(json["weights"], weights);
    assert!(place.json(&["inspect", "tiny.gguf", "--json"]).get("tensors").is_none());
}

#[test]
fn plan_adds_up() {
    let place = Place::new();
    let json = place.json(&["plan", "tiny.gguf", "--context", "100", "--json"]);
    let number = |key: &str| json[key].as_u64().unwrap();
    assert_eq!(number("context"), 100);
    assert_eq!(number("total_bytes"), number("kv_bytes") + number("state_bytes") + number("scratch_bytes"));
    assert!(place.ok(&["plan", "tiny.gguf"]).contains("context 256 of 256"));
    let smaller = place.json(&["plan", "tiny.gguf", "--context", "100", "--kv", "q8_0", "--json"]);
    assert_eq!((&json["kv_format"], &smaller["kv_format"]), (&"f16".into(), &"q8_0".into()));
    assert!(smaller["kv_bytes"].as_u64().unwrap() < number("kv_bytes"));
    assert!(place.ok(&["plan", "tiny.gguf", "--kv", "q8_0"]).contains("q8_0, 2 layers that see all positions"));
}

#[test]
fn bench_measures() {
    let place = Place::new();
    let arguments =
        ["bench", "tiny.gguf", "-p", "20", "-n", "3", "-d", "0,5", "-t", "1,2", "-r", "2", "--kv", "f16,q8_0"];
    let json = place.json(&[&arguments[..], &["--json"]].concat());
    let results = json["results"].as_array().unwrap();
    let settings = |r: &Value| format!("{} {} {}", r["threads"], r["kv"].as_str().unwrap(), r["depth"]);
    assert_eq!(
        results.iter().map(settings).collect::<Vec<_>>(),
        ["1 f16 0", "1 f16 5", "1 q8_0 0", "1 q8_0 5", "2 f16 0", "2 f16 5", "2 q8_0 0", "2 q8_0 5"]
    );
    let held = |at: usize| results[at]["kv_bytes"].as_u64().unwrap();
    assert!(held(0) == 0 && held(1) > held(3) && held(3) > 0);
    for result in results {
        for key in ["load_seconds", "first_token_seconds", "prefill_tokens_per_second", "decode_tokens_per_second"] {
            let number = |part: &str| result[key][part].as_f64().unwrap();
            assert!(0.0 < number("min") && number("min") <= number("median") && number("median") <= number("max"));
        }
    }
    let text = place.ok(&arguments);
    assert!(text.contains("prefill 20 t/s") && text.contains("decode 3 t/s"), "{text}");
}

#[test]
fn doctor_judges() {
    let place = Place::new();
    let json = place.json(&["doctor", "--json"]);
    let data = |name: &str| &json[name]["data"];
    for (name, finding) in json.as_object().unwrap() {
        assert!(["ok", "warning", "problem"].contains(&finding["status"].as_str().unwrap()), "{name}");
        assert!(!finding["text"].as_str().unwrap().is_empty() && finding["data"].is_object(), "{name}");
    }
    let processor = data("processor");
    assert_eq!(processor["pointer_bits"], usize::BITS);
    assert_eq!(processor["architecture"], std::env::consts::ARCH);
    let listed = processor["cores"].as_array().unwrap().iter().map(|kind| kind["processors"].as_array().unwrap().len());
    let threads = data("threads");
    assert_eq!(listed.sum::<usize>() as u64, threads["usable_processors"].as_u64().unwrap());
    assert!((1..=threads["usable_processors"].as_u64().unwrap()).contains(&threads["granted"].as_u64().unwrap()));
    let levels = data("level")["available"].as_array().unwrap();
    assert_eq!(levels[0], "scalar");
    assert_eq!(data("level")["chosen"], *levels.last().unwrap());
    // What is not available says what it lacks.
    let text = json["level"]["text"].as_str().unwrap();
    for level in data("level")["unavailable"].as_array().unwrap() {
        let name = level.as_str().unwrap();
        let missing = data("level")["missing_features"][name].as_array().unwrap();
        assert!(missing.iter().all(|feature| text.contains(feature.as_str().unwrap())), "{text}");
        assert!(text.contains(&format!("{name} needs")) || text.contains(&format!("{name} is not granted")), "{text}");
    }
    for figure in ["bytes_per_second", "one_thread_bytes_per_second"] {
        assert!(data("bandwidth")[figure].as_f64().unwrap() > 0.0);
    }
    if cfg!(target_os = "linux") {
        assert!(processor["page_bytes"].as_u64().unwrap().is_power_of_two());
        let (free, total) =
            (data("memory")["free_bytes"].as_u64().unwrap(), data("memory")["total_bytes"].as_u64().unwrap());
        assert!(0 < free && free < total);
        assert_eq!(data("memory")["address_space_bytes"].is_null(), usize::BITS == 64);
    }
    let scalar = result(place.fastq(&["doctor"]).env("FASTQ_LEVEL", "scalar").output().unwrap()).1;
    assert!(scalar.contains("scalar, asked for by FASTQ_LEVEL"), "{scalar}");
    let (code, out, _) = result(place.fastq(&["doctor"]).env("FASTQ_LEVEL", "turbo").output().unwrap());
    assert!(code == 1 && out.contains("turbo") && out.contains("problem"), "{out}");
}

#[test]
fn chat_keeps_a_conversation() {
    let place = Place::new();
    let arguments = ["chat", "tiny.gguf", "--system", "be", "-n", "5", "--ignore-eos", "--seed", "1", "--stats"];
    let input = "hi\n\nho \\\nho\n/system\n/save talk.json\n/nonsense\n/reset\nhi\n\"\"\"/quit\nx\"\"\"\n/help\n";
    let (code, _, err) = place.run_with(&arguments, input);
    assert_eq!(code, 0, "{err}");
    let kept: Vec<&str> = err.lines().filter(|line| line.contains("tokens kept")).collect();
    assert_eq!(kept.len(), 4, "{err}");
    assert!(kept[0].ends_with("| 0 tokens kept") && !kept[1].ends_with("| 0 tokens kept"), "{err}");
    for part in ["be", "/nonsense is not known", "5 messages in talk.json", "/reset "] {
        assert!(err.contains(part), "{part}: {err}");
    }
    let talk: Value = serde_json::from_str(&std::fs::read_to_string(place.path("talk.json")).unwrap()).unwrap();
    let roles: Vec<&str> = talk.as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "user", "assistant"]);
    assert_eq!(talk[3]["content"], "ho \nho");
    // Once more, from the start: the answers are the same whether or not a sequence was kept.
    let (_, long, _) = place.run_with(&arguments, "hi\nho \\\nho\n");
    let (_, again, _) = place.run_with(&arguments, "a\n/reset\nhi\nho \\\nho\n/quit\nnever\n");
    assert!(again.ends_with(&long), "{again:?} does not end with {long:?}");

    // In two programs, with what was computed of it: the same again.
    let (code, first, err) = place.run_with(&arguments, "hi\n/store talk.kv\n/store talk.json\n/store\n");
    assert!(code == 0 && err.contains("3 messages, ") && err.contains("tokens in talk.kv"), "{err}");
    assert!(err.contains("talk.json: the file exists and is no session") && err.contains("/store needs"), "{err}");
    let resume = ["chat", "tiny.gguf", "--session", "talk.kv", "-n", "5", "--ignore-eos", "--seed", "1", "--stats"];
    let (code, second, err) = place.run_with(&resume, "ho \\\nho\n");
    assert!(code == 0 && err.contains("3 messages, ") && err.contains("tokens from talk.kv"), "{err}");
    assert_eq!(first + &second, long, "{err}");
    assert!(err.contains("tokens kept") && !err.contains("| 0 tokens kept"), "{err}");
    let (code, other, err) =
        place.run_with(&arguments, "a\n/load talk.kv\n/load tiny.gguf\n/load none.kv\nho \\\nho\n");
    assert!(code == 0 && other.ends_with(&second), "{other:?} {second:?}");
    assert!(err.contains("tiny.gguf at byte 0: expected a session") && err.contains("no such file: none.kv"), "{err}");
    let (code, _, err) = place.run(&["chat", "tiny.gguf", "--session", "talk.kv", "--kv", "q8_0"]);
    assert!(code == 1 && err.contains("another model"), "{err}");
    let (code, ..) = place.run(&["chat", "tiny.gguf", "--session", "talk.kv", "--system", "x"]);
    assert_eq!(code, 2);

    tiny_model::write(&place.path("plain.gguf"), Tiny { template: false, ..Tiny::default() });
    let (code, _, err) = place.run(&["chat", "plain.gguf"]);
    assert!(code == 1 && err.contains("chat template"), "{err}");
}

#[cfg(unix)]
mod signals {
    use super::*;
    use std::time::{Duration, Instant};

    fn interrupt(child: &std::process::Child) {
        // SAFETY: kill has no preconditions; the child was not waited for, so its id is still its own.
        assert_eq!(unsafe { libc::kill(child.id().try_into().unwrap(), libc::SIGINT) }, 0);
    }

    #[test]
    fn a_closed_stdout_is_quiet() {
        let place = Place::new();
        let arguments = ["run", "tiny.gguf", "abc", "-n", "240", "--ignore-eos", "--raw"];
        let mut child = place.fastq(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        assert_eq!(result(child.wait_with_output().unwrap()), (0, String::new(), String::new()));
    }

    #[test]
    fn ctrl_c_stops_a_computation() {
        let place = Place::new();
        let arguments = ["bench", "tiny.gguf", "-p", "200", "-n", "20", "-r", "100000000"];
        let child = place.fastq(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(500));
        let start = Instant::now();
        interrupt(&child);
        let (code, out, err) = result(child.wait_with_output().unwrap());
        assert_eq!((code, out.as_str(), err.as_str()), (130, "", ""));
        // 200 ms is the promise; a machine that is busy with other tests gets more.
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }

    #[test]
    fn ctrl_c_ends_what_waits_for_input() {
        let place = Place::new();
        let mut child = place
            .fastq(&["chat", "tiny.gguf", "-n", "2"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // The first answer shows that the program has started.
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"hi\n").unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        interrupt(&child);
        assert_eq!(child.wait().unwrap().code(), Some(130));
    }
}

/// Real limits: what does not fit is refused before it is allocated, with one line and exit code 1, not a signal.
#[cfg(target_os = "linux")]
mod limits {
    use super::*;
    use std::os::unix::process::CommandExt;

    /// A command with an address space of `mib` MiB.
    fn limited(place: &Place, arguments: &[&str], mib: libc::rlim_t) -> (i32, String, String) {
        let mut command = place.fastq(arguments);
        let limit = libc::rlimit { rlim_cur: mib << 20, rlim_max: mib << 20 };
        // SAFETY: setrlimit may be called between fork and exec, and only reads the struct.
        unsafe {
            command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_AS, &raw const limit) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        result(command.output().unwrap())
    }

    #[test]
    fn a_context_that_does_not_fit_is_refused_with_one_that_does() {
        let place = Place::new();
        // Contexts of a power of two, until the cache has a GiB.
        let context = (8..30).map(|bits| 1u64 << bits).find(|context| {
            let plan = place.run(&["plan", "tiny.gguf", "--json", "--context", &context.to_string()]);
            plan.0 != 0 || serde_json::from_str::<Value>(&plan.1).unwrap()["kv_bytes"].as_u64().unwrap() >= 1 << 30
        });
        let context = context.unwrap().to_string();
        let run = |context: &str| {
            let arguments = ["run", "tiny.gguf", "abc", "-n", "4", "--threads", "1", "--context", context];
            limited(&place, &arguments, 512)
        };
        let (code, out, err) = run(&context);
        assert_eq!((code, out.as_str(), err.lines().count()), (1, "", 1), "{err}");
        assert!(err.contains(&format!("for context={context}")) && err.contains("address space limit"), "{err}");
        // What the message advises works. A little is left for what moved in between.
        let advice = err.split("context=").nth(2).and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok()).unwrap();
        let (code, _, err) = run(&(advice * 9 / 10).to_string());
        assert_eq!(code, 0, "{err}");
    }

    #[test]
    fn a_file_larger_than_the_address_space_is_refused() {
        let place = Place::new();
        let sparse = std::fs::File::options().append(true).open(place.path("tiny.gguf")).unwrap();
        sparse.set_len(1 << 30).unwrap();
        for arguments in
            [&["inspect", "tiny.gguf"][..], &["run", "tiny.gguf", "a"], &["run", "tiny.gguf", "a", "--no-mmap"]]
        {
            let (code, out, err) = limited(&place, arguments, 512);
            assert_eq!((code, out.as_str(), err.lines().count()), (1, "", 1), "{err}");
            assert!(err.contains("tiny.gguf: the file needs 1073741824 bytes of address space"), "{err}");
        }
        assert_eq!(place.run(&["inspect", "tiny.gguf"]).0, 0);
    }

    #[test]
    fn doctor_tells_the_limit() {
        let place = Place::new();
        let (code, out, err) = limited(&place, &["doctor"], 512);
        assert_eq!(code, 0, "{err}");
        assert!(out.contains("bound by: address space limit (ulimit -v)"), "{out}");
        // Next to nothing: no measurement, no abort.
        let (code, out, err) = limited(&place, &["doctor"], 96);
        assert!(code == 0 && out.contains("bandwidth"), "{code} {out} {err}");
    }
}

#[test]
fn quantize_writes_a_smaller_file() {
    let place = Place::new();
    let command = ["quantize", "tiny.gguf", "out.gguf", "q8-0", "--allow-requantize", "--threads", "2"];
    let table = place.ok(&[&command[..], &["--dry-run", "--report", "out.html"]].concat());
    assert!(table.contains("nothing was written") && !place.path("out.gguf").exists(), "{table}");
    let page = std::fs::read_to_string(place.path("out.html")).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("token_embd.weight"), "{page}");
    let report = place.json(&[&command[..], &["--json", "--override", "blk\\.0\\.attn_q=F32"]].concat());
    assert_eq!(report["bytes"].as_u64(), std::fs::metadata(place.path("out.gguf")).ok().map(|data| data.len()));
    assert_eq!((report["target"].as_str(), report["method"].as_str()), (Some("Q8_0"), Some("auto")));
    let file = place.json(&["inspect", "out.gguf", "--tensors", "--metadata", "--json"]);
    assert_eq!(file["metadata"]["general.file_type"], 7);
    let types = |name: &str| {
        let tensors = file["tensors"].as_array().unwrap();
        tensors.iter().find(|tensor| tensor["name"] == name).unwrap()["type"].as_str().unwrap().to_owned()
    };
    assert_eq!((types("blk.0.attn_q.weight"), types("blk.1.attn_q.weight")), ("F32".into(), "Q8_0".into()));
    place.ok(&["run", "out.gguf", "abc", "-n", "4", "--raw"]);
}

#[test]
fn quantize_refuses_with_reasons() {
    let place = Place::new();
    let refused = [
        (vec!["out.gguf", "Q8_K"], 1, "Q8_K is what activations become"),
        (vec!["tiny.gguf", "copy"], 1, "is being read; name another file"),
        (vec!["out.gguf", "Q4_0", "--override", "attn_v"], 2, "REGEX=TYPE"),
        (vec!["out.gguf", "Q4_0", "--method", "magic"], 2, "rtn"),
        (vec!["nowhere/out.gguf", "copy"], 1, "no such file"),
        (vec!["out.gguf", "Q4_0", "--imatrix", "tiny.gguf"], 1, "expected an imatrix"),
    ];
    for (arguments, expected, message) in refused {
        let (code, out, err) = place.run(&[&["quantize", "tiny.gguf"], &arguments[..]].concat());
        assert_eq!(code, expected, "{arguments:?}: {err}");
        assert!(err.contains(message) && out.is_empty(), "{arguments:?}: {err}");
    }
    let names: Vec<_> = std::fs::read_dir(&place.folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["tiny.gguf"]);
}
