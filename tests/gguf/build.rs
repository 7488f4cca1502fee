//! Builds GGUF files byte by byte, right ones and wrong ones, independently of the writer.
#![allow(dead_code, reason = "shared by several test programs, each of which uses a part")]

/// Tensor record: name, number of dimensions as written, shape, type, offset; `None` lays the tensor out after the others.
#[derive(Clone)]
pub(crate) struct Tensor {
    pub(crate) name: Vec<u8>,
    pub(crate) dimensions: Option<u32>,
    pub(crate) shape: Vec<u64>,
    pub(crate) ty: u32,
    pub(crate) offset: Option<u64>,
    pub(crate) data: Vec<u8>,
}

/// A file in the making.
#[derive(Clone)]
pub(crate) struct File {
    pub(crate) magic: Vec<u8>,
    pub(crate) version: u32,
    pub(crate) tensor_count: Option<u64>,
    pub(crate) pair_count: Option<u64>,
    /// Key, value type, bytes of the value.
    pub(crate) pairs: Vec<(Vec<u8>, u32, Vec<u8>)>,
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) alignment: usize,
    pub(crate) padding: u8,
}

impl Default for File {
    fn default() -> Self {
        File {
            magic: b"GGUF".to_vec(),
            version: 3,
            tensor_count: None,
            pair_count: None,
            pairs: Vec::new(),
            tensors: Vec::new(),
            alignment: 32,
            padding: 0,
        }
    }
}

/// A string with its length.
pub(crate) fn string(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [&(bytes.len() as u64).to_le_bytes(), bytes].concat()
}

/// An array: element type, count as written, bytes of the elements.
pub(crate) fn array(element: u32, count: u64, bytes: &[u8]) -> Vec<u8> {
    [&element.to_le_bytes()[..], &count.to_le_bytes(), bytes].concat()
}

impl File {
    pub(crate) fn pair(mut self, key: impl AsRef<[u8]>, ty: u32, value: impl AsRef<[u8]>) -> File {
        self.pairs.push((key.as_ref().to_vec(), ty, value.as_ref().to_vec()));
        self
    }

    pub(crate) fn tensor(mut self, name: impl AsRef<[u8]>, shape: &[u64], ty: u32, data: Vec<u8>) -> File {
        let name = name.as_ref().to_vec();
        self.tensors.push(Tensor { name, dimensions: None, shape: shape.to_vec(), ty, offset: None, data });
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = self.magic.clone();
        out.extend(self.version.to_le_bytes());
        out.extend(self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.pair_count.unwrap_or(self.pairs.len() as u64).to_le_bytes());
        for (key, ty, value) in &self.pairs {
            out.extend(string(key));
            out.extend(ty.to_le_bytes());
            out.extend(value);
        }
        let mut next = 0u64;
        for tensor in &self.tensors {
            out.extend(string(&tensor.name));
            out.extend(tensor.dimensions.unwrap_or(tensor.shape.len() as u32).to_le_bytes());
            for dimension in &tensor.shape {
                out.extend(dimension.to_le_bytes());
            }
            out.extend(tensor.ty.to_le_bytes());
            out.extend(tensor.offset.unwrap_or(next).to_le_bytes());
            next += tensor.data.len().next_multiple_of(self.alignment) as u64;
        }
        out.resize(out.len().next_multiple_of(self.alignment), self.padding);
        for tensor in &self.tensors {
            out.extend(&tensor.data);
            out.resize(out.len().next_multiple_of(self.alignment), 0);
        }
        out
    }
}

/// A small valid file with every value type and some tensors.
pub(crate) fn sample() -> File {
    let mut file = File::default().pair("general.architecture", 8, string("llama"));
    for (ty, bytes) in [(0, 1), (1, 1), (2, 2), (3, 2), (4, 4), (5, 4), (6, 4), (7, 1), (10, 8), (11, 8), (12, 8)] {
        let one: Vec<u8> = (0..bytes).map(|index| u8::from(index == 0)).collect();
        file = file.pair(format!("x.scalar{ty}"), ty, &one);
        file = file.pair(format!("x.array{ty}"), 9, array(ty, 3, &one.repeat(3)));
        file = file.pair(format!("x.empty{ty}"), 9, array(ty, 0, b""));
    }
    let strings = [string("a"), string(""), string(b"\xff\xfe")].concat();
    file.pair("tokenizer.ggml.tokens", 9, array(8, 3, &strings))
        .pair("x.not_utf8", 8, string(b"\xff"))
        .tensor("a.weight", &[5, 3], 0, (0..60).collect())
        .tensor("b.weight", &[64, 2, 2], 8, vec![7; 34 * 8])
        .tensor("c.weight", &[1], 24, vec![9])
}
