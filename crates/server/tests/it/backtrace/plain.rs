//! What a query must answer, worked out from the submitted attributes in the plainest way: no code of the server is used.

use super::decode::{Aggregation, Group, Selection};
use serde_json::{Map, Value, json};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// One report: every column that is known of it, `_tx` among them.
pub(super) type Row = Map<String, Value>;

/// Column types.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Bit,
    Number,
    Id,
    Text,
}

/// Reports and the types of their columns.
pub(super) struct Plain {
    pub(super) rows: Vec<Row>,
    pub(super) kinds: BTreeMap<String, Kind>,
}

fn written(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(n) => match n.as_f64() {
            Some(n) if n.fract() == 0.0 => format!("{n:.0}"),
            Some(n) => n.to_string(),
            None => n.to_string(),
        },
        other => other.to_string(),
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(b) => Some(f64::from(u8::from(*b))),
        Value::Number(n) => n.as_f64(),
        Value::String(text) => {
            let digits = text.trim_start_matches(['-', '+']);
            let plain = !digits.is_empty() && digits.len() + 1 >= text.len() && digits.starts_with(|c: char| c.is_ascii_digit());
            if plain { text.parse().ok() } else { None }
        }
        _ => None,
    }
}

/// Missing first, then numbers by value, then text.
fn order(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    match (a, b) {
        (None, None) => Ordering::Equal,
        (None, _) => Ordering::Less,
        (_, None) => Ordering::Greater,
        (Some(a), Some(b)) => match (number(a), number(b)) {
            (Some(x), Some(y)) => x.partial_cmp(&y).expect("no NaN").then_with(|| written(a).cmp(&written(b))),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => written(a).cmp(&written(b)),
        },
    }
}

fn integer(text: &str) -> f64 {
    text.trim_end_matches('.').parse().expect("a number")
}

fn arg(op: &Value, at: usize) -> Option<f64> {
    op.get(at).map(|arg| number(arg).unwrap_or_else(|| integer(arg.as_str().expect("text"))))
}

impl Plain {
    fn kind(&self, column: &str) -> Kind {
        *self.kinds.get(column).unwrap_or(&Kind::Text)
    }

    /// A row's value, virtual columns included.
    fn value(&self, query: &Value, row: &Row, column: &str) -> Option<Value> {
        for vcol in query["virtual_columns"].as_array().into_iter().flatten() {
            if vcol["name"] == column {
                let settings = &vcol[vcol["type"].as_str().expect("a type")];
                let source = number(row.get(settings["backing_column"].as_str().expect("a column"))?)?;
                if vcol["type"] == "quantize_uint" {
                    let get = |name: &str| settings[name].as_f64().unwrap_or_else(|| integer(settings[name].as_str().expect("text")));
                    let (size, offset) = (get("size"), get("offset"));
                    return Some(json!((((source + offset) / size).floor() * size - offset) as i64));
                }
                assert_eq!(settings["granularity"], "day", "the plain evaluator knows days alone");
                return Some(json!(((source / 86_400.0).floor() * 86_400.0) as i64));
            }
        }
        match column {
            "_deleted" | "_compressed" => Some(json!(0)),
            _ => row.get(column).filter(|value| !value.is_null()).cloned(),
        }
    }

