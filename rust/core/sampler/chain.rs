//! The stages by name, their usual order, and the chain that options ask for.

use super::{SamplerOptions, Setup, Stage, dry, logit_bias, min_p, mirostat, penalties, temperature};
use super::{top_k, top_n_sigma, top_p, typical, xtc};
use crate::{Error, Result};

/// Declares the stages that have a place in the chain, in their usual order: the module, the name in Rust, and the names that users
/// may write, ours first. Each module has `fn stage(&Setup) -> Result<Option<Box<dyn Stage>>>`, which checks the options it
/// reads and is `None` when they switch it off.
macro_rules! stages {
    ($($stage:ident: $variant:ident = [$($name:literal),+],)*) => {
        /// A stage that has a place in [`SamplerOptions::chain`].
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum StageName {
            $(#[doc = concat!("`", $($name, "`, `",)+ "`")] $variant,)*
        }

        impl StageName {
            /// All of them in their usual order, which is llama.cpp's.
            pub const ALL: &'static [StageName] = &[$(StageName::$variant),*];

            /// The names, ours first; the others are llama.cpp's.
            const fn names(self) -> &'static [&'static str] {
                match self { $(StageName::$variant => &[$($name),+],)* }
            }

            /// The stage; `None` when the options switch it off.
            fn stage(self, setup: &Setup<'_>) -> Result<Option<Box<dyn Stage>>> {
                match self { $(StageName::$variant => $stage::stage(setup),)* }
            }
        }
    };
}

stages! {
    penalties: Penalties = ["penalties"],
    dry: Dry = ["dry"],
    top_n_sigma: TopNSigma = ["top_n_sigma"],
    top_k: TopK = ["top_k"],
    typical: Typical = ["typical_p", "typ_p"],
    top_p: TopP = ["top_p"],
    min_p: MinP = ["min_p"],
    xtc: Xtc = ["xtc"],
    temperature: Temperature = ["temperature"],
}

impl StageName {
    /// `"penalties"`, `"dry"`, `"top_n_sigma"`, `"top_k"`, `"typical_p"`, `"top_p"`, `"min_p"`, `"xtc"` or `"temperature"`.
    pub const fn name(self) -> &'static str {
        self.names()[0]
    }

    /// The stage of that name; `typ_p` is `typical_p`, as in llama.cpp.
    ///
    /// # Errors
    /// [`Error::Argument`] for an unknown name; it lists the names.
    pub fn from_name(name: &str) -> Result<StageName> {
        let found = StageName::ALL.iter().find(|stage| stage.names().contains(&name));
        found.copied().ok_or_else(|| {
            let names: Vec<&str> = StageName::ALL.iter().map(|stage| stage.name()).collect();
            Error::Argument(format!("chain: expected stages among {}, found {name:?}", names.join(", ")))
        })
    }

    /// The chain of a list of names.
    ///
    /// # Errors
    /// [`Error::Argument`] for an unknown name, or one that comes twice.
    pub fn chain<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Result<Vec<StageName>> {
        let mut chain = Vec::new();
        for name in names {
            chain.push(StageName::from_name(name.as_ref())?);
            // At once, so that a list without end ends.
            check_once(&chain)?;
        }
        Ok(chain)
    }
}

impl std::fmt::Display for StageName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

fn check_once(chain: &[StageName]) -> Result<()> {
    match chain.iter().enumerate().find(|(at, stage)| chain[..*at].contains(stage)) {
        None => Ok(()),
        Some((_, stage)) => Err(Error::Argument(format!("chain: {stage} must come at most once"))),
    }
}

impl SamplerOptions {
    /// Whether mirostat chooses how much is cut. The greedy choice needs no cut.
    pub(super) fn is_mirostat(&self) -> bool {
        self.mirostat > 0 && self.temperature > 0.0
    }

    /// The stages that are asked for, first to last; with mirostat only those that it does not replace.
    pub(super) fn order(&self) -> impl Iterator<Item = StageName> {
        let chain = self.chain.as_deref().unwrap_or(StageName::ALL).iter().copied();
        let stays = |name: &StageName| matches!(name, StageName::Penalties | StageName::Dry | StageName::Temperature);
        chain.filter(move |name| !self.is_mirostat() || stays(name))
    }
}

/// The chain, checked: biases, the named stages in the order of the options, mirostat.
pub(super) fn chain(setup: &Setup<'_>) -> Result<Vec<Box<dyn Stage>>> {
    if let Some(chain) = &setup.options.chain {
        check_once(chain)?;
    }
    let mut chain = Vec::from_iter(logit_bias::stage(setup)?);
    // All of them, so that every option is checked whether or not its stage takes part.
    let named = StageName::ALL.iter().map(|name| name.stage(setup)).collect::<Result<Vec<_>>>();
    let mut named = named?;
    chain.extend(setup.options.order().filter_map(|name| named[name as usize].take()));
    chain.extend(mirostat::stage(setup)?);
    Ok(chain)
}
