//! Targets of `model`'s values: their order, their written forms, sums, conditions, derived values; ids and templates as text.

use crate::source::{PROJECT, split, text, value};
use model::query::order;
use model::sum::ExactSum;
use model::{Condition, Function, Granularity, Number, Operator, PathTemplate, ReportId, Tx, Value};
use std::cmp::Ordering;

/// Most values of one input: triples of them are compared.
const VALUES_MAX: usize = 8;

/// Floats below this hold every whole number.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Each line is a value.
pub(crate) fn values(input: &[u8]) -> String {
    let values: Vec<Value> = split(input, b'\n').take(VALUES_MAX).map(value).collect();
    check_order(&values);
    let numbers: Vec<Number> = values.iter().filter_map(Value::number).collect();
    check_sums(&numbers);
    for value in &values {
        check_written(value);
        check_derived(value, numbers.first().copied());
    }
    for (at, pair) in values.windows(2).enumerate() {
        // Patterns take long to compile.
        check_conditions(&pair[0], &pair[1], at == 0);
    }
    let kinds: String = values
        .iter()
        .map(|value| match value {
            Value::Bool(_) => 'b',
            Value::Int(_) => 'i',
            Value::UInt(_) => 'u',
            Value::Float(_) => 'f',
            Value::Text(_) if value.number().is_some() => 'n',
            Value::Text(_) => 't',
        })
        .collect();
    kinds.chars().take(4).collect()
}

/// The order is total, and numbers have one of their own.
fn check_order(values: &[Value]) {
    for a in values {
        assert_eq!(order(Some(a), Some(a)), Ordering::Equal);
        assert_eq!(order(None, Some(a)), Ordering::Less);
        for b in values {
            let ab = order(Some(a), Some(b));
            assert_eq!(ab, order(Some(b), Some(a)).reverse(), "{a:?} and {b:?}");
            if !is_vast(a) && !is_vast(b) {
                let same = a.written() == b.written() && a.number().is_some() == b.number().is_some();
                assert_eq!(ab.is_eq(), same, "{a:?} and {b:?}");
            }
            if let (Some(x), Some(y)) = (a.number(), b.number()) {
                assert_eq!(x.compare(y), y.compare(x).reverse(), "{x:?} and {y:?}");
                if x.float().abs() < EXACT && y.float().abs() < EXACT {
                    assert_eq!(Some(x.compare(y)), x.float().partial_cmp(&y.float()), "{x:?} and {y:?}");
                }
            }
            for c in values {
                if ab.is_le() && order(Some(b), Some(c)).is_le() {
                    assert!(order(Some(a), Some(c)).is_le(), "{a:?} <= {b:?} <= {c:?}");
                }
            }
        }
    }
}

/// Floats from 2^63 on are written in their shortest form, which reads as another whole number: there the written form and the number
/// may disagree about what is equal.
fn is_vast(value: &Value) -> bool {
    value.number().is_some_and(|number| number.float().abs() >= 9_223_372_036_854_775_808.0)
}

/// A sum is the same in any order, and when parts of it are added up first.
fn check_sums(numbers: &[Number]) {
    let sum = |numbers: &mut dyn Iterator<Item = &Number>| {
        let mut sum = ExactSum::default();
        numbers.for_each(|number| sum.add(*number));
        sum
    };
    let forth = sum(&mut numbers.iter());
    assert_eq!(forth.total().value(), sum(&mut numbers.iter().rev()).total().value(), "backwards: {numbers:?}");
    for at in 0..=numbers.len() {
        let mut parts = sum(&mut numbers[..at].iter());
        parts.merge(&sum(&mut numbers[at..].iter()));
        assert_eq!(parts.total().value(), forth.total().value(), "in parts at {at}: {numbers:?}");
    }
}

/// What is written reads back as the same number, and JSON as the same value.
fn check_written(value: &Value) {
    let json = serde_json::to_string(value).expect("JSON");
    assert_eq!(serde_json::from_str::<Value>(&json).expect("a value"), *value, "{json}");
    let Some(number) = value.number() else { return };
    if !matches!(value, Value::Bool(_) | Value::Text(_)) {
        let again = Number::read(&value.written()).expect("a written number");
        let same = if is_vast(value) { again.float() == number.float() } else { again.compare(number).is_eq() };
        assert!(same, "{value:?} written as {}", value.written());
    }
    assert!(number.float().is_finite(), "{value:?}");
    if !matches!(number, Number::Whole(whole) if i64::try_from(whole).is_err() && u64::try_from(whole).is_err()) {
        assert_eq!(number.value().number().map(|again| again.compare(number)), Some(Ordering::Equal), "{value:?}");
    }
}