    fn holds(&self, value: Option<&Value>, column: &str, term: &Value) -> bool {
        let op = term[0].as_str().expect("an operator");
        match op {
            "is-set" => return value.is_some(),
            "is-not-set" => return value.is_none(),
            _ => {}
        }
        let negative = op.contains("not-") || op.contains("inverse");
        let Some(have) = value else { return negative };
        let mut want = term[1].clone();
        if let (Some(text), Kind::Number) = (want.as_str(), self.kind(column)) {
            if let Some(hex) = text.strip_prefix("0x") {
                want = json!(u64::from_str_radix(hex, 16).expect("hex digits"));
            } else if let Some(whole) = text.strip_suffix('.').filter(|text| text.parse::<i64>().is_ok()) {
                want = json!(whole);
            }
        }
        let folds_case = term[2]["case_insensitive"] == true;
        let fold = |text: String| if folds_case { text.to_lowercase() } else { text };
        let (h, w) = (fold(written(have)), fold(written(&want)));
        // `"5."` is a number also where text is compared by size.
        let by_size = |want: &Value| number(want).or_else(|| number(&json!(want.as_str()?.strip_suffix('.')?)));
        let compared = match (number(have), by_size(&want)) {
            (Some(a), Some(b)) => a.partial_cmp(&b).expect("no NaN"),
            _ => written(have).cmp(&written(&want)),
        };
        let pattern = || regex::RegexBuilder::new(&written(&want)).case_insensitive(folds_case).build().expect("a pattern");
        let yes = match op {
            "equal" | "not-equal" => h == w || !have.is_string() && number(have).is_some() && number(have) == by_size(&want),
            "contains" | "not-contains" => h.contains(&w),
            "regular-expression" | "inverse-regular-expression" => pattern().is_match(&written(have)),
            "at-least" => compared.is_ge(),
            "at-most" => compared.is_le(),
            "greater-than" => compared.is_gt(),
            "less-than" => compared.is_lt(),
            other => panic!("{other}"),
        };
        yes != negative
    }

    /// The rows that pass, in the order of their numbers.
    fn passing(&self, query: &Value) -> Vec<&Row> {
        let alternatives: Vec<&Value> = query["filter"].as_array().into_iter().flatten().collect();
        let passes = |row: &&Row| {
            let all = |alternative: &&Value| {
                alternative.as_object().expect("an object").iter().all(|(column, terms)| {
                    let value = self.value(query, row, column);
                    terms.as_array().expect("terms").iter().all(|term| self.holds(value.as_ref(), column, term))
                })
            };
            alternatives.is_empty() || alternatives.iter().any(all)
        };
        self.rows.iter().filter(passes).collect()
    }

    fn key(&self, column: &str, value: Option<&Value>) -> Value {
        match (value, self.kind(column)) {
            (None, _) => json!("*"),
            (Some(Value::Bool(b)), Kind::Bit) => json!(if *b { "1" } else { "0" }),
            (Some(value), _) => json!(written(value)),
        }
    }

    /// A number in a fold: whole ones as text.
    fn in_fold(&self, column: &str, value: &Value) -> Value {
        match (self.kind(column), value) {
            (Kind::Bit, Value::Bool(_)) => self.key(column, Some(value)),
            (Kind::Number | Kind::Bit, value) => match number(value) {
                Some(n) if n.fract() != 0.0 => json!(n),
                Some(n) => json!(format!("{n:.0}")),
                None => json!(written(value)),
            },
            (_, value) => json!(written(value)),
        }
    }

