//! What the columns of a file are called and what they hold: ours first, then those of the attributes.
//!
//! An attribute keeps what was sent, so it has a column for each type that came: one goes by the attribute's own name, the others
//! by the name and a suffix, `age` and `age|text`, and a report has a value in at most one of them. An attribute whose own name
//! could be taken for something else always has the suffix.

use super::damaged;
use ::parquet::basic::{LogicalType, Repetition, TimeUnit, Type as Physical};
use ::parquet::errors::Result as ParquetResult;
use ::parquet::schema::types::{ColumnDescPtr, SchemaDescPtr, SchemaDescriptor, Type, TypePtr};
use model::Value;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// The report's number.
pub(super) const TX: usize = 0;
/// Its stamp.
pub(super) const STAMP: usize = 1;
/// The client's id.
pub(super) const UUID: usize = 2;
/// Files: a JSON list.
pub(super) const ATTACHMENTS: usize = 3;
/// Attributes without a column of their own: a JSON object.
pub(super) const MORE: usize = 4;
/// The body as it was sent.
pub(super) const RAW: usize = 5;
/// The body without what other columns have, where it can be told from these; it has no `RAW` then. Not in files of the first form.
pub(super) const OUTLINE: usize = 6;
/// Names of our own columns, in the order of their places above.
pub(super) const OURS: [&str; 7] = ["_tx", "_stamp", "_uuid", "_attachments", "_more", "_raw", "_outline"];

/// The type of the values in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    Text,
    Int,
    UInt,
    Float,
    Bool,
}

impl Kind {
    /// In the order of their numbers.
    pub(super) const ALL: [Kind; 5] = [Kind::Text, Kind::Int, Kind::UInt, Kind::Float, Kind::Bool];

    pub(super) fn of(value: &Value) -> Kind {
        match value {
            Value::Text(_) => Kind::Text,
            Value::Int(_) => Kind::Int,
            Value::UInt(_) => Kind::UInt,
            Value::Float(_) => Kind::Float,
            Value::Bool(_) => Kind::Bool,
        }
    }

    pub(super) fn suffix(self) -> &'static str {
        match self {
            Kind::Text => "|text",
            Kind::Int => "|int",
            Kind::UInt => "|uint",
            Kind::Float => "|float",
            Kind::Bool => "|bool",
        }
    }

    fn parquet(self) -> (Physical, Option<LogicalType>) {
        match self {
            Kind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
            Kind::Int => (Physical::INT64, None),
            Kind::UInt => (Physical::INT64, Some(LogicalType::integer(64, false))),
            Kind::Float => (Physical::DOUBLE, None),
            Kind::Bool => (Physical::BOOLEAN, None),
        }
    }
}

/// What one column holds: the values of one type of an attribute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Part {
    pub(super) attribute: String,
    pub(super) kind: Kind,
}

/// What the columns of these parts are called. The count of each says how many values it has: text goes by the attribute's own
/// name, else the type with most values.
pub(super) fn names(parts: &BTreeMap<Part, u64>) -> BTreeMap<&Part, String> {
    let mut plain: BTreeMap<&str, (&Part, u64)> = BTreeMap::new();
    for (part, &count) in parts {
        let best = plain.entry(&part.attribute).or_insert((part, count));
        if best.0.kind != Kind::Text && count > best.1 {
            *best = (part, count);
        }
    }
    let name = |part: &Part| {
        let is_plain = plain[part.attribute.as_str()].0 == part && is_plain(&part.attribute);
        if is_plain { part.attribute.clone() } else { format!("{}{}", part.attribute, part.kind.suffix()) }
    };
    parts.keys().map(|part| (part, name(part))).collect()
}

/// Whether an attribute's name can be a column's without being taken for another's.
fn is_plain(attribute: &str) -> bool {
    // Most query engines do not tell upper from lower case.
    let is_ours = OURS.iter().any(|name| name.eq_ignore_ascii_case(attribute));
    !attribute.is_empty() && !is_ours && Kind::ALL.iter().all(|kind| !attribute.ends_with(kind.suffix()))
}

