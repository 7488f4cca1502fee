//! Where strings come up in a text that is made of tokens, whatever tokens they are spread over.
//!
//! The bytes of the text drive an automaton of Aho and Corasick (1975, <https://doi.org/10.1145/360825.360855>): its node is the
//! longest end of the text that begins one of the strings. What makes it fast for a whole vocabulary is an index made once: a token
//! completes a string either because it holds all of it, or because the text ends with the beginning of the string and the
//! token begins with the rest. So the tokens that complete one are found without looking at the others.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};

use crate::{Error, Result};

/// The most strings of one set.
pub const MAX_STRINGS: usize = 1024;

/// The most bytes of one string: the time to sort their endings grows with it.
pub const MAX_STRING_BYTES: usize = 256;

/// The most bytes of all strings of one set together; the automaton has a node of some 80 bytes for each.
pub const MAX_STRINGS_BYTES: usize = 64 * 1024;

/// The node of an empty beginning.
pub(super) const ROOT: u32 = 0;

/// A beginning of one or several strings.
#[derive(Default)]
struct Node {
    /// By the next byte, ascending.
    children: Vec<(u8, u32)>,
    /// The longest proper ending that is itself a beginning of a string.
    fallback: u32,
    /// Whether a string ends here: the beginning itself, or an ending of it.
    complete: bool,
    /// What is missing of the strings that begin so, as indices into `TokenStrings::starting`.
    missing: Vec<u32>,
}

/// The automaton, and what every token of a vocabulary means for it.
pub(super) struct TokenStrings {
    nodes: Vec<Node>,
    /// Tokens that hold a whole string, ascending.
    whole: Vec<u32>,
    /// For the proper endings of the strings that any token begins with: these tokens, ascending.
    starting: Vec<Vec<u32>>,
    /// The node behind a token, whatever was before it, ascending by token; tokens that lead to the root are left out.
    behind: Vec<(u32, u32)>,
    /// The bytes of tokens that lie within a string: only behind these may a beginning from before the token go on.
    within: HashMap<u32, Box<[u8]>>,
    /// Tokens without text, ascending.
    silent: Vec<u32>,
}

