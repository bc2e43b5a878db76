//! The distinct values of one attribute, each with a code. Values are never moved or removed, so readers need no lock.

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use model::Value;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

/// The code of a missing value.
pub const MISSING: u32 = 0;
/// Entries of the first chunk, as a power of two; each later chunk has twice as many as the one before it.
const FIRST_CHUNK_BITS: u32 = 6;
/// Enough for all codes but the greatest few.
const CHUNKS: usize = 32 - FIRST_CHUNK_BITS as usize;
/// What an entry costs beside its text: itself, its place in the index, what the allocator adds.
const ENTRY_BYTES: usize = 72;
/// Parts of the index, each under a lock of its own, so that threads that read files seldom wait for each other.
const SHARDS: usize = 16;
/// Texts that are looked for at one time.
const AHEAD: usize = 32;
/// Texts that are sorted by shard at one time, so that what this takes stays in the cache.
const BATCH: usize = 4_096;

/// Distinct values as they were sent: text "5" and the number 5 have codes of their own, and know that they are written the same.
pub struct Dictionary {
    chunks: [OnceLock<Box<[OnceLock<Word>]>>; CHUNKS],
    /// A value is in the shard that the hash of its written form says: so are all that are written the same.
    shards: [Mutex<Shard>; SHARDS],
    /// Held while a code is given, so that all codes below `length` have their values.
    giving: Mutex<()>,
    hasher: DefaultHashBuilder,
    length: AtomicU32,
    bytes: AtomicUsize,
    has_twins: AtomicBool,
}

/// Codes by how their values are written, each with half of the hash: that tells most others apart without a look at the value, and
/// lets the table grow without one.
type Shard = HashTable<(u32, u32)>;

/// A value, and the first code whose value is written the same.
struct Word {
    value: Value,
    same: u32,
}

impl Default for Dictionary {
    fn default() -> Dictionary {
        Dictionary {
            chunks: [const { OnceLock::new() }; CHUNKS],
            shards: Default::default(),
            giving: Mutex::default(),
            hasher: DefaultHashBuilder::default(),
            length: AtomicU32::new(1),
            bytes: AtomicUsize::new(0),
            has_twins: AtomicBool::new(false),
        }
    }
}

impl Dictionary {
    /// The code of a value, which is added when it is new.
    ///
    /// # Panics
    /// When there are 2^32 values: memory is bounded far below that.
    pub fn intern(&self, value: &Value) -> u32 {
        let written = value.written();
        let hash = self.hash(&written);
        self.code(&mut self.shard(hash), half(hash), &written, value)
    }

