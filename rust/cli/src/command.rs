//! The commands, one per file.

use crate::terminal::Outcome;

/// Declares the commands: one line each, the variant and its module. A module has `struct Arguments` (clap) whose doc
/// comment is the help text, and `fn run(Arguments) -> Outcome<u8>`.
macro_rules! commands {
    ($($variant:ident = $module:ident),* $(,)?) => {
        $( mod $module; )*

        /// What to do.
        #[derive(clap::Subcommand)]
        pub(crate) enum Command {
            $( #[allow(missing_docs, reason = "clap takes the help text from the arguments")] $variant($module::Arguments), )*
        }

        impl Command {
            /// Does it; gives the exit code.
            pub(crate) fn run(self) -> Outcome<u8> {
                match self { $( Command::$variant(arguments) => $module::run(arguments), )* }
            }
        }
    };
}

commands! {
    Run = run,
    Chat = chat,
    Serve = serve,
    Embed = embed,
    Inspect = inspect,
    Plan = plan,
    Convert = convert,
    Bench = bench,
    Doctor = doctor,
    Quantize = quantize,
    Calibrate = calibrate,
    Eval = eval,
}
