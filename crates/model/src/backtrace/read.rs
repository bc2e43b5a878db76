//! JSON to `Request`: every form that real clients send, and for what they must not send the texts by which they know it.

use super::column::constant;
use super::{
    Action, Aggregation, BinSpan, Column, Columns, Fault, Fold, ISSUE_PREFIX, Op, Request, Select, Shown, Step, TableName, Term, Type,
};
use crate::derived::{Derived, Function, Granularity};
use crate::query::{Condition, Direction, Filter, Operator};
use crate::report::ReportId;
use crate::value::{Number, Value};
use serde_json::{Map, Value as Json};

/// Most terms of a filter, folds, columns, virtual columns, order terms or steps of `having`.
const MAX_PARTS: usize = 1_000;
/// Longest name, in bytes.
const MAX_NAME: usize = 256;
/// Longest operand or value to set, in bytes.
const MAX_TEXT: usize = 32 * 1024;
/// Values that a distribution shows unless it says otherwise.
const DISTRIBUTION: usize = 3;
/// Bins unless it says otherwise, and at most.
const BINS: usize = 32;
const MAX_BINS: usize = 10_000;
/// What the template `workflow` selects.
const WORKFLOW: [&str; 4] = ["timestamp", "fingerprint", "callstack", "classifiers"];

/// Which table a request is about: `table` in its body, else the parameter of that name in its address.
pub fn table(body: &Json, parameter: Option<&str>) -> Result<TableName, Fault> {
    let named = match body.get("table") {
        None | Some(Json::Null) => parameter,
        Some(name) => Some(name.as_str().unwrap_or_default()),
    };
    match named {
        None | Some("objects") => Ok(TableName::Objects),
        Some("issues") => Ok(TableName::Issues),
        Some(other) => Err(Fault::parameter("table", &format!("there is no {other:?} here; there are objects and issues"))),
    }
}

/// Reads a request about a table with these columns. Unknown keys are passed over.
pub fn read(body: &Json, columns: &Columns) -> Result<Request, Fault> {
    let Some(body) = body.as_object() else { return Err(Fault::invalid("the body must be an object")) };
    let derived = virtual_columns(body.get("virtual_columns"), columns)?;
    let mut reader = Reader { columns, derived, joins_issues: false };
    let filter = reader.filter(body.get("filter"))?;
    let action = reader.action(body)?;
    let limit = page(body.get("limit"), "limit must be positive")?.filter(|limit| *limit > 0);
    let offset = page(body.get("offset"), "offset must be positive")?.unwrap_or(0);
    let Reader { derived, joins_issues, .. } = reader;
    Ok(Request { filter, derived, action, limit, offset, joins_issues })
}

struct Reader<'a> {
    columns: &'a Columns,
    /// Virtual columns, and constants once they are named.
    derived: Vec<Derived>,
    joins_issues: bool,
}