    fn fold(&self, query: &Value, rows: &[&Row], column: &str, op: &Value) -> Value {
        let values: Vec<Value> = rows.iter().filter_map(|row| self.value(query, row, column)).collect();
        let numbers: Vec<f64> = values.iter().filter_map(number).collect();
        let is_number = matches!(self.kind(column), Kind::Number | Kind::Bit);
        let plain = |n: f64| if n.fract() == 0.0 { json!(n as i64) } else { json!(n) };
        let texts: BTreeSet<String> = values.iter().map(written).collect();
        let mut counts: Vec<(String, u64)> =
            texts.iter().map(|text| (text.clone(), values.iter().filter(|value| written(value) == *text).count() as u64)).collect();
        counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| order(Some(&json!(a.0)), Some(&json!(b.0)))));
        let shown = |text: &String| match (self.kind(column), text.as_str()) {
            (Kind::Bit, "true") => "1".to_owned(),
            (Kind::Bit, "false") => "0".to_owned(),
            _ => text.clone(),
        };
        let pairs = |counts: &[(String, u64)]| counts.iter().map(|(text, n)| json!([shown(text), n])).collect::<Vec<Value>>();
        let one = |value: Option<Value>| value.map_or(json!([]), |value| json!([value]));
        let (least, greatest) = (numbers.iter().copied().reduce(f64::min), numbers.iter().copied().reduce(f64::max));
        match op[0].as_str().expect("an operator") {
            "head" | "first" if values.is_empty() && is_number => json!(["0"]),
            "tail" | "last" if values.is_empty() && is_number => json!(["0"]),
            "head" | "first" => one(values.first().map(|value| self.in_fold(column, value))),
            "tail" | "last" => one(values.last().map(|value| self.in_fold(column, value))),
            "min" if is_number => one(least.map(|n| self.in_fold(column, &plain(n)))),
            "max" if is_number => one(greatest.map(|n| self.in_fold(column, &plain(n)))),
            "min" => one(texts.first().map(|text| json!(text))),
            "max" => one(texts.last().map(|text| json!(text))),
            "range" if is_number => least.zip(greatest).map_or(json!([]), |(a, b)| json!([plain(a), plain(b)])),
            "range" => texts.first().zip(texts.last()).map_or(json!([]), |(a, b)| json!([a, b])),
            "unique" => json!([texts.len()]),
            "count" => json!([values.len()]),
            "sum" => one(Some(self.in_fold("_tx", &plain(numbers.iter().sum())))),
            "mean" if numbers.is_empty() => json!([]),
            "mean" => json!([plain(numbers.iter().sum::<f64>() / numbers.len() as f64)]),
            "histogram" => json!(pairs(&counts)),
            "distribution" => {
                let most = arg(op, 1).map_or(3, |n| n as usize);
                let keys = counts.len();
                counts.truncate(most);
                let tail = rows.len() as u64 - counts.iter().map(|(_, n)| n).sum::<u64>();
                let mut cell = json!({"keys": keys, "vals": pairs(&counts)});
                if tail > 0 {
                    cell["tail"] = json!(tail);
                }
                json!([cell])
            }
            "bin" => {
                // In a column of text, true and false are words.
                let words = |value: &&Value| is_number || !value.is_boolean();
                let numbers: Vec<f64> = values.iter().filter(words).filter_map(number).map(f64::floor).collect();
                let (least, greatest) = (numbers.iter().copied().reduce(f64::min), numbers.iter().copied().reduce(f64::max));
                let Some((least, greatest)) = least.zip(greatest) else { return json!([]) };
                let bins = arg(op, 1).unwrap_or(32.0);
                let (from, to, width) = match (arg(op, 2), arg(op, 3)) {
                    (Some(from), Some(to)) => (from, to, ((to - from) / bins).ceil()),
                    _ => (least, f64::INFINITY, ((greatest - least) / bins).floor() + 1.0),
                };
                let mut cell = Vec::new();
                for bin in 0..bins as u64 {
                    let (low, high) = (from + bin as f64 * width, (from + (bin + 1) as f64 * width).min(to));
                    let inside = numbers.iter().filter(|n| low <= **n && **n < high).count();
                    if inside > 0 {
                        cell.push(json!([plain(low), plain(high), inside]));
                    }
                }
                json!(cell)
            }
            "object" => {
                let highest = rows.iter().map(|row| row["_tx"].as_u64().expect("a number")).max().expect("no group is empty");
                json!([format!("{highest:x}")])
            }
            other => panic!("{other}"),
        }
    }

    /// A value in a cell, as `order` and `having` address it. `None` is missing.
    fn place(&self, group: &Group, folds: &[(String, Value)], name: &str) -> Option<Value> {
        match name {
            ";group" => return Some(group.key.clone()).filter(|key| key != "*"),
            ";count" => return Some(json!(group.count)),
            _ => {}
        }
        // Columns may hold semicolons themselves.
        let column = folds
            .iter()
            .map(|(column, _)| column)
            .filter(|column| name.starts_with(&format!("{column};")))
            .max_by_key(|column| column.len());
        let column = column.expect("a fold");
        let pieces: Vec<&str> = name[column.len() + 1..].split(';').collect();
        let nth: usize = pieces[0].parse().expect("a number");
        let value: usize = pieces.get(1).map_or(0, |value| value.parse().expect("a number"));
        let at = folds.iter().enumerate().filter(|(_, (of, _))| of == column).nth(nth).expect("a fold").0;
        let cell = &group.cells[at].1;
        match folds[at].1[0].as_str().expect("an operator") {
            "distribution" => Some(if value == 0 { cell[0]["keys"].clone() } else { cell[0].get("tail").cloned().unwrap_or(json!(0)) }),
            "histogram" | "bin" => Some(json!(cell.as_array().expect("a list").len())),
            "object" => cell.get(0).map(|hex| json!(u64::from_str_radix(hex.as_str().expect("text"), 16).expect("hex"))),
            "head" | "first" | "tail" | "last" if self.is_unset(group, &folds[at]) => None,
            _ => cell.get(value).cloned(),
        }
    }

    /// Whether the zero in a cell stands for no value at all: then the group's `count` of the column is 0.
    fn is_unset(&self, group: &Group, fold: &(String, Value)) -> bool {
        group.cells.iter().any(|(label, cell)| *label == format!("#{}", fold.0) && *cell == json!(0))
    }

    fn kept(&self, query: &Value, group: &Group, folds: &[(String, Value)]) -> bool {
        let mut stack = Vec::new();
        for step in query["having"].as_array().into_iter().flatten() {
            let op = step["op"].as_str().expect("text");
            if op == "boolean" {
                let (b, a): (bool, bool) = (stack.pop().expect("two"), stack.pop().expect("two"));
                stack.push(if step["params"][0] == "and" { a && b } else { a || b });
                continue;
            }
            let have = self.place(group, folds, step["property"][0].as_str().expect("text"));
            let want = &step["params"][0];
            let compared = have.as_ref().map(|have| match (number(have), number(want)) {
                (Some(a), Some(b)) => a.partial_cmp(&b).expect("no NaN"),
                _ => written(have).cmp(&written(want)),
            });
            stack.push(match op {
                "==" => compared == Some(Ordering::Equal),
                "!=" => compared != Some(Ordering::Equal),
                "<" => compared.is_some_and(Ordering::is_lt),
                ">" => compared.is_some_and(Ordering::is_gt),
                "<=" => compared.is_some_and(Ordering::is_le),
                ">=" => compared.is_some_and(Ordering::is_ge),
                other => panic!("{other}"),
            });
        }
        stack.into_iter().all(|held| held)
    }

    fn page<T: Clone>(query: &Value, all: &[T]) -> Vec<T> {
        let read = |name: &str| number(&query[name]).map(|n| n as usize);
        let limit = read("limit").filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        all.iter().skip(read("offset").unwrap_or(0)).take(limit).cloned().collect()
    }

    /// The answer to an aggregation.
    pub(super) fn aggregate(&self, query: &Value) -> Aggregation {
        let rows = self.passing(query);
        let factor = query["group"][0].as_str();
        let mut groups: BTreeMap<Option<String>, Vec<&Row>> = BTreeMap::new();
        for row in &rows {
            let value = factor.and_then(|column| self.value(query, row, column));
            groups.entry(value.map(|value| written(&value))).or_default().push(row);
        }
        let folds: Vec<(String, Value)> = query["fold"]
            .as_object()
            .into_iter()
            .flatten()
            .flat_map(|(column, ops)| ops.as_array().expect("a list").iter().map(|op| (column.clone(), op.clone())))
            .collect();
        let group = |(_, rows): (&Option<String>, &Vec<&Row>)| {
            let key = factor.map_or(json!("*"), |column| self.key(column, self.value(query, rows[0], column).as_ref()));
            let label = |(column, op): &(String, Value)| format!("{}({column})", op[0].as_str().expect("text"));
            let mut cells: Vec<(String, Value)> =
                folds.iter().map(|fold| (label(fold), self.fold(query, rows, &fold.0, &fold.1))).collect();
            // Beside the cells: how many values each column has, which a zero in a cell hides.
            for column in folds.iter().map(|(column, _)| column).collect::<BTreeSet<_>>() {
                let values = rows.iter().filter(|row| self.value(query, row, column).is_some()).count();
                cells.push((format!("#{column}"), json!(values)));
            }
            Group { key, count: rows.len() as u64, cells }
        };
        let all: Vec<Group> = groups.iter().map(group).collect();
        let initial = (rows.len() as u64, all.len() as u64);
        let mut kept: Vec<Group> = all.into_iter().filter(|group| self.kept(query, group, &folds)).collect();
        let having = (kept.iter().map(|group| group.count).sum(), kept.len() as u64);
        kept.sort_by(|a, b| {
            for term in query["order"].as_array().into_iter().flatten() {
                let name = term["name"].as_str().expect("a name");
                let place = |group| self.place(group, &folds, name);
                let compared = order(place(a).as_ref(), place(b).as_ref());
                let compared = if term["ordering"] == "descending" { compared.reverse() } else { compared };
                if compared.is_ne() {
                    return compared;
                }
            }
            let key = |group: &Group| Some(group.key.clone()).filter(|key| key != "*");
            b.count.cmp(&a.count).then_with(|| order(key(a).as_ref(), key(b).as_ref()))
        });
        let mut groups = Self::page(query, &kept);
        groups.iter_mut().for_each(|group| group.cells.truncate(folds.len()));
        Aggregation { groups, initial, having }
    }

    /// The answer to a select of these columns.
    pub(super) fn select(&self, query: &Value, columns: &[String]) -> Selection {
        let mut rows = self.passing(query);
        rows.sort_by(|a, b| {
            for term in query["order"].as_array().into_iter().flatten() {
                let name = term["name"].as_str().expect("a name");
                let compared = order(self.value(query, a, name).as_ref(), self.value(query, b, name).as_ref());
                let compared = if term["ordering"] == "descending" { compared.reverse() } else { compared };
                if compared.is_ne() {
                    return compared;
                }
            }
            Ordering::Equal
        });
        let total = rows.len() as u64;
        let shown = |row: &&Row| {
            let cell = |column: &String| {
                let value = self.value(query, row, column);
                let is_number = matches!(self.kind(column), Kind::Number | Kind::Bit);
                let cell = match value {
                    None if is_number => json!(0),
                    None => Value::Null,
                    Some(value) if is_number => match number(&value) {
                        Some(n) if n.fract() == 0.0 => json!(n as i64),
                        Some(n) => json!(n),
                        None => json!(written(&value)),
                    },
                    Some(value) => json!(written(&value)),
                };
                (column.clone(), cell)
            };
            (row["_tx"].as_u64().expect("a number"), columns.iter().map(cell).collect())
        };
        Selection { rows: Self::page(query, &rows).iter().map(shown).collect(), total }
    }
}

