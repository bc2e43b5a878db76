//! Which rows of a block a condition lets through. What is asked of a value of a dictionary is answered once, not row by row.

use crate::bits::Bits;
use crate::block::Column;
use crate::dictionary::{Dictionary, MISSING};
use crate::space::pays;
use hashbrown::HashMap;
use model::{Condition, Number, Operator};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// What is known of a condition and the values of dictionaries; shared by all threads.
#[derive(Default)]
pub(crate) struct Verdicts(Mutex<Vec<OfDictionary>>);

/// A dictionary, and a verdict for each of its codes.
type OfDictionary = (Arc<Dictionary>, Arc<[AtomicU8]>);

/// A block with so many rows for each value of a dictionary has most of them, and judging all costs little.
const ROWS_PER_VALUE: usize = 16;

/// Verdicts by code.
const UNKNOWN: u8 = 0;
const NO: u8 = 1;
const YES: u8 = 2;

impl Verdicts {
    /// Those of some rows for which a condition holds; `None`: of all.
    pub(crate) fn among(&self, some: Option<Bits>, condition: &Condition, column: Option<&Column>, rows: usize) -> Bits {
        let Some(mut some) = some else { return self.rows(condition, column, rows) };
        match column {
            // Going through some rows takes as long as through several times as many one after the other.
            Some(Column::Codes(codes, dictionary)) if some.count() < rows as u64 / 8 => {
                let holds = |code: u32| condition.holds((code != MISSING).then(|| dictionary.value(code)));
                if pays(dictionary.length() as usize, rows) {
                    let verdicts = self.table(dictionary);
                    some.retain(|row| judged(&verdicts[codes[row] as usize], || holds(codes[row])));
                } else {
                    let mut known: HashMap<u32, bool> = HashMap::new();
                    some.retain(|row| *known.entry(codes[row]).or_insert_with(|| holds(codes[row])));
                }
            }
            column => some.and(&self.rows(condition, column, rows)),
        }
        some
    }

    /// The rows for which a condition holds.
    pub(crate) fn rows(&self, condition: &Condition, column: Option<&Column>, rows: usize) -> Bits {
        let missing = condition.holds(None);
        let Some(column) = column else { return if missing { Bits::all(rows) } else { Bits::none(rows) } };
        match column {
            Column::Codes(codes, dictionary) => self.of_codes(condition, codes, dictionary),
            Column::Ints(values, None) if let Some((within, expected)) = whole_numbers(condition) => {
                Bits::of_values(values, |value| within.contains(value) == expected)
            }
            Column::Ints(values, Some(present)) if let Some((within, expected)) = whole_numbers(condition) => {
                Bits::from_fn(rows, |row| if present.has(row) { within.contains(&values[row]) == expected } else { missing })
            }
            column => Bits::from_fn(rows, |row| column.value(row).map_or(missing, |value| condition.holds(Some(&value)))),
        }
    }

    fn of_codes(&self, condition: &Condition, codes: &[u32], dictionary: &Arc<Dictionary>) -> Bits {
        let holds = |code: u32| condition.holds((code != MISSING).then(|| dictionary.value(code)));
        // Every code here is below it, and the table is at least as long: values may come while this runs, so it is read first.
        let length = dictionary.length() as usize;
        if !pays(length, codes.len()) {
            let mut known: HashMap<u32, bool> = HashMap::new();
            return Bits::from_fn(codes.len(), |row| *known.entry(codes[row]).or_insert_with(|| holds(codes[row])));
        }
        let verdicts = self.table(dictionary);
        // Of so few values each is judged. Mostly one is asked for, or all others.
        if length <= codes.len() / ROWS_PER_VALUE {
            let (yes, no): (Vec<u32>, Vec<u32>) = (0..length as u32).partition(|code| judged(&verdicts[*code as usize], || holds(*code)));
            match (&yes[..], &no[..]) {
                ([], _) => return Bits::none(codes.len()),
                (_, []) => return Bits::all(codes.len()),
                ([only], _) => return Bits::of_values(codes, |code| code == only),
                (_, [only]) => return Bits::of_values(codes, |code| code != only),
                _ => {}
            }
        }
        let mut some_are_unknown = false;
        let passing = Bits::from_fn(codes.len(), |row| {
            let verdict = verdicts[codes[row] as usize].load(Relaxed);
            some_are_unknown |= verdict == UNKNOWN;
            verdict == YES
        });
        if !some_are_unknown {
            return passing;
        }
        Bits::from_fn(codes.len(), |row| judged(&verdicts[codes[row] as usize], || holds(codes[row])))
    }