impl Reader<'_> {
    fn action(&mut self, body: &Map<String, Json>) -> Result<Action, Fault> {
        let template = match body.get("template").and_then(Json::as_str) {
            None => &[][..],
            Some("workflow") => &WORKFLOW[..],
            Some(_) => return Err(Fault::invalid("Template not found")),
        };
        let selects = body.contains_key("select") || body.contains_key("select_wildcard") || !template.is_empty();
        match body.get("set") {
            None | Some(Json::Null) if selects => Ok(Action::Select(self.select(body, template)?)),
            None | Some(Json::Null) => Ok(Action::Aggregate(self.aggregation(body)?)),
            Some(_) if selects => Err(Fault::parameter("set", "a query selects or sets, not both")),
            Some(set) => Ok(Action::Set(self.set(set)?)),
        }
    }

    /// The column of a name, virtual ones included, and notes what it takes to have it.
    fn column(&mut self, name: &str) -> Option<Shown> {
        let shown = |kind, format: &str| Shown { name: name.to_owned(), kind, format: format.to_owned() };
        if let Some(derived) = self.derived.iter().find(|derived| derived.name == name) {
            let Some(Column { kind, format, .. }) = self.columns.get(name).filter(|_| constant(name).is_some()) else {
                let source = self.columns.get(&derived.source);
                return Some(shown(Type::Uint(64), source.map_or("none", |column| &column.format)));
            };
            return Some(shown(*kind, format));
        }
        let column = self.columns.get(name)?;
        self.joins_issues |= name.starts_with(ISSUE_PREFIX);
        self.derived.extend(constant(name));
        Some(shown(column.kind, &column.format))
    }

    fn filter(&mut self, filter: Option<&Json>) -> Result<Filter, Fault> {
        let fault = |detail: &str| Fault::parameter("filter", detail);
        let alternatives = match filter {
            None | Some(Json::Null) => return Ok(Vec::new()),
            Some(Json::Array(list)) => list,
            Some(_) => return Err(fault("must be a list of objects")),
        };
        let mut filter = Vec::new();
        let mut parts = 0;
        for alternative in alternatives {
            let mut all = Vec::new();
            for (name, terms) in alternative.as_object().ok_or_else(|| fault("must be a list of objects"))? {
                let column =
                    self.column(name).ok_or_else(|| Fault::column(format!("Filter column not found: column not found: '{name}'")))?;
                for term in terms.as_array().ok_or_else(|| fault("an attribute has a list of terms"))? {
                    all.push(condition(&column, term)?);
                }
            }
            parts += all.len().max(1);
            if parts > MAX_PARTS {
                return Err(fault(&format!("has more than {MAX_PARTS} terms")));
            }
            filter.push(all);
        }
        // An alternative without conditions lets every row through, whatever the others say.
        Ok(if filter.iter().any(Vec::is_empty) { Vec::new() } else { filter })
    }

    fn aggregation(&mut self, body: &Map<String, Json>) -> Result<Aggregation, Fault> {
        let group = self.group(body.get("group"))?;
        let folds = self.folds(body.get("fold"))?;
        let mut aggregation = Aggregation { group, folds, ..Aggregation::default() };
        for (name, direction) in order(body.get("order"))? {
            let term = aggregate_term(&name, &aggregation.folds)?;
            aggregation.order.push((term, direction));
        }
        aggregation.having = having(body.get("having"), &aggregation.folds)?;
        Ok(aggregation)
    }

    /// A flat name groups; a name in a list of its own groups everything into one, as the real service does.
    fn group(&mut self, group: Option<&Json>) -> Result<Option<Shown>, Fault> {
        let fault = |detail: &str| Fault::parameter("group", detail);
        let names = match group {
            None | Some(Json::Null) => return Ok(None),
            Some(Json::Array(list)) => list,
            Some(_) => return Err(fault("must be a list with one attribute")),
        };
        match names.as_slice() {
            [] => Ok(None),
            [Json::String(name)] if name == "*" => Ok(None),
            [Json::String(name)] => self.known(name).map(Some),
            [Json::Array(nested)] => {
                for name in nested {
                    self.known(name.as_str().ok_or_else(|| fault("must name attributes"))?)?;
                }
                Ok(None)
            }
            [_] => Err(fault("must name an attribute")),
            [_, _, ..] => Err(fault("has more than one attribute")),
        }
    }

    fn known(&mut self, name: &str) -> Result<Shown, Fault> {
        self.column(name).ok_or_else(|| Fault::column(format!("column not found: '{name}'")))
    }

    fn folds(&mut self, fold: Option<&Json>) -> Result<Vec<Fold>, Fault> {
        let fault = |detail: String| Fault::parameter("fold", &detail);
        let attributes = match fold {
            None | Some(Json::Null) => return Ok(Vec::new()),
            Some(Json::Object(attributes)) => attributes,
            Some(_) => return Err(fault("must be an object of attributes".to_owned())),
        };
        let mut folds = Vec::new();
        for (name, ops) in attributes {
            let column = self.column(name).ok_or_else(|| Fault::column(format!("aggregation column not found: {name}")))?;
            for op in ops.as_array().ok_or_else(|| fault(format!("{name} has a list of operators")))? {
                let op = read_op(op).map_err(|detail| fault(format!("{name}: {detail}")))?;
                folds.push(Fold { column: column.clone(), op });
            }
            if folds.len() > MAX_PARTS {
                return Err(fault(format!("has more than {MAX_PARTS} operators")));
            }
        }
        Ok(folds)
    }

    fn select(&mut self, body: &Map<String, Json>, template: &[&str]) -> Result<Select, Fault> {
        let fault = |detail: &str| Fault::parameter("select", detail);
        let mut names: Vec<String> = template.iter().map(|&name| name.to_owned()).collect();
        match body.get("select") {
            None | Some(Json::Null) => {}
            Some(Json::Array(list)) => {
                for name in list {
                    names.push(name.as_str().ok_or_else(|| fault("must name attributes"))?.to_owned());
                }
            }
            Some(_) => return Err(fault("must be a list of attributes")),
        }
        if let Some(wildcard) = body.get("select_wildcard") {
            let asks = |which: &str| wildcard.get(which).and_then(Json::as_bool).unwrap_or(false);
            let physical = self.columns.iter().filter(|(name, column)| column.used && !name.starts_with(ISSUE_PREFIX));
            let joined = self.columns.iter().filter(|(name, _)| name.starts_with(ISSUE_PREFIX));
            let own = self.derived.iter().filter(|derived| constant(&derived.name).is_none());
            names.extend(physical.filter(|_| asks("physical")).map(|(name, _)| name.to_owned()));
            names.extend(own.filter(|_| asks("virtual")).map(|derived| derived.name.clone()));
            names.extend(joined.filter(|_| asks("derived")).map(|(name, _)| name.to_owned()));
        } else if names.len() > MAX_PARTS {
            return Err(fault(&format!("has more than {MAX_PARTS} attributes")));
        }
        let mut columns: Vec<Shown> = Vec::new();
        for name in names {
            // The object numbers come with every select.
            if name != "object" && columns.iter().all(|column| column.name != name) {
                columns.push(self.known(&name)?);
            }
        }
        let mut by = Vec::new();
        for (name, direction) in order(body.get("order"))? {
            if name == "object" {
                by.push(("_tx".to_owned(), direction));
            } else {
                by.push((self.known(&name)?.name, direction));
            }
        }
        Ok(Select { columns, order: by })
    }

    fn set(&mut self, set: &Json) -> Result<Vec<(String, Option<Value>)>, Fault> {
        let fault = |detail: String| Fault::parameter("set", &detail);
        let set = set.as_object().filter(|set| !set.is_empty()).ok_or_else(|| fault("must be an object of attributes".to_owned()))?;
        let mut changes = Vec::new();
        for (name, value) in set {
            if name.is_empty() || name.len() > MAX_NAME {
                return Err(fault(format!("an attribute name has 1 to {MAX_NAME} bytes")));
            }
            let kind = self.columns.get(name).map(|column| column.kind);
            let value = match value {
                Json::Null => None,
                value => Some(scalar(value).map_err(fault)?),
            };
            changes.push((name.clone(), value.map(|value| kind.map_or(value.clone(), |kind| operand_of(kind, value)))));
        }
        Ok(changes)
    }
}

