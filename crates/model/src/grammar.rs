//! The Backtrace query grammar without time: `{"filter": [...], "group": [...], "fold": {...}}` -> `Query`.
//!
//! Not the whole of `POST /api/query`: what selects, orders or pages is not part of a saved query.

use crate::aggregate::{Aggregate, AggregateOp};
use crate::problem::Problem;
use crate::query::{Condition, Operator, Query};
use crate::value::Value;
use serde_json::{Map, Value as Json, json};

/// Most conditions in one filter, attributes in one group-by, aggregates in one fold.
pub const MAX_CONDITIONS: usize = 100;
/// Most group-by attributes.
pub const MAX_GROUPS: usize = 8;
/// Most aggregates.
pub const MAX_AGGREGATES: usize = 32;
/// Longest attribute name and operand, in bytes.
pub const MAX_TEXT: usize = 32 * 1024;

/// A query and what the reader did that its writer may not expect.
#[derive(Debug)]
pub struct Parsed {
    /// The checked query.
    pub query: Query,
    /// Sentences for people, such as that a time filter was left out.
    pub warnings: Vec<String>,
}

/// Reads a query; on failure names every fault found. Conditions on `timestamp` are dropped with a warning, because a
/// saved query holds no time.
pub fn parse(json: &Json) -> Result<Parsed, Vec<Problem>> {
    let Some(object) = json.as_object() else {
        return Err(vec![Problem::new("query", "must be an object with filter, group and fold")]);
    };
    let mut reader = Reader::default();
    for key in object.keys() {
        if !matches!(key.as_str(), "filter" | "group" | "fold" | "virtual_columns") {
            reader.problem(format!("query.{key}"), "is not part of a metric's query; use filter, group and fold");
        }
    }
    if object.get("virtual_columns").is_some_and(|list| list.as_array().is_none_or(|list| !list.is_empty())) {
        reader.problem("query.virtual_columns", "cannot be used in a metric; group by the attribute itself");
    }
    let filter = reader.filter(object.get("filter"));
    let group = reader.group(object.get("group"));
    let aggregates = reader.fold(object.get("fold"));
    if reader.problems.is_empty() {
        Ok(Parsed { query: Query { filter, group, aggregates, derived: Vec::new() }, warnings: reader.warnings })
    } else {
        Err(reader.problems)
    }
}

/// Writes a query in the same grammar; `parse` reads it back as the same query.
pub fn write(query: &Query) -> Json {
    let filter: Vec<Json> = query
        .filter
        .iter()
        .map(|all| {
            let mut object = Map::new();
            for condition in all {
                let mut term = vec![json!(condition.operator)];
                if !matches!(condition.operator, Operator::IsSet | Operator::IsNotSet) {
                    term.push(json!(condition.operand));
                }
                if condition.case_insensitive {
                    term.push(json!({"case_insensitive": true}));
                }
                let terms = object.entry(condition.attribute.as_str()).or_insert_with(|| json!([]));
                terms.as_array_mut().expect("made as a list").push(Json::Array(term));
            }
            Json::Object(object)
        })
        .collect();
    let mut fold = Map::new();
    for aggregate in &query.aggregates {
        let list = fold.entry(aggregate.attribute.as_str()).or_insert_with(|| json!([]));
        list.as_array_mut().expect("made as a list").push(json!([aggregate.op]));
    }
    json!({"filter": filter, "group": query.group, "fold": fold})
}