impl TokenStrings {
    /// The index of `strings` for tokens below `vocab` that have these `bytes`. Takes time for every token of the vocabulary, unless
    /// there are no strings. `option` is what errors call the strings.
    ///
    /// # Errors
    /// [`Error::Argument`] for an empty string, and beyond the limits above.
    pub(super) fn new<'t>(
        option: &str,
        strings: &[String],
        vocab: usize,
        bytes: impl Fn(u32) -> Result<Cow<'t, [u8]>>,
    ) -> Result<TokenStrings> {
        check(option, strings)?;
        let mut strings: Vec<&[u8]> = strings.iter().map(String::as_bytes).collect();
        strings.sort_unstable();
        strings.dedup();
        let mut index = TokenStrings {
            nodes: automaton(&strings),
            whole: Vec::new(),
            starting: Vec::new(),
            behind: Vec::new(),
            within: HashMap::new(),
            silent: Vec::new(),
        };
        if strings.is_empty() {
            return Ok(index);
        }
        let mut endings: Vec<&[u8]> = strings.iter().flat_map(|s| (0..s.len()).map(|at| &s[at..])).collect();
        endings.sort_unstable();
        endings.dedup();
        let mut starting = vec![Vec::new(); endings.len()];
        for token in 0..vocab as u32 {
            index.add(token, &bytes(token)?, &endings, &mut starting);
        }
        index.link(&strings, &endings, starting);
        Ok(index)
    }

    /// Notes what `token` means. `endings` are sorted and distinct; `starting` gets the token where it begins with one.
    fn add(&mut self, token: u32, bytes: &[u8], endings: &[&[u8]], starting: &mut [Vec<u32>]) {
        if bytes.is_empty() {
            self.silent.push(token);
            return;
        }
        let (mut node, mut whole) = (ROOT, false);
        for &byte in bytes {
            node = self.step(node, byte);
            whole |= self.nodes[node as usize].complete;
        }
        if whole {
            self.whole.push(token);
        }
        if node != ROOT {
            self.behind.push((token, node));
        }
        // The endings that begin with the first bytes of the token, a range that narrows byte by byte; the ending that has no more
        // than these bytes is the first of it.
        let mut range = endings;
        let mut first = 0;
        for (at, &byte) in bytes.iter().enumerate() {
            let before = range.partition_point(|e| e.get(at).is_none_or(|&b| b < byte));
            range = &range[before..];
            range = &range[..range.partition_point(|e| e[at] == byte)];
            first += before;
            let Some(shortest) = range.first() else { return };
            if shortest.len() == at + 1 {
                starting[first].push(token);
            }
        }
        self.within.insert(token, bytes.into());
    }

    /// Tells every node what is missing behind it.
    fn link(&mut self, strings: &[&[u8]], endings: &[&[u8]], mut starting: Vec<Vec<u32>>) {
        let mut place = vec![None; endings.len()];
        for string in strings {
            let mut node = ROOT;
            for at in 1..string.len() {
                node = self.step(node, string[at - 1]);
                let Ok(ending) = endings.binary_search(&&string[at..]) else { continue };
                let place = match place[ending] {
                    Some(place) => place,
                    // No token begins so.
                    None if starting[ending].is_empty() => continue,
                    None => {
                        let new = self.starting.len() as u32;
                        self.starting.push(std::mem::take(&mut starting[ending]));
                        place[ending] = Some(new);
                        new
                    }
                };
                self.nodes[node as usize].missing.push(place);
            }
        }
    }

    /// The node after one more byte.
    fn step(&self, mut node: u32, byte: u8) -> u32 {
        loop {
            let children = &self.nodes[node as usize].children;
            if let Ok(at) = children.binary_search_by_key(&byte, |child| child.0) {
                return children[at].1;
            }
            if node == ROOT {
                return ROOT;
            }
            node = self.nodes[node as usize].fallback;
        }
    }

    /// The tokens that begin with something that is missing at `node`, in lists.
    fn completing(&self, node: u32) -> impl Iterator<Item = &[u32]> {
        let ends = std::iter::successors(Some(node), |&node| Some(self.nodes[node as usize].fallback));
        let missing = ends.take_while(|&node| node != ROOT).flat_map(|node| &self.nodes[node as usize].missing);
        missing.map(|&ending| self.starting[ending as usize].as_slice())
    }

    /// Calls `f` with every token that completes a string at `node`; with some of them several times.
    pub(super) fn each_completing(&self, node: u32, mut f: impl FnMut(u32)) {
        self.whole.iter().copied().for_each(&mut f);
        self.completing(node).flatten().copied().for_each(f);
    }

    /// Whether `token` completes a string at `node`.
    pub(super) fn completes(&self, node: u32, token: u32) -> bool {
        self.holds(token) || self.completing(node).any(|tokens| tokens.binary_search(&token).is_ok())
    }

    /// Whether `token` holds a whole string.
    pub(super) fn holds(&self, token: u32) -> bool {
        self.whole.binary_search(&token).is_ok()
    }

    /// The node behind `token`. Tokens outside the vocabulary have no text.
    pub(super) fn next(&self, node: u32, token: u32) -> u32 {
        if self.silent.binary_search(&token).is_ok() {
            return node;
        }
        if node != ROOT
            && let Some(bytes) = self.within.get(&token)
        {
            return bytes.iter().fold(node, |node, &byte| self.step(node, byte));
        }
        self.behind.binary_search_by_key(&token, |entry| entry.0).map_or(ROOT, |at| self.behind[at].1)
    }
}

/// The limits of a set of strings; `option` is what they are called.
pub(super) fn check(option: &str, strings: &[String]) -> Result<()> {
    let error = |message: String| Err(Error::Argument(format!("{option}{message}")));
    if strings.len() > MAX_STRINGS {
        return error(format!(" must have at most {MAX_STRINGS} strings, got {}", strings.len()));
    }
    for (at, string) in strings.iter().enumerate() {
        if string.is_empty() {
            return error(format!("[{at}] is empty; leave it out or give it text"));
        }
        if string.len() > MAX_STRING_BYTES {
            return error(format!("[{at}] must have at most {MAX_STRING_BYTES} bytes, got {}", string.len()));
        }
    }
    match strings.iter().map(String::len).sum::<usize>() {
        total if total > MAX_STRINGS_BYTES => {
            error(format!(" must have at most {MAX_STRINGS_BYTES} bytes together, got {total}"))
        }
        _ => Ok(()),
    }
}