    /// The table of a dictionary, long enough for the codes that it has given.
    fn table(&self, dictionary: &Arc<Dictionary>) -> Arc<[AtomicU8]> {
        let length = dictionary.length() as usize;
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = tables.iter().position(|(one, _)| Arc::ptr_eq(one, dictionary)).unwrap_or_else(|| {
            tables.push((dictionary.clone(), Arc::new([])));
            tables.len() - 1
        });
        let table = &mut tables[at].1;
        if table.len() < length {
            // More values may come while the scan runs.
            let have = table.iter().map(|verdict| AtomicU8::new(verdict.load(Relaxed)));
            *table = have.chain((table.len()..length + length / 4).map(|_| AtomicU8::new(UNKNOWN))).collect();
        }
        table.clone()
    }
}

/// A verdict, which is found when it is not known.
fn judged(verdict: &AtomicU8, holds: impl FnOnce() -> bool) -> bool {
    match verdict.load(Relaxed) {
        UNKNOWN => {
            let holds = holds();
            verdict.store(if holds { YES } else { NO }, Relaxed);
            holds
        }
        known => known == YES,
    }
}

/// The whole numbers of 64 bits for which a condition holds, or (`false`) for which it does not, when it compares with a number;
/// `None` when it asks how they are written.
fn whole_numbers(condition: &Condition) -> Option<(RangeInclusive<i64>, bool)> {
    let operand = condition.number()?;
    let (least, beyond) = (i128::from(i64::MIN), i128::from(i64::MAX) + 1);
    // The least number that is not less than the operand, and the least that is greater.
    let equal_from = first(least, beyond, |n| Number::Whole(n).compare(operand).is_ge());
    let greater_from = first(least, beyond, |n| Number::Whole(n).compare(operand).is_gt());
    let (within, expected) = match condition.operator {
        Operator::Equal => (equal_from..greater_from, true),
        Operator::NotEqual => (equal_from..greater_from, false),
        Operator::AtLeast => (equal_from..beyond, true),
        Operator::AtMost => (least..greater_from, true),
        Operator::GreaterThan => (greater_from..beyond, true),
        Operator::LessThan => (least..equal_from, true),
        _ => return None,
    };
    // Not empty, both ends are within 64 bits.
    // The empty range as one that ends before it begins.
    #[allow(clippy::reversed_empty_ranges)]
    let within = if within.is_empty() { 1..=0 } else { within.start as i64..=(within.end - 1) as i64 };
    Some((within, expected))
}

/// The first number in `from..to` for which the test is true, it being true of all after it; `to` when there is none.
fn first(mut from: i128, mut to: i128, is_there: impl Fn(i128) -> bool) -> i128 {
    while from < to {
        let middle = from + (to - from) / 2;
        if is_there(middle) { to = middle } else { from = middle + 1 }
    }
    from
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Value;

    #[test]
    fn few_values_or_many_the_same_rows_pass() {
        let dictionary = Arc::new(Dictionary::default());
        let codes = ["a", "b", "c"].map(|text| dictionary.intern(&Value::from(text)));
        let of_row = |row: usize| [MISSING, codes[0], codes[0], codes[1], codes[2]][row * row % 7 % 5];
        // Four codes in all: few beside 64 rows and more, many beside fewer.
        for rows in [0, 1, 63, 64, 65, 200] {
            let column = Column::Codes((0..rows).map(of_row).collect(), dictionary.clone());
            for (operator, operand) in [
                (Operator::Equal, "b"),
                (Operator::Equal, "z"),
                (Operator::NotEqual, "b"),
                (Operator::NotEqual, "z"),
                (Operator::RegularExpression, "[ac]"),
                (Operator::RegularExpression, "."),
                (Operator::IsSet, ""),
                (Operator::IsNotSet, ""),
            ] {
                let condition = Condition::new("text", operator, Value::from(operand), false).expect("legal");
                let expected = Bits::from_fn(rows, |row| condition.holds(column.value(row).as_deref()));
                let verdicts = Verdicts::default();
                assert_eq!(verdicts.rows(&condition, Some(&column), rows), expected, "{operator:?} {operand} of {rows}");
                assert_eq!(verdicts.rows(&condition, Some(&column), rows), expected, "again, as it is remembered");
            }
        }
    }

    #[test]
    fn values_may_come_while_a_condition_is_looked_up() {
        let condition = Condition::new("number", Operator::Equal, Value::Int(7), false).expect("legal");
        for _ in 0..3_000 {
            let dictionary = Arc::new(Dictionary::default());
            let seven = dictionary.intern(&Value::Int(7));
            let column = Column::Codes(vec![seven; 40_000], dictionary.clone());
            std::thread::scope(|scope| {
                let verdicts = Verdicts::default();
                let come = scope.spawn(|| (0..2_000).for_each(|n| _ = dictionary.intern(&Value::Int(n))));
                while !come.is_finished() {
                    assert_eq!(verdicts.rows(&condition, Some(&column), 40_000).count(), 40_000);
                }
            });
        }
    }
}