#[derive(Default)]
struct Reader {
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl Reader {
    fn problem(&mut self, field: impl Into<String>, detail: impl Into<String>) {
        self.problems.push(Problem::new(field, detail));
    }

    fn filter(&mut self, filter: Option<&Json>) -> Vec<Vec<Condition>> {
        let alternatives = match filter {
            None | Some(Json::Null) => return Vec::new(),
            Some(Json::Array(list)) => list,
            Some(_) => {
                self.problem("query.filter", "must be a list of objects, such as [{\"application\": [[\"equal\", \"shooter\"]]}]");
                return Vec::new();
            }
        };
        let mut filter = Vec::new();
        let mut conditions = 0;
        for (at, alternative) in alternatives.iter().enumerate() {
            let field = format!("query.filter[{at}]");
            let Some(alternative) = alternative.as_object() else {
                self.problem(field, "must be an object of attributes");
                continue;
            };
            let mut all = Vec::new();
            for (attribute, terms) in alternative {
                let field = format!("{field}.{attribute}");
                if attribute == "timestamp" {
                    self.warnings.push("the filter on timestamp is left out: a metric is evaluated over each of its windows".to_owned());
                    continue;
                }
                self.attribute(&field, attribute);
                let Some(terms) = terms.as_array() else {
                    self.problem(field, "must be a list of terms, such as [[\"equal\", \"shooter\"]]");
                    continue;
                };
                conditions += terms.len();
                for (at, term) in terms.iter().enumerate() {
                    all.extend(self.term(&format!("{field}[{at}]"), attribute, term));
                }
            }
            filter.push(all);
        }
        if conditions > MAX_CONDITIONS || filter.len() > MAX_CONDITIONS {
            self.problem("query.filter", format!("has more than {MAX_CONDITIONS} terms"));
        }
        // An alternative without conditions lets every report through, whatever the others say.
        if filter.iter().any(Vec::is_empty) { Vec::new() } else { filter }
    }

    fn term(&mut self, field: &str, attribute: &str, term: &Json) -> Option<Condition> {
        let Some([operator, rest @ ..]) = term.as_array().map(Vec::as_slice) else {
            self.problem(field, "must be a list: operator, value and perhaps options");
            return None;
        };
        let Ok(operator) = serde_json::from_value::<Operator>(operator.clone()) else {
            self.problem(
                field,
                format!(
                    "{operator} is not an operator; there are equal, not-equal, at-least, at-most, greater-than, less-than, contains, \
                     not-contains, regular-expression, inverse-regular-expression, is-set and is-not-set"
                ),
            );
            return None;
        };
        let (operand, options) = match (operator, rest) {
            (Operator::IsSet | Operator::IsNotSet, _) => (Value::Bool(true), None),
            (_, [operand]) => (self.operand(field, operand)?, None),
            (_, [operand, options]) => (self.operand(field, operand)?, Some(options)),
            (_, []) => {
                self.problem(field, "needs a value after the operator");
                return None;
            }
            (_, [_, _, ..]) => {
                self.problem(field, "takes one value; use a regular-expression or several filter objects for alternatives");
                return None;
            }
        };
        let case_insensitive = match options {
            None => false,
            Some(options) => match options.as_object() {
                Some(options) => options.get("case_insensitive").and_then(Json::as_bool).unwrap_or(false),
                None => {
                    self.problem(field, "takes one value and then an object of options, such as {\"case_insensitive\": true}");
                    return None;
                }
            },
        };
        match Condition::new(attribute, operator, operand, case_insensitive) {
            Ok(condition) => Some(condition),
            Err(detail) => {
                self.problem(field, detail);
                None
            }
        }
    }

    fn operand(&mut self, field: &str, json: &Json) -> Option<Value> {
        let value = match json {
            Json::Bool(b) => Value::Bool(*b),
            Json::Number(_) => serde_json::from_value(json.clone()).ok()?,
            Json::String(text) if text.len() <= MAX_TEXT => Value::Text(text.clone()),
            Json::String(_) => {
                self.problem(field, format!("the value is longer than {MAX_TEXT} bytes"));
                return None;
            }
            _ => {
                self.problem(field, "the value must be text, a number, true or false; use is-not-set for missing values");
                return None;
            }
        };
        Some(value)
    }

    fn group(&mut self, group: Option<&Json>) -> Vec<String> {
        let names = match group {
            None | Some(Json::Null) => return Vec::new(),
            Some(Json::Array(list)) => list,
            Some(_) => {
                self.problem("query.group", "must be a list of attribute names");
                return Vec::new();
            }
        };
        let mut group: Vec<String> = Vec::new();
        for (at, name) in names.iter().enumerate() {
            let field = format!("query.group[{at}]");
            match name.as_str() {
                None => self.problem(field, "must be an attribute name"),
                // The console writes "*" for "no grouping".
                Some("*") => {}
                Some(name) if group.iter().any(|have| have == name) => self.problem(field, format!("{name} is already in the list")),
                Some(name) => {
                    self.attribute(&field, name);
                    group.push(name.to_owned());
                }
            }
        }
        if group.len() > MAX_GROUPS {
            self.problem("query.group", format!("has {} attributes; at most {MAX_GROUPS} make a readable series", group.len()));
        }
        group
    }

    fn fold(&mut self, fold: Option<&Json>) -> Vec<Aggregate> {
        let mut aggregates: Vec<Aggregate> = Vec::new();
        let Some(fold) = fold.and_then(Json::as_object).filter(|fold| !fold.is_empty()) else {
            self.problem("query.fold", "must name at least one aggregate, such as {\"_tx\": [[\"unique\"]]}");
            return aggregates;
        };
        for (attribute, ops) in fold {
            let field = format!("query.fold.{attribute}");
            self.attribute(&field, attribute);
            let Some(ops) = ops.as_array().filter(|ops| !ops.is_empty()) else {
                self.problem(field, "must be a list of aggregates, such as [[\"unique\"]]");
                continue;
            };
            for (at, op) in ops.iter().enumerate() {
                let field = format!("{field}[{at}]");
                let word = op.as_array().and_then(|op| op.first()).unwrap_or(op).as_str();
                match word.and_then(AggregateOp::read) {
                    None => self.problem(
                        field,
                        format!("{op} is not one number per group; a metric takes count, unique, min, max, sum, mean, first and last"),
                    ),
                    Some(op) => {
                        let attribute = if attribute == "*" { "_tx" } else { attribute };
                        let aggregate = Aggregate { op, attribute: attribute.to_owned() };
                        if aggregates.iter().any(|have| have.name() == aggregate.name()) {
                            self.problem(
                                field,
                                format!("another aggregate is also called {}; put one of them into a metric of its own", aggregate.name()),
                            );
                        } else {
                            aggregates.push(aggregate);
                        }
                    }
                }
            }
        }
        if aggregates.len() > MAX_AGGREGATES {
            self.problem("query.fold", format!("has more than {MAX_AGGREGATES} aggregates"));
        }
        aggregates
    }

    fn attribute(&mut self, field: &str, name: &str) {
        if name.is_empty() || name.len() > 256 {
            self.problem(field, "an attribute name has 1 to 256 bytes");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(query: Json) -> Vec<String> {
        parse(&query).expect_err("has faults").iter().map(ToString::to_string).collect()
    }

    #[test]
    fn reads_what_the_console_and_morgue_send() {
        let parsed = parse(&json!({
            "filter": [{"timestamp": [["at-least", "1763900000."]], "application": [["equal", "shooter"], ["not-contains", "beta", {"case_insensitive": true}]]}],
            "virtual_columns": [], "group": ["fingerprint"],
            "fold": {"_tx": [["unique"]], "guid": [["unique"]], "process.age": [["max"], ["head"]]},
        }))
        .expect("legal");
        assert_eq!(parsed.warnings.len(), 1);
        assert_eq!(parsed.query.filter[0].len(), 2);
        assert_eq!(
            parsed.query.aggregates.iter().map(Aggregate::name).collect::<Vec<_>>(),
            ["tx_unique", "guid_unique", "process_age_max", "process_age_first"]
        );
        let again = parse(&write(&parsed.query)).expect("its own writing is legal");
        assert_eq!(again.query, parsed.query);
        assert!(again.warnings.is_empty());
    }

    #[test]
    fn an_empty_alternative_lets_everything_through() {
        for filter in
            [json!(null), json!([]), json!([{}]), json!([{"a": [["equal", 1]]}, {}]), json!([{"timestamp": [["greater-than", 0]]}])]
        {
            let query = json!({"filter": filter, "fold": {"*": [["count"]]}});
            assert!(parse(&query).expect("legal").query.filter.is_empty(), "{query}");
        }
    }

    #[test]
    fn every_fault_is_named_by_its_field() {
        assert_eq!(
            faults(json!({"filter": [{"a": [["like", 1], ["equal"], ["regular-expression", "("]]}], "group": ["x", "x", 3], "fold": {"y": [["range"]]}, "limit": 3}))
                .iter()
                .map(|fault| fault.split(": ").next().expect("a field").to_owned())
                .collect::<Vec<_>>(),
            ["query.limit", "query.filter[0].a[0]", "query.filter[0].a[1]", "query.filter[0].a[2]", "query.group[1]", "query.group[2]", "query.fold.y[0]"],
        );
        assert_eq!(faults(json!([])).len(), 1);
        assert_eq!(faults(json!({})), ["query.fold: must name at least one aggregate, such as {\"_tx\": [[\"unique\"]]}"]);
        assert_eq!(faults(json!({"fold": {"a.b": [["max"]], "a_b": [["max"]]}})).len(), 1);
        assert_eq!(faults(json!({"fold": {"a": [["max"]]}, "filter": [{"a": [["equal", null]]}]})).len(), 1);
        assert_eq!(faults(json!({"fold": {"a": [["max"]]}, "group": (0..9).map(|n| n.to_string()).collect::<Vec<_>>()})).len(), 1);
    }
}