/// The schema with our columns and one for each of these.
pub(super) fn schema<'a>(columns: impl Iterator<Item = (&'a str, Kind)>) -> ParquetResult<SchemaDescPtr> {
    let text = || (Physical::BYTE_ARRAY, Some(LogicalType::String));
    let ours: [(Physical, Option<LogicalType>, Repetition); OURS.len()] = std::array::from_fn(|place| {
        let (physical, logical) = match place {
            TX => (Physical::INT64, Some(LogicalType::integer(64, false))),
            STAMP => (Physical::INT64, Some(LogicalType::timestamp(true, TimeUnit::MICROS))),
            UUID => (Physical::FIXED_LEN_BYTE_ARRAY, Some(LogicalType::Uuid)),
            ATTACHMENTS | MORE | OUTLINE => text(),
            _ => (Physical::BYTE_ARRAY, None),
        };
        let repetition = if matches!(place, TX | STAMP) { Repetition::REQUIRED } else { Repetition::OPTIONAL };
        (physical, logical, repetition)
    });
    let ours = OURS.iter().zip(ours).map(|(name, (physical, logical, repetition))| field(name, physical, logical, repetition));
    let attributes = columns.map(|(name, kind)| {
        let (physical, logical) = kind.parquet();
        field(name, physical, logical, Repetition::OPTIONAL)
    });
    let fields = ours.chain(attributes).collect::<ParquetResult<Vec<TypePtr>>>()?;
    let root = Type::group_type_builder("reports").with_fields(fields).build()?;
    Ok(Arc::new(SchemaDescriptor::new(Arc::new(root))))
}

fn field(name: &str, physical: Physical, logical: Option<LogicalType>, repetition: Repetition) -> ParquetResult<TypePtr> {
    let length = if physical == Physical::FIXED_LEN_BYTE_ARRAY { 16 } else { -1 };
    let field = Type::primitive_type_builder(name, physical).with_logical_type(logical).with_repetition(repetition).with_length(length);
    Ok(Arc::new(field.build()?))
}

/// What each column of an attribute holds, with its place in the file.
pub(super) fn parts(schema: &SchemaDescriptor, has_outlines: bool) -> io::Result<Vec<(usize, Part)>> {
    let (columns, ours) = (schema.columns(), if has_outlines { &OURS[..] } else { &OURS[..OUTLINE] });
    if columns.len() < ours.len() || ours.iter().zip(columns).any(|(name, column)| column.name() != *name) {
        return Err(damaged("it does not have our columns"));
    }
    let read = |(place, column): (usize, &ColumnDescPtr)| Ok((place, part(column)?));
    columns.iter().enumerate().skip(ours.len()).map(read).collect()
}

fn part(column: &ColumnDescPtr) -> io::Result<Part> {
    let parquet = (column.physical_type(), column.logical_type_ref().cloned());
    let kind = Kind::ALL.into_iter().find(|kind| kind.parquet() == parquet).ok_or_else(|| damaged("a column is of no known type"))?;
    let suffixed = Kind::ALL.into_iter().find_map(|kind| Some((column.name().strip_suffix(kind.suffix())?, kind)));
    match suffixed {
        Some((attribute, said)) if said == kind => Ok(Part { attribute: attribute.to_owned(), kind }),
        Some(_) => Err(damaged("a column is not of the type that its name says")),
        None => Ok(Part { attribute: column.name().to_owned(), kind }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn columns(parts: &[(&str, Kind, u64)]) -> Vec<String> {
        let parts: BTreeMap<Part, u64> =
            parts.iter().map(|&(attribute, kind, count)| (Part { attribute: attribute.to_owned(), kind }, count)).collect();
        names(&parts).into_values().collect()
    }

    #[test]
    fn an_attribute_of_one_type_has_one_column_of_its_own_name() {
        assert_eq!(columns(&[("age", Kind::Int, 1), ("name", Kind::Text, 9)]), ["age", "name"]);
    }

    #[test]
    fn of_several_types_text_or_the_most_frequent_has_the_name() {
        assert_eq!(columns(&[("a", Kind::Text, 1), ("a", Kind::Int, 9)]), ["a", "a|int"]);
        assert_eq!(columns(&[("a", Kind::Int, 1), ("a", Kind::UInt, 2), ("a", Kind::Bool, 2)]), ["a|int", "a", "a|bool"]);
    }

    #[test]
    fn names_that_look_like_ours_or_suffixed_are_kept_apart_and_found_again() {
        let parts: BTreeMap<Part, u64> = ["", "_tx", "_RAW", "_more", "a", "a|int", "a|int|int", "|text", "a|", "int", "a|text"]
            .iter()
            .flat_map(|name| Kind::ALL.map(|kind| (Part { attribute: (*name).to_owned(), kind }, 1)))
            .collect();
        let names = names(&parts);
        let distinct: BTreeSet<&String> = names.values().collect();
        assert_eq!(distinct.len(), parts.len());
        assert!(names.values().all(|name| !OURS.iter().any(|ours| ours.eq_ignore_ascii_case(name))));
        let schema = schema(names.iter().map(|(part, name)| (name.as_str(), part.kind))).expect("a legal schema");
        let found: Vec<Part> = super::parts(&schema, true).expect("ours").into_iter().map(|(_, part)| part).collect();
        assert_eq!(found, parts.into_keys().collect::<Vec<_>>());
    }
}
