//! Numbers for the values of a scan. Each attribute has a space of its own, in which values that are written the same have one number.
//! They are given in the order of first sight and shared by all threads, so that what several threads and blocks have found can be put
//! together.

use crate::bits::Bits;
use crate::block::Column;
use crate::dictionary::{Dictionary, MISSING};
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use model::{Number, Value};
use std::borrow::Cow;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The number of a missing value in every space. In tables it means: not looked up yet.
pub(crate) const NONE: u32 = 0;
/// A table has a place for every code of a dictionary unless that would be this many for each row of a block.
const PLACES_PER_ROW: usize = 32;
/// Tables up to this length are made whatever the rows.
pub(crate) const SMALL_TABLE: usize = 1 << 16;

/// Whether a table with a place for every code pays for a block of some rows.
pub(crate) fn pays(length: usize, rows: usize) -> bool {
    length <= SMALL_TABLE.max(rows.saturating_mul(PLACES_PER_ROW))
}

/// One number a row: of all rows or of some, the others staying at `NONE`.
fn numbers_of(rows: usize, some: Option<&Bits>, number: impl FnMut(usize) -> u32) -> Vec<u32> {
    let mut numbers = Vec::new();
    put_numbers(&mut numbers, rows, some, number);
    numbers
}

/// The same in a list whose memory there is already.
pub(crate) fn put_numbers(numbers: &mut Vec<u32>, rows: usize, some: Option<&Bits>, mut number: impl FnMut(usize) -> u32) {
    numbers.clear();
    match some {
        None => numbers.extend((0..rows).map(number)),
        Some(some) => {
            numbers.resize(rows, NONE);
            some.iter().for_each(|row| numbers[row] = number(row));
        }
    }
}

/// A longer table with what is in this one.
fn longer(table: &[AtomicU32], length: usize) -> Arc<[AtomicU32]> {
    let have = table.iter().map(|number| AtomicU32::new(number.load(Ordering::Relaxed)));
    have.chain((table.len()..length).map(|_| AtomicU32::new(NONE))).collect()
}

/// The values of one attribute.
#[derive(Default)]
pub(crate) struct Space(Mutex<Numbered>);

struct Numbered {
    /// Numbers below this are codes of the first dictionary.
    direct: u32,
    /// Where the value of each number from `direct` on is found.
    sources: Vec<Source>,
    dictionaries: Vec<(Arc<Dictionary>, Known)>,
    ints: HashMap<i64, u32>,
    /// Other numbers, by their bits.
    reals: HashMap<u64, u32>,
    /// Numbers from `direct` on by written form; made once values come from more than one place.
    by_text: Option<HashTable<u32>>,
    hasher: DefaultHashBuilder,
    /// The place of each number in the order of written forms, once asked for; good for as long as there are no more numbers.
    ranks: Option<Arc<[u32]>>,
    /// How many ranks were asked for while not all were known.
    ranked: usize,
}

impl Default for Numbered {
    fn default() -> Numbered {
        Numbered {
            direct: 1,
            sources: Vec::new(),
            dictionaries: Vec::new(),
            ints: HashMap::new(),
            reals: HashMap::new(),
            by_text: None,
            hasher: DefaultHashBuilder::default(),
            ranks: None,
            ranked: 0,
        }
    }
}

/// The numbers of a dictionary's codes.
enum Known {
    Table(Arc<[AtomicU32]>),
    /// The dictionary is far greater than the blocks.
    Few(HashMap<u32, u32>),
}

#[derive(Clone, Copy)]
enum Source {
    /// Which dictionary, and the code there.
    Code(u32, u32),
    Int(i64),
    Real(f64),
}

impl Space {
    fn lock(&self) -> MutexGuard<'_, Numbered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more than the greatest number given.
    pub(crate) fn length(&self) -> usize {
        self.lock().length()
    }

    /// The numbers of a column's values by row; of rows that are not among `some` they are not looked up. `None`: they are its codes.
    /// About `expected` rows will be asked for in all.
    pub(crate) fn numbers(&self, column: Option<&Column>, rows: usize, some: Option<&Bits>, expected: usize) -> Option<Vec<u32>> {
        match column {
            None => Some(vec![NONE; rows]),
            Some(Column::Codes(codes, dictionary)) => self.of_codes(codes, dictionary, some, expected),
            Some(column @ Column::Ints(values, _)) => {
                let mut numbered = self.lock();
                let mut last = (0, NONE);
                Some(numbers_of(rows, some, |row| {
                    if !column.has(row) {
                        return NONE;
                    }
                    if last.1 == NONE || last.0 != values[row] {
                        last = (values[row], numbered.of_int(values[row]));
                    }
                    last.1
                }))
            }
            Some(column @ Column::Floats(values, _)) => {
                let mut numbered = self.lock();
                Some(numbers_of(rows, some, |row| if column.has(row) { numbered.of_float(values[row]) } else { NONE }))
            }
        }
    }