/// A derived value is the start of the step that holds the number.
fn check_derived(value: &Value, size: Option<Number>) {
    let size = size.map_or(7, |size| size.float() as u64);
    for offset in [0, -3_600, i64::MAX, i64::MIN] {
        let Some(start) = Function::Quantize { size, offset }.apply(value) else { continue };
        let (Some(Number::Whole(start)), Some(number)) = (start.number(), value.number()) else { panic!("{start:?} of {value:?}") };
        let whole = match number {
            Number::Whole(whole) => whole,
            Number::Real(real) => real.floor() as i128,
        };
        let size = i128::from(size.max(1));
        assert!(start <= whole && whole - start < size, "{start} of {whole} by {size}");
        assert_eq!((start + i128::from(offset)).rem_euclid(size), 0, "{start} of {whole} by {size}");
    }
    let [day, month, quarter, year] = [Granularity::Day, Granularity::Month, Granularity::Quarter, Granularity::Year].map(|granularity| {
        let start = Function::Truncate(granularity).apply(value)?.number()?;
        let again = Function::Truncate(granularity).apply(&start.value()).expect("a start is a time").number().expect("a number");
        assert_eq!(again, start, "the start of {granularity:?} of {value:?}");
        Some(start.float())
    });
    if let (Some(day), Some(month), Some(quarter), Some(year)) = (day, month, quarter, year) {
        assert!(year <= quarter && quarter <= month && month <= day, "{value:?}");
    }
}

/// Operators and their opposites never agree.
fn check_conditions(value: &Value, operand: &Value, with_patterns: bool) {
    use Operator::*;
    let holds = |operator, insensitive| {
        let condition = Condition::new("a", operator, operand.clone(), insensitive).ok()?;
        condition.number();
        assert_eq!(condition.holds(None), matches!(operator, NotEqual | NotContains | InverseRegularExpression | IsNotSet));
        Some(condition.holds(Some(value)))
    };
    for insensitive in [false, true] {
        for (one, other) in [
            (Equal, NotEqual),
            (AtLeast, LessThan),
            (AtMost, GreaterThan),
            (Contains, NotContains),
            (RegularExpression, InverseRegularExpression),
            (IsSet, IsNotSet),
        ] {
            if one == RegularExpression && !with_patterns {
                continue;
            }
            let (one_holds, other_holds) = (holds(one, insensitive), holds(other, insensitive));
            assert_eq!(one_holds, other_holds.map(|holds| !holds), "{value:?} {one:?} {operand:?}");
        }
        if holds(Equal, false) == Some(true) && !is_vast(value) {
            assert_eq!((holds(AtLeast, false), holds(AtMost, false)), (Some(true), Some(true)), "{value:?} equals {operand:?}");
            assert_eq!(holds(Equal, true), Some(true), "{value:?} equals {operand:?}");
        }
    }
}

/// The whole input is an id, a receipt, an object number, a template of a path.
pub(crate) fn names(input: &[u8]) -> String {
    let text = text(input);
    let mut outcome = String::new();
    if let Some(id) = ReportId::read(&text) {
        assert_eq!(ReportId::read(&id.to_string()), Some(id));
        assert_eq!(ReportId::read(&id.to_string().replace('-', "")), Some(id));
        outcome.push_str("id ");
    }
    if let Some(tx) = Tx::read(&text, PROJECT) {
        assert_eq!(Tx::read(&tx.hex(), PROJECT), Some(tx));
        assert_eq!(Tx::read(&tx.receipt(PROJECT).to_string(), PROJECT), Some(tx));
        outcome.push_str("object ");
    }
    match PathTemplate::parse(&text) {
        Err(why) => outcome.push_str(why.split([' ', '{']).next().unwrap_or_default()),
        Ok(template) => {
            let path = template.path("p.\u{1}", "q", "s", "m");
            assert!(!path.is_empty() && path.iter().all(|node| !node.is_empty()), "{path:?}");
            assert_ne!(path, template.path("p.\u{1}", "q", "s2", "m"), "sets apart");
            assert_ne!(path, template.path("p.\u{1}", "q", "s", "m2"), "metrics apart");
            assert_eq!(String::from(template.clone()), text, "as it was given");
            outcome.push_str(&format!("template {}", path.len()));
        }
    }
    outcome
}