#[test]
fn the_plain_evaluator_counts_by_hand_made_numbers() {
    let row = |tx: u64, level: Value, age: Value| match json!({"_tx": tx, "level": level, "age": age}) {
        Value::Object(row) => row,
        _ => panic!("written as an object"),
    };
    let rows = vec![row(1, json!("a"), json!(5)), row(2, json!("b"), json!(7)), row(3, json!("a"), Value::Null)];
    let plain = Plain { rows, kinds: BTreeMap::from([("age".to_owned(), Kind::Number), ("_tx".to_owned(), Kind::Number)]) };
    let found = plain.aggregate(&json!({"group": ["level"], "fold": {"age": [["sum"], ["tail"]], "_tx": [["object"]]}}));
    let cells =
        |values: [Value; 3]| ["sum(age)", "tail(age)", "object(_tx)"].map(str::to_owned).into_iter().zip(values).collect::<Vec<_>>();
    let group = |key: &str, count, values| Group { key: json!(key), count, cells: cells(values) };
    let groups = vec![group("a", 2, [json!(["5"]), json!(["5"]), json!(["3"])]), group("b", 1, [json!(["7"]), json!(["7"]), json!(["2"])])];
    assert_eq!(found, Aggregation { groups, initial: (3, 2), having: (3, 2) });
    let some = plain.select(
        &json!({"filter": [{"age": [["at-least", "0x6"]]}, {"level": [["equal", "a"]], "age": [["is-not-set"]]}]}),
        &["age".to_owned()],
    );
    assert_eq!(some.rows.iter().map(|(tx, values)| (*tx, values["age"].clone())).collect::<Vec<_>>(), [(2, json!(7)), (3, json!(0))]);
}