    /// The codes of many values.
    pub fn intern_all<'v>(&self, values: impl Iterator<Item = &'v Value>) -> Vec<u32> {
        values.map(|value| self.intern(value)).collect()
    }

    /// The codes of many texts, shard by shard: one lock for many of them, and none waits in memory for the one before it.
    pub fn intern_texts(&self, texts: &[&str]) -> Vec<u32> {
        let mut codes = vec![MISSING; texts.len()];
        texts.chunks(BATCH).zip(codes.chunks_mut(BATCH)).for_each(|(texts, codes)| self.intern_batch(texts, codes));
        codes
    }

    fn intern_batch(&self, texts: &[&str], codes: &mut [u32]) {
        let hashes: Vec<u64> = texts.iter().map(|text| self.hash(text)).collect();
        let mut ends = [0; SHARDS];
        hashes.iter().for_each(|hash| ends[shard_of(*hash)] += 1);
        let mut end = 0;
        for of_shard in &mut ends {
            end += *of_shard;
            *of_shard = end;
        }
        // Filled from the back, after which an end is where its shard begins.
        let mut by_shard = vec![0u32; texts.len()];
        for (at, hash) in hashes.iter().enumerate().rev() {
            let place = &mut ends[shard_of(*hash)];
            *place -= 1;
            by_shard[*place] = at as u32;
        }
        let starts = ends;
        let ends = starts[1..].iter().copied().chain([texts.len()]);
        for ((start, end), shard) in starts.iter().zip(ends).zip(&self.shards) {
            if *start == end {
                continue;
            }
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for places in by_shard[*start..end].chunks(AHEAD) {
                // All that waits for memory at once: first who they seem to be, then what these are.
                let mut seem = [MISSING; AHEAD];
                for (seem, &at) in seem.iter_mut().zip(places) {
                    let half = half(hashes[at as usize]);
                    *seem = shard.find(spread(half), |(have, _)| *have == half).map_or(MISSING, |(_, code)| *code);
                }
                let found = seem.map(|code| (code != MISSING).then(|| self.value(code)));
                for ((&at, seem), found) in places.iter().zip(seem).zip(found) {
                    let text = texts[at as usize];
                    codes[at as usize] = match found {
                        Some(Value::Text(found)) if found == text => seem,
                        _ => self.code_of_text(&mut shard, half(hashes[at as usize]), text),
                    };
                }
            }
        }
    }

    fn code_of_text(&self, shard: &mut Shard, half: u32, text: &str) -> u32 {
        let is_it = |(have, code): &(u32, u32)| *have == half && matches!(self.value(*code), Value::Text(found) if found == text);
        match shard.find(spread(half), is_it) {
            Some((_, code)) => *code,
            None => self.give(shard, half, text, Value::Text(text.to_owned())),
        }
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        self.shards[shard_of(hash)].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn code(&self, shard: &mut Shard, half: u32, written: &str, value: &Value) -> u32 {
        let is_it = |(have, code): &(u32, u32)| *have == half && is_identical(self.value(*code), value);
        match shard.find(spread(half), is_it) {
            Some((_, code)) => *code,
            None => self.give(shard, half, written, value.clone()),
        }
    }

    /// Gives a code to a value that has none.
    fn give(&self, shard: &mut Shard, half: u32, written: &str, value: Value) -> u32 {
        let first = self.first(shard, half, written);
        let text = if let Value::Text(text) = &value { text.len() } else { 0 };
        let giving = self.giving.lock().unwrap_or_else(PoisonError::into_inner);
        let code = self.length.load(Ordering::Relaxed);
        let same = first.unwrap_or(code);
        let (chunk, place) = place(code);
        let chunk = self.chunks[chunk].get_or_init(|| (0..chunk_length(chunk)).map(|_| OnceLock::new()).collect());
        let is_new = chunk[place].set(Word { value, same }).is_ok();
        assert!(is_new, "a code is given once");
        if same != code {
            self.has_twins.store(true, Ordering::Release);
        }
        self.bytes.fetch_add(ENTRY_BYTES + text, Ordering::Relaxed);
        self.length.store(code.checked_add(1).expect("far fewer than 2^32 values"), Ordering::Release);
        drop(giving);
        shard.insert_unique(spread(half), (half, code), |(half, _)| spread(*half));
        code
    }

    fn hash(&self, written: &str) -> u64 {
        self.hasher.hash_one(written)
    }

    fn first(&self, shard: &Shard, half: u32, written: &str) -> Option<u32> {
        let is_it = |(have, code): &(u32, u32)| *have == half && self.value(*code).written() == written;
        shard.find(spread(half), is_it).map(|(_, code)| self.same(*code))
    }

    /// The value of a code that this dictionary has given.
    ///
    /// # Panics
    /// For any other code, also for that of a missing value.
    pub fn value(&self, code: u32) -> &Value {
        &self.word(code).value
    }

    /// Whether a code, which may be that of a missing value, is this value's.
    pub fn is(&self, code: u32, value: &Value) -> bool {
        code != MISSING && is_identical(self.value(code), value)
    }

    /// The first code whose value is written the same.
    pub fn same(&self, code: u32) -> u32 {
        self.word(code).same
    }

    /// Whether some values are written the same.
    pub fn has_twins(&self) -> bool {
        self.has_twins.load(Ordering::Acquire)
    }

    /// The first code with a written form.
    pub fn find(&self, written: &str) -> Option<u32> {
        let hash = self.hash(written);
        self.first(&self.shard(hash), half(hash), written)
    }

    /// One more than the greatest code.
    pub fn length(&self) -> u32 {
        self.length.load(Ordering::Acquire)
    }

    /// Bytes it takes, roughly.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn word(&self, code: u32) -> &Word {
        let (chunk, place) = place(code);
        self.chunks[chunk].get().and_then(|chunk| chunk[place].get()).expect("a code that was given")
    }
}

