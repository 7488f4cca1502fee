//! A bar on stderr while something long is computed.

use std::cell::RefCell;
use std::io::IsTerminal;

use fastq_core::Progress;
use indicatif::{ProgressBar, ProgressStyle};

/// The current stage with its share and the time that is left; nothing where stderr is no terminal.
pub(crate) struct Bar {
    bar: Option<ProgressBar>,
    stage: RefCell<String>,
}

impl Bar {
    /// A bar, unless `quiet`.
    pub(crate) fn new(quiet: bool) -> Bar {
        let shown = !quiet && std::io::stderr().is_terminal();
        let style = ProgressStyle::with_template("{msg} {wide_bar} {percent:>3} % {eta} left");
        let bar = style.ok().filter(|_| shown).map(|style| ProgressBar::new(1).with_style(style));
        Bar { bar, stage: RefCell::default() }
    }
}

impl Progress for Bar {
    fn report(&self, stage: &str, done: u64, total: u64) {
        let Some(bar) = &self.bar else { return };
        let mut current = self.stage.borrow_mut();
        if *current != stage {
            *current = stage.to_owned();
            bar.reset(); // the time left is the stage's own
            bar.set_message(stage.to_owned());
        }
        bar.set_length(total);
        bar.set_position(done);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