    fn of_codes(&self, codes: &[u32], dictionary: &Arc<Dictionary>, some: Option<&Bits>, expected: usize) -> Option<Vec<u32>> {
        // Every code here is below it.
        let length = dictionary.length();
        let mut numbered = self.lock();
        let at = numbered.dictionary(dictionary, codes.len(), expected);
        let are_below = |direct: u32| length <= direct || direct > 1 && codes.iter().all(|code| *code < direct);
        if at == 0 && are_below(numbered.direct) {
            return None;
        }
        let Some(table) = numbered.table(at, length as usize) else {
            return Some(numbers_of(codes.len(), some, |row| numbered.of_code(at, codes[row])));
        };
        drop(numbered);
        let mut locked = None;
        Some(numbers_of(codes.len(), some, |row| match table[codes[row] as usize].load(Ordering::Relaxed) {
            NONE if codes[row] != MISSING => locked.get_or_insert_with(|| self.lock()).of_code(at, codes[row]),
            number => number,
        }))
    }

    /// How the values with some numbers are written; `None` for a missing one.
    pub(crate) fn written(&self, numbers: impl Iterator<Item = u32>) -> Vec<Option<String>> {
        let numbered = self.lock();
        numbers.map(|number| Some(numbered.written(number)?.into_owned())).collect()
    }

    /// The numbers of values by how they are written; `None` for one that has not been seen.
    pub(crate) fn find<'t>(&self, texts: impl Iterator<Item = Option<&'t str>>) -> Vec<Option<u32>> {
        let mut numbered = self.lock();
        numbered.mix();
        // Keys in order have the same first value again and again.
        let mut last: Option<(&str, Option<u32>)> = None;
        let mut find = |text| match last {
            Some((before, number)) if before == text => number,
            _ => last.insert((text, numbered.find(text))).1,
        };
        texts.map(|text| text.map_or(Some(NONE), &mut find)).collect()
    }

    /// Ranks of so many values, not all of which need be different, in the order of written forms. `numbers` lists them, where only these
    /// are put in order.
    pub(crate) fn ranks(&self, asked: usize, numbers: impl FnOnce() -> Vec<u32>) -> Ranks {
        if let Some(ranks) = self.lock().all_ranks(asked) {
            return Ranks::All(ranks);
        }
        let mut numbers = numbers();
        numbers.sort_unstable();
        numbers.dedup();
        Ranks::Some(self.lock().sorted(numbers.into_iter()).into_iter().zip(0..).collect())
    }
}

/// Ranks by number, the missing value first: of two values the one with the lesser written form has the lesser rank.
pub(crate) enum Ranks {
    All(Arc<[u32]>),
    Some(HashMap<u32, u32>),
}

impl Ranks {
    pub(crate) fn of(&self, number: u32) -> u32 {
        match self {
            Ranks::All(ranks) => ranks[number as usize],
            Ranks::Some(ranks) => ranks[&number],
        }
    }

    /// The same with the missing value last.
    pub(crate) fn of_present(&self, number: u32) -> u32 {
        if number == NONE { u32::MAX } else { self.of(number) }
    }
}

impl Numbered {
    /// One more than the greatest number given.
    fn length(&self) -> usize {
        self.direct as usize + self.sources.len()
    }

    /// The place of a dictionary among those known. Codes of the first stand for themselves where that pays.
    fn dictionary(&mut self, dictionary: &Arc<Dictionary>, rows: usize, expected: usize) -> usize {
        let length = dictionary.length();
        let at = self.dictionaries.iter().position(|(one, _)| Arc::ptr_eq(one, dictionary));
        // Those that have come since the last block too, for as long as no other value has a number.
        let may_stand = at.map_or(self.dictionaries.is_empty(), |at| at == 0) && self.sources.is_empty();
        if may_stand && length as usize <= expected && !dictionary.has_twins() {
            self.direct = self.direct.max(length);
        }
        if let Some(at) = at {
            return at;
        }
        if !may_stand {
            self.mix();
        }
        let known = if pays(length as usize, rows) { Known::Table(Arc::new([])) } else { Known::Few(HashMap::new()) };
        self.dictionaries.push((dictionary.clone(), known));
        self.dictionaries.len() - 1
    }

    /// A dictionary's table, at least so long.
    fn table(&mut self, at: usize, length: usize) -> Option<Arc<[AtomicU32]>> {
        let (_, Known::Table(table)) = &mut self.dictionaries[at] else { return None };
        if table.len() < length {
            // More values may come while the scan runs.
            *table = longer(table, length + length / 4);
        }
        Some(table.clone())
    }