fn virtual_columns(list: Option<&Json>, columns: &Columns) -> Result<Vec<Derived>, Fault> {
    let fault = |detail: &str| Fault::parameter("virtual_columns", detail);
    let list = match list {
        None | Some(Json::Null) => return Ok(Vec::new()),
        Some(Json::Array(list)) if list.len() <= MAX_PARTS => list,
        Some(_) => return Err(fault(&format!("must be a list of at most {MAX_PARTS} columns"))),
    };
    let mut derived: Vec<Derived> = Vec::new();
    for column in list {
        let name = column.get("name").and_then(Json::as_str).ok_or_else(|| fault("a virtual column has a name"))?;
        // What the server itself asks of reports must not be hidden.
        if name.is_empty() || name.len() > MAX_NAME || name.starts_with('_') || derived.iter().any(|have| have.name == name) {
            return Err(fault(&format!("{name:?} cannot be the name of a virtual column")));
        }
        let kind = column.get("type").and_then(Json::as_str).unwrap_or_default();
        let settings = column.get(kind).ok_or_else(|| fault(&format!("{name} must say what {kind:?} is to do")))?;
        let source = settings.get("backing_column").and_then(Json::as_str).unwrap_or_default();
        let function = match kind {
            "quantize_uint" => {
                let number = |key| settings.get(key).and_then(whole);
                let size = number("size").and_then(|size| u64::try_from(size).ok()).filter(|size| *size > 0);
                let size = size.ok_or_else(|| fault(&format!("{name}: quantize_uint needs a size of at least 1")))?;
                let offset = number("offset").unwrap_or(0);
                let offset = i64::try_from(offset).map_err(|_| fault(&format!("{name}: the offset of quantize_uint is too large")))?;
                Function::Quantize { size, offset }
            }
            "truncate_timestamp" => match settings.get("granularity").and_then(Json::as_str) {
                Some("day") => Function::Truncate(Granularity::Day),
                Some("month") => Function::Truncate(Granularity::Month),
                Some("quarter") => Function::Truncate(Granularity::Quarter),
                Some("year") => Function::Truncate(Granularity::Year),
                _ => return Err(Fault::invalid("truncate_timestamp vcol: unrecognized granularity")),
            },
            other => return Err(fault(&format!("{other:?} is no kind of virtual column; there are quantize_uint and truncate_timestamp"))),
        };
        if columns.get(source).is_none() || source.starts_with(ISSUE_PREFIX) || constant(source).is_some() {
            return Err(Fault::column(format!("{kind} vcol: backing column not found: '{source}'")));
        }
        derived.push(Derived { name: name.to_owned(), source: source.to_owned(), function });
    }
    Ok(derived)
}