/// The nodes of all beginnings.
fn automaton(strings: &[&[u8]]) -> Vec<Node> {
    let mut nodes = vec![Node::default()];
    for string in strings {
        let mut node = ROOT as usize;
        for &byte in *string {
            let new = nodes.len() as u32;
            node = match nodes[node].children.binary_search_by_key(&byte, |child| child.0) {
                Ok(at) => nodes[node].children[at].1 as usize,
                Err(at) => {
                    nodes[node].children.insert(at, (byte, new));
                    nodes.push(Node::default());
                    new as usize
                }
            };
        }
        nodes[node].complete = true;
    }
    // Nearest to the root first: a fallback is nearer than its node.
    let mut queue = VecDeque::from([ROOT]);
    while let Some(node) = queue.pop_front() {
        for (byte, child) in nodes[node as usize].children.clone() {
            let mut fallback = node;
            let found = loop {
                if fallback == ROOT {
                    break ROOT;
                }
                fallback = nodes[fallback as usize].fallback;
                let children = &nodes[fallback as usize].children;
                if let Ok(at) = children.binary_search_by_key(&byte, |child| child.0) {
                    break children[at].1;
                }
            };
            nodes[child as usize].fallback = found;
            nodes[child as usize].complete |= nodes[found as usize].complete;
            queue.push_back(child);
        }
    }
    nodes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn index(strings: &[String], tokens: &[Vec<u8>]) -> TokenStrings {
        let bytes = |token: u32| Ok(Cow::Borrowed(tokens[token as usize].as_slice()));
        TokenStrings::new("strings", strings, tokens.len(), bytes).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// By definition: a token completes a string when one ends within it.
        #[test]
        fn finds_what_a_search_of_the_text_finds(
            tokens in prop::collection::vec("[abé]{0,5}", 1..40),
            strings in prop::collection::vec("[abé]{1,6}", 0..5),
            text in prop::collection::vec(0usize..1000, 0..25),
        ) {
            // Tokens may end within a character.
            let tokens: Vec<Vec<u8>> = tokens.iter().enumerate()
                .map(|(at, t)| if at % 3 == 0 { t.as_bytes()[t.len() / 2..].to_vec() } else { t.as_bytes().to_vec() }).collect();
            let index = index(&strings, &tokens);
            let (mut node, mut seen) = (ROOT, Vec::new());
            for token in text {
                let token = token % tokens.len();
                let mut listed: Vec<u32> = Vec::new();
                index.each_completing(node, |t| listed.push(t));
                for (t, bytes) in tokens.iter().enumerate() {
                    let text = [&seen, bytes.as_slice()].concat();
                    let found = (seen.len() + 1..=text.len())
                        .any(|end| strings.iter().any(|s| text[..end].ends_with(s.as_bytes())));
                    prop_assert_eq!(index.completes(node, t as u32), found);
                    prop_assert_eq!(listed.contains(&(t as u32)), found);
                    prop_assert_eq!(index.holds(t as u32), strings.iter().any(|s| bytes.windows(s.len()).any(|w| w == s.as_bytes())));
                }
                node = index.next(node, token as u32);
                seen.extend_from_slice(&tokens[token]);
            }
        }
    }

    #[test]
    fn limits_are_named() {
        let check = |strings: &[String]| check("ban", strings).unwrap_err().to_string();
        assert!(check(&["a".into(), String::new()]).contains("ban[1] is empty"));
        assert!(check(&vec!["a".into(); MAX_STRINGS + 1]).contains("at most 1024 strings, got 1025"));
        assert!(check(&["é".repeat(129)]).contains("at most 256 bytes, got 258"));
        assert!(check(&vec!["a".repeat(256); 257]).contains("at most 65536 bytes together, got 65792"));
    }

    /// Strings that share all their beginnings and endings are the worst case of the sort, of the nodes and of their lists.
    #[test]
    fn the_largest_sets_are_built() {
        let strings: Vec<String> = (0..256).map(|n| "a".repeat(n + 1)).collect();
        let tokens: Vec<Vec<u8>> = (0..300).map(|n| b"a".repeat(n)).collect();
        let index = index(&strings, &tokens);
        let mut count = 0;
        index.each_completing(ROOT, |_| count += 1);
        assert_eq!(count, 299, "all but the empty one");
    }
}