    fn of_code(&mut self, at: usize, code: u32) -> u32 {
        if code == MISSING || at == 0 && code < self.direct {
            return code;
        }
        let (dictionary, known) = &self.dictionaries[at];
        let number = match known {
            Known::Table(table) => table[code as usize].load(Ordering::Relaxed),
            Known::Few(few) => few.get(&code).copied().unwrap_or(NONE),
        };
        if number != NONE {
            return number;
        }
        let same = if dictionary.has_twins() { dictionary.same(code) } else { code };
        let number = if same != code { self.of_code(at, same) } else { self.of_source(Source::Code(at as u32, code)) };
        match &mut self.dictionaries[at].1 {
            Known::Table(table) => table[code as usize].store(number, Ordering::Relaxed),
            Known::Few(few) => _ = few.insert(code, number),
        }
        number
    }

    fn of_int(&mut self, n: i64) -> u32 {
        if let Some(number) = self.ints.get(&n) {
            return *number;
        }
        let number = self.of_number(Source::Int(n));
        self.ints.insert(n, number);
        number
    }

    fn of_float(&mut self, n: f64) -> u32 {
        // Whole ones are written like whole numbers, and below 2^63 are within i64.
        if let Number::Whole(whole) = Number::from_float(n) {
            return self.of_int(whole as i64);
        }
        if let Some(number) = self.reals.get(&n.to_bits()) {
            return *number;
        }
        let number = self.of_number(Source::Real(n));
        self.reals.insert(n.to_bits(), number);
        number
    }

    /// A number that is not known as one; no two such are written the same.
    fn of_number(&mut self, source: Source) -> u32 {
        if !self.dictionaries.is_empty() {
            self.mix();
        }
        self.of_source(source)
    }

    fn of_source(&mut self, source: Source) -> u32 {
        let next = self.length() as u32;
        let Numbered { direct, sources, dictionaries, by_text, hasher, .. } = self;
        if let Some(by_text) = by_text {
            let text = written(dictionaries, source);
            if *direct > 1
                && let Some(code) = dictionaries[0].0.find(&text)
                && code < *direct
            {
                return code;
            }
            let hash = hasher.hash_one(text.as_ref());
            let of_number = |number: &u32| written(dictionaries, sources[(*number - *direct) as usize]);
            if let Some(number) = by_text.find(hash, |number| of_number(number) == text) {
                return *number;
            }
            by_text.insert_unique(hash, next, |number| hasher.hash_one(of_number(number).as_ref()));
        }
        sources.push(source);
        next
    }

    /// The number of a value that was seen; only once mixed.
    fn find(&self, text: &str) -> Option<u32> {
        if self.direct > 1
            && let Some(code) = self.dictionaries[0].0.find(text)
            && code < self.direct
        {
            return Some(code);
        }
        let of_number = |number: &u32| written(&self.dictionaries, self.sources[(*number - self.direct) as usize]);
        self.by_text.as_ref()?.find(self.hasher.hash_one(text), |number| of_number(number) == text).copied()
    }

    /// From now on values are told apart by how they are written, not by where they come from.
    fn mix(&mut self) {
        if self.by_text.is_some() {
            return;
        }
        let hash =
            |number: &u32| self.hasher.hash_one(written(&self.dictionaries, self.sources[(*number - self.direct) as usize]).as_ref());
        let mut by_text = HashTable::with_capacity(self.sources.len());
        (self.direct..self.length() as u32).for_each(|number| _ = by_text.insert_unique(hash(&number), number, hash));
        self.by_text = Some(by_text);
    }

    fn written(&self, number: u32) -> Option<Cow<'_, str>> {
        let source = match number {
            NONE => return None,
            code if code < self.direct => Source::Code(0, code),
            number => self.sources[(number - self.direct) as usize],
        };
        Some(written(&self.dictionaries, source))
    }

    /// The ranks of all values; `None` while not all were put in order, which pays once about as many as there are were asked for.
    fn all_ranks(&mut self, asked: usize) -> Option<Arc<[u32]>> {
        let length = self.length();
        if let Some(ranks) = self.ranks.as_ref().filter(|ranks| ranks.len() >= length) {
            return Some(ranks.clone());
        }
        self.ranked += asked;
        if self.ranked < length {
            return None;
        }
        let mut ranks = vec![0; length];
        self.sorted(0..length as u32).into_iter().zip(0..).for_each(|(number, rank)| ranks[number as usize] = rank);
        (self.ranks, self.ranked) = (Some(ranks.into()), 0);
        self.ranks.clone()
    }

    fn sorted(&self, numbers: impl Iterator<Item = u32>) -> Vec<u32> {
        let mut with_text: Vec<_> = numbers.map(|number| (self.written(number), number)).collect();
        with_text.sort_unstable();
        with_text.into_iter().map(|(_, number)| number).collect()
    }
}

fn written(dictionaries: &[(Arc<Dictionary>, Known)], source: Source) -> Cow<'_, str> {
    match source {
        Source::Code(at, code) => dictionaries[at as usize].0.value(code).written(),
        Source::Int(n) => Cow::Owned(n.to_string()),
        Source::Real(n) => Cow::Owned(Value::Float(n).written().into_owned()),
    }
}