fn condition(column: &Shown, term: &Json) -> Result<Condition, Fault> {
    let fault = |detail: &str| Fault::parameter("filter", &format!("{}: {detail}", column.name));
    let Some([Json::String(operator), rest @ ..]) = term.as_array().map(Vec::as_slice) else {
        return Err(fault("a term is a list: operator, value and perhaps options"));
    };
    let Ok(operator) = serde_json::from_value::<Operator>(Json::String(operator.clone())) else {
        return Err(fault(&format!("{operator:?} is not an operator")));
    };
    let (operand, options) = match (operator, rest) {
        (Operator::IsSet | Operator::IsNotSet, _) => (Value::Bool(true), None),
        (_, [operand]) => (scalar(operand).map_err(|detail| fault(&detail))?, None),
        (_, [operand, options @ Json::Object(_)]) => (scalar(operand).map_err(|detail| fault(&detail))?, Some(options)),
        _ => return Err(fault("a term takes one value and then perhaps an object of options")),
    };
    let is_pattern = matches!(operator, Operator::RegularExpression | Operator::InverseRegularExpression);
    if is_pattern && column.kind != Type::Dictionary {
        return Err(Fault::invalid(format!("regexec unsupported on column '{}' of type {}", column.name, column.kind.name())));
    }
    let ignores_case = options.and_then(|options| options.get("case_insensitive")).and_then(Json::as_bool).unwrap_or(false);
    Condition::new(&column.name, operator, operand_of(column.kind, operand), ignores_case).map_err(|detail| fault(&detail))
}

fn scalar(json: &Json) -> Result<Value, String> {
    match json {
        Json::Bool(b) => Ok(Value::Bool(*b)),
        Json::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
            (Some(n), ..) => Ok(Value::Int(n)),
            (_, Some(n), _) => Ok(Value::UInt(n)),
            (_, _, Some(n)) => Ok(Value::Float(n)),
            _ => Err("the number is out of range".to_owned()),
        },
        Json::String(text) if text.len() <= MAX_TEXT => Ok(Value::Text(text.clone())),
        Json::String(_) => Err(format!("the value is longer than {MAX_TEXT} bytes")),
        _ => Err("the value must be text, a number, true or false".to_owned()),
    }
}

