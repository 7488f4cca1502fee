//! What tells whether keys and values of one model are those of another: the same file, computed with in the same way.

use std::fmt;

use xxhash_rust::xxh3::Xxh3Default;

use super::Model;

/// Bytes of each place of a tensor that are looked at: its beginning, middle and end. All bytes of a large file would take seconds.
const SAMPLE: usize = 1024;

/// A hash of all that keys and values depend on, but for what the numeric contract leaves open (level, threads, chunks) and the path.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Fingerprint(pub(crate) u128);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Model {
    /// The fingerprint: of the metadata and the table of tensors, of samples of the weights, of the rules of the architecture, of the format of
    /// the KV cache, and of the data that stand in place of those of the file. Computed once.
    pub fn fingerprint(&self) -> Fingerprint {
        *self.inner.fingerprint.get_or_init(|| self.compute_fingerprint())
    }

    fn compute_fingerprint(&self) -> Fingerprint {
        let (file, spec) = (self.gguf(), self.spec());
        let mut hash = Xxh3Default::new();
        let mut part = |bytes: &[u8]| {
            // With its length, so that no byte can move from one part to the next.
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        file.headers().for_each(&mut part);
        part(&file.file_bytes().to_le_bytes());
        for tensor in file.tensors() {
            let data = file.tensor_data(tensor);
            let sample = SAMPLE.min(data.len());
            let last = data.len() - sample;
            for start in [0, last / 2, last] {
                part(&data[start..start + sample]);
            }
        }
        // By name and value, as they are declared: a version that knows further rules finds another model.
        part(format!("{:?}", spec.architecture).as_bytes());
        part(&[u8::from(spec.long_context)]);
        part(self.plan().kv_format.name().as_bytes());
        let mut replaced: Vec<_> = self.inner.replaced.iter().collect();
        replaced.sort_by_key(|(name, _)| *name);
        for (name, replacement) in replaced {
            part(name.as_bytes());
            part(replacement.ty.name().as_bytes());
            part(&replacement.data);
        }
        Fingerprint(hash.digest128())
    }
}