/// Whether two values are the same as they were sent: unlike `==`, 0.0 is not -0.0.
fn is_identical(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
        (a, b) => a == b,
    }
}

fn shard_of(hash: u64) -> usize {
    hash as usize % SHARDS
}

fn half(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// A hash for the table, which takes its places from the low bits and tells entries apart by the highest ones.
fn spread(half: u32) -> u64 {
    u64::from(half) << 32 | u64::from(half)
}

/// Chunk of a code, and its place there.
fn place(code: u32) -> (usize, usize) {
    let shifted = u64::from(code) + (1 << FIRST_CHUNK_BITS);
    let chunk = shifted.ilog2() - FIRST_CHUNK_BITS;
    (chunk as usize, (shifted - (1 << (chunk + FIRST_CHUNK_BITS))) as usize)
}

fn chunk_length(chunk: usize) -> usize {
    1 << (chunk as u32 + FIRST_CHUNK_BITS)
}

/// The dictionaries of one project, by attribute.
#[derive(Default)]
pub struct Dictionaries(RwLock<HashMap<String, Arc<Dictionary>>>);

impl Dictionaries {
    /// An attribute's dictionary.
    pub fn of(&self, attribute: &str) -> Arc<Dictionary> {
        if let Some(dictionary) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(attribute) {
            return dictionary.clone();
        }
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.entry(attribute.to_owned()).or_default().clone()
    }

    /// Bytes they take, roughly.
    pub fn bytes(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().map(|dictionary| dictionary.bytes()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_given_once_and_twins_know_each_other() {
        let dictionary = Dictionary::default();
        let values = [Value::from("5"), Value::Int(5), Value::Float(5.0), Value::from("x"), Value::Bool(true), Value::from("true")];
        let codes: Vec<u32> = values.iter().map(|value| dictionary.intern(value)).collect();
        assert_eq!(codes, [1, 2, 3, 4, 5, 6]);
        assert_eq!(dictionary.intern_all(values.iter()), codes);
        assert_eq!(dictionary.intern_texts(&["x", "true", "new", "5", "new"]), [4, 6, 7, 1, 7]);
        assert_eq!(dictionary.same(7), 7);
        assert_eq!(codes.iter().map(|code| dictionary.same(*code)).collect::<Vec<_>>(), [1, 1, 1, 4, 5, 5]);
        assert!(codes.iter().zip(&values).all(|(code, value)| dictionary.value(*code) == value));
        assert_eq!((dictionary.find("5"), dictionary.find("true"), dictionary.find("y")), (Some(1), Some(5), None));
        assert!(dictionary.has_twins());
        // Equal as numbers, written the same, and yet not the same as they were sent.
        let zeros = dictionary.intern_all([Value::Float(0.0), Value::Float(-0.0), Value::Int(0)].iter());
        assert_eq!((zeros, dictionary.same(10)), (vec![8, 9, 10], 8));
        assert!(dictionary.is(8, &Value::Float(0.0)) && !dictionary.is(8, &Value::Float(-0.0)) && !dictionary.is(8, &Value::Int(0)));
        assert!(!dictionary.is(MISSING, &Value::from("x")));
        assert!(matches!(dictionary.value(9), Value::Float(zero) if zero.is_sign_negative()));
        assert!(matches!(dictionary.value(8), Value::Float(zero) if zero.is_sign_positive()));
    }

    #[test]
    fn many_values_keep_their_codes() {
        let dictionary = Dictionary::default();
        for n in 0..100_000u64 {
            assert_eq!(u64::from(dictionary.intern(&Value::from(n * 7))), n + 1);
        }
        assert!(!dictionary.has_twins());
        assert!((0..100_000u64).all(|n| dictionary.find(&(n * 7).to_string()) == Some(n as u32 + 1)));
        assert_eq!(place(0), (0, 0));
        assert_eq!(place(u32::MAX).0, CHUNKS);
    }
}