/// A value as its column has it: for numbers `"5"`, `"5."` and `"0xa"` are numbers, an id has dashes.
fn operand_of(kind: Type, value: Value) -> Value {
    let Value::Text(text) = &value else { return value };
    match kind {
        Type::Bitmap if text == "true" => Value::Bool(true),
        Type::Bitmap if text == "false" => Value::Bool(false),
        Type::Uuid => ReportId::read(text).map_or(value, |id| Value::Text(id.to_string())),
        kind if kind.is_number() => number(text).unwrap_or(value),
        _ => value,
    }
}

fn number(text: &str) -> Option<Value> {
    let number = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => Number::Whole(u64::from_str_radix(digits, 16).ok()?.into()),
        None => Number::read(text.strip_suffix('.').unwrap_or(text))?,
    };
    match number {
        Number::Whole(n) => i64::try_from(n).map(Value::Int).ok().or_else(|| u64::try_from(n).map(Value::UInt).ok()),
        Number::Real(n) => Some(Value::Float(n)),
    }
}

/// A whole number in any of its spellings.
fn whole(json: &Json) -> Option<i128> {
    let value = match json {
        Json::String(text) => number(text)?,
        json => scalar(json).ok()?,
    };
    match value {
        Value::Int(n) => Some(n.into()),
        Value::UInt(n) => Some(n.into()),
        Value::Float(n) if n.fract() == 0.0 && n.abs() < 1e18 => Some(n as i128),
        _ => None,
    }
}

fn page(json: Option<&Json>, fault: &str) -> Result<Option<usize>, Fault> {
    match json {
        None | Some(Json::Null) => Ok(None),
        Some(json) => whole(json).and_then(|n| usize::try_from(n).ok()).map(Some).ok_or_else(|| Fault::invalid(fault)),
    }
}

fn read_op(json: &Json) -> Result<Op, String> {
    let Some((Json::String(word), args)) = json.as_array().and_then(|op| op.split_first()) else {
        return Err("an operator is a list: its name and perhaps arguments".to_owned());
    };
    let arg = |at: usize| args.get(at).map(|json| whole(json).ok_or_else(|| format!("{word} takes whole numbers"))).transpose();
    Ok(match word.as_str() {
        "head" => Op::Head,
        "tail" => Op::Tail,
        "first" => Op::First,
        "last" => Op::Last,
        "min" => Op::Min,
        "max" => Op::Max,
        "unique" => Op::Unique,
        "count" => Op::Count,
        "sum" => Op::Sum,
        "mean" => Op::Mean,
        "range" => Op::Range,
        "histogram" => Op::Histogram,
        "object" => Op::Object,
        "distribution" => {
            let most = arg(0)?.map_or(Ok(DISTRIBUTION), usize::try_from);
            Op::Distribution(most.ok().filter(|most| *most > 0).ok_or("distribution shows at least 1 value")?)
        }
        "bin" => {
            let bins = arg(0)?.map_or(Ok(BINS), usize::try_from).ok().filter(|bins| (1..=MAX_BINS).contains(bins));
            let span = match (arg(1)?, arg(2)?) {
                (None, None) => None,
                (Some(from), Some(to)) if from < to => Some(BinSpan(from, to)),
                _ => return Err("bin takes a number of bins and perhaps where they begin and end, in that order".to_owned()),
            };
            Op::Bin(bins.ok_or(format!("there are 1 to {MAX_BINS} bins"))?, span)
        }
        other => return Err(format!("{other:?} is not an aggregation operator")),
    })
}

fn order(json: Option<&Json>) -> Result<Vec<(String, Direction)>, Fault> {
    let fault = |detail: &str| Fault::parameter("order", detail);
    let terms = match json {
        None | Some(Json::Null) => return Ok(Vec::new()),
        Some(Json::Array(terms)) if terms.len() <= MAX_PARTS => terms,
        Some(_) => return Err(fault("must be a list of terms")),
    };
    let term = |term: &Json| {
        let name = term.get("name").and_then(Json::as_str).ok_or_else(|| fault("a term has a name"))?;
        let direction = match term.get("ordering").and_then(Json::as_str) {
            None | Some("ascending") => Direction::Ascending,
            Some("descending") => Direction::Descending,
            Some(_) => return Err(fault("the ordering is ascending or descending")),
        };
        Ok((name.to_owned(), direction))
    };
    terms.iter().map(term).collect()
}

/// `;group`, `;count`, `attribute;fold` or `attribute;fold;value`; attributes may hold semicolons themselves.
fn aggregate_term(name: &str, folds: &[Fold]) -> Result<Term, Fault> {
    match name {
        ";group" => return Ok(Term::Group),
        ";count" => return Ok(Term::Count),
        _ => {}
    }
    let places = |attribute: &str| -> Vec<usize> {
        folds.iter().enumerate().filter(|(_, fold)| fold.column.name == attribute).map(|(at, _)| at).collect()
    };
    let (before, last) = name.rsplit_once(';').unwrap_or((name, "0"));
    let (attribute, fold, value) = match before.rsplit_once(';') {
        Some((attribute, fold)) if places(before).is_empty() => (attribute, fold, last),
        _ => (before, last, "0"),
    };
    let places = places(attribute);
    if places.is_empty() {
        return Err(Fault::column(format!("column not found for aggregate value term: '{attribute}'")));
    }
    let missing = || Fault::column(format!("index not found for aggregate value term: '{name}'"));
    let fold = fold.parse::<usize>().ok().and_then(|at| places.get(at)).copied().ok_or_else(missing)?;
    let values = match folds[fold].op {
        Op::Range | Op::Distribution(_) => 2,
        _ => 1,
    };
    let value = value.parse::<usize>().ok().filter(|at| *at < values).ok_or_else(missing)?;
    Ok(Term::Cell { fold, value })
}

fn having(json: Option<&Json>, folds: &[Fold]) -> Result<Vec<Step>, Fault> {
    let fault = |detail: &str| Fault::parameter("having", detail);
    let steps = match json {
        None | Some(Json::Null) => return Ok(Vec::new()),
        Some(Json::Array(steps)) if steps.len() <= MAX_PARTS => steps,
        Some(_) => return Err(fault("must be a list of steps")),
    };
    let mut read = Vec::new();
    let mut outcomes = 0usize;
    for step in steps {
        let first = |key: &str| match step.get(key) {
            Some(Json::Array(list)) => list.first(),
            other => other,
        };
        let param = first("params");
        let operator = match step.get("op").and_then(Json::as_str) {
            Some("boolean") => {
                outcomes =
                    outcomes.checked_sub(1).filter(|left| *left > 0).ok_or_else(|| fault("boolean joins two conditions before it"))?;
                read.push(match param.and_then(Json::as_str) {
                    Some("and") => Step::And,
                    Some("or") => Step::Or,
                    _ => return Err(fault("boolean is and or or")),
                });
                continue;
            }
            Some("==") => Operator::Equal,
            Some("!=") => Operator::NotEqual,
            Some("<") => Operator::LessThan,
            Some(">") => Operator::GreaterThan,
            Some("<=") => Operator::AtMost,
            Some(">=") => Operator::AtLeast,
            _ => return Err(fault("op is one of == != < > <= >= boolean")),
        };
        let property = first("property").and_then(Json::as_str).ok_or_else(|| fault("a condition has a property"))?;
        let value = param
            .ok_or_else(|| fault("a condition has a value in params"))
            .and_then(|param| scalar(param).map_err(|detail| fault(&detail)))?;
        read.push(Step::Compare(aggregate_term(property, folds)?, operator, value));
        outcomes += 1;
    }
    Ok(read)
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
