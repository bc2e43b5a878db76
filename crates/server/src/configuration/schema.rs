//! The JSON Schema of a configuration file, made from the adapters' own descriptions: a further adapter needs no edit here.

use super::FORMAT;
use super::document::{DOCUMENT_KEYS, METRIC_KEYS, PROJECT_KEYS, SET_KEYS};
use crate::routes::metric_sets::{SERIES_BUDGET, SERIES_BUDGET_MAX, ZERO_FOR_MAX};
use crate::routes::metric_stores::{COMMON, HORIZON_SECS, MAX_LABELS, PREFIX};
use adapters::{Description, Field, Kind};
use model::{AggregateOp, Operator, PathTemplate, Period, grammar};
use serde_json::{Map, Value as Json, json};

/// Every comparison.
const OPERATORS: [Operator; 12] = {
    use Operator::*;
    [
        Equal,
        NotEqual,
        AtLeast,
        AtMost,
        GreaterThan,
        LessThan,
        Contains,
        NotContains,
        RegularExpression,
        InverseRegularExpression,
        IsSet,
        IsNotSet,
    ]
};

/// The schema.
pub(crate) fn schema() -> Json {
    let adapters = adapters::descriptions();
    let metrics = map_of(json!({"$ref": "#/$defs/metric"}), "Metrics by name.");
    let set = object(&SET_KEYS, [metrics], &[], "A metric set: metrics that are attached to stores together.");
    let sets = map_of(nullable(set), "Metric sets by name.");
    let stores = map_of(json!({"$ref": "#/$defs/metric_store"}), "Metric stores by name.");
    let project = object(&PROJECT_KEYS, [sets, stores], &[], "A project; one that does not exist is made.");
    let version = json!({"const": FORMAT, "description": "The version of this format."});
    let mut root =
        object(&DOCUMENT_KEYS, [version, map_of(nullable(project), "Projects by name.")], &DOCUMENT_KEYS, "Configuration as code.");
    root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    root["title"] = json!("Crashmeter configuration");
    let mut definitions = Map::new();
    definitions.insert("metric".into(), metric());
    definitions.insert("query".into(), query());
    let references: Vec<Json> = adapters.iter().map(|one| json!({"$ref": format!("#/$defs/{}", one.name)})).collect();
    definitions.insert("metric_store".into(), json!({"oneOf": references, "description": "Where attached sets are exported to."}));
    definitions.insert("secret".into(), secret());
    for description in adapters {
        definitions.insert(description.name.to_owned(), store(description));
    }
    root["$defs"] = Json::Object(definitions);
    root
}

/// An object with exactly these properties.
fn object<const N: usize>(keys: &[&str; N], properties: [Json; N], required: &[&str], help: &str) -> Json {
    let properties: Map<String, Json> = keys.iter().map(|key| (*key).to_owned()).zip(properties).collect();
    json!({"type": "object", "description": help, "properties": properties, "required": required, "additionalProperties": false})
}

/// An object of names; nothing after the colon is an empty one.
fn map_of(value: Json, help: &str) -> Json {
    json!({
        "type": ["object", "null"], "description": help, "additionalProperties": value,
        "propertyNames": {"minLength": 1, "maxLength": 128, "pattern": "^[^/]+$"},
    })
}

fn nullable(mut object: Json) -> Json {
    object["type"] = json!(["object", "null"]);
    object
}

fn metric() -> Json {
    let zero_for = json!({
        "type": ["integer", "null"], "minimum": 1, "maximum": ZERO_FOR_MAX,
        "description": "Seconds for which a group without reports is still exported as 0; one period at least, by default max(1 h, 3 periods).",
    });
    let budget = json!({
        "type": ["integer", "null"], "minimum": 1, "maximum": SERIES_BUDGET_MAX, "default": SERIES_BUDGET,
        "description": "Most series; the rest becomes one exact __other__.",
    });
    object(&METRIC_KEYS, [json!({"$ref": "#/$defs/query"}), zero_for, budget], &METRIC_KEYS[..1], "A saved query.")
}

fn query() -> Json {
    let operand = json!({"type": ["string", "number", "boolean"]});
    let options = json!({"type": "object"});
    let term = json!({
        "type": "array", "minItems": 1, "maxItems": 3, "prefixItems": [{"enum": OPERATORS}, operand, options],
        "description": "Operator, value and perhaps options.",
    });
    let conditions = json!({"type": "array", "items": term});
    let words: Vec<&str> = AggregateOp::ALL.iter().map(|op| op.name()).chain(["head", "tail"]).collect();
    let aggregate = json!({"oneOf": [{"enum": words}, {"type": "array", "minItems": 1, "prefixItems": [{"enum": words}]}]});
    let filter = json!({
        "type": ["array", "null"], "items": {"type": "object", "additionalProperties": conditions},
        "description": "Alternatives; in each every condition must hold. None: every report.",
    });
    let group = json!({
        "type": ["array", "null"], "items": {"type": "string"}, "maxItems": grammar::MAX_GROUPS, "description": "Attributes to group by.",
    });
    let fold = json!({
        "type": "object", "minProperties": 1, "additionalProperties": {"type": "array", "minItems": 1, "items": aggregate},
        "description": "Aggregates by attribute; _tx stands for the report itself.",
    });
    object(&["filter", "group", "fold"], [filter, group, fold], &["fold"], "A query in the Backtrace grammar, without time.")
}

fn secret() -> Json {
    json!({
        "description": "A secret: ${NAME} from the environment, {file: PATH} beside this file, null to clear it. Left out, it is kept.",
        "oneOf": [
            {"type": "string", "pattern": "^\\$\\{[A-Za-z_][A-Za-z0-9_]*\\}$"},
            {"type": "object", "properties": {"file": {"type": "string"}}, "required": ["file"], "additionalProperties": false},
            {"type": "null"},
        ],
    })
}

/// A store of one adapter.
fn store(description: &Description) -> Json {
    let text_map = |description: &str| {
        json!({"type": "object", "additionalProperties": {"type": "string", "maxLength": 256}, "maxProperties": MAX_LABELS,
            "description": description})
    };
    let common = [
        json!({"const": description.name, "description": description.summary}),
        json!({"description": "Seconds between points, such as 60 or 1m.",
            "oneOf": [{"type": "integer", "minimum": 1, "maximum": Period::MAX_SECS}, {"type": "string", "pattern": "^[0-9]+[smh]?$"}]}),
        json!({"type": "array", "items": {"type": "string"}, "description": "Names of the metric sets attached."}),
        json!({"type": "string", "minLength": 1, "maxLength": 128, "default": PREFIX, "description": "First node of every series path."}),
        json!({"type": "string", "minLength": 1, "maxLength": 256, "default": PathTemplate::USUAL,
            "description": "Nodes of the path of a metric's series: text and {prefix}, {project}, {set}, {metric}, parted by dots."}),
        text_map("Labels added to every series."),
        text_map("Names of labels by the attribute that they come from, where they are to be others."),
        json!({"type": "integer", "minimum": 1, "maximum": HORIZON_SECS, "default": HORIZON_SECS,
            "description": "Longest time in seconds that points wait for a store that is down."}),
        json!({"type": "boolean", "default": true, "description": "Whether windows become due at all."}),
    ];
    let mut store = object(&COMMON, common, &["adapter", "period"], description.title);
    for field in description.fields.iter().filter(|field| !field.generated) {
        store["properties"][field.name] = own(field);
        if field.required {
            store["required"].as_array_mut().expect("a list").push(json!(field.name));
        }
    }
    store
}

/// A field of an adapter's own.
fn own(field: &Field) -> Json {
    let number = |most: u64| json!([{"type": "integer", "minimum": 1, "maximum": most}, {"type": "string", "pattern": "^[0-9]*$"}, {"type": "null"}]);
    let mut schema = match field.kind {
        Kind::Secret | Kind::SecretUrl => json!({"$ref": "#/$defs/secret"}),
        Kind::Text | Kind::Host | Kind::Certificates => json!({"type": ["string", "null"]}),
        Kind::Url => json!({"type": ["string", "null"], "format": "uri"}),
        Kind::Bool => json!({"type": ["boolean", "null"]}),
        Kind::Choice => json!({"enum": field.choices.iter().map(|choice| json!(choice)).chain([json!(null)]).collect::<Vec<_>>()}),
        Kind::Port => json!({"oneOf": number(u64::from(u16::MAX))}),
        Kind::Integer => json!({"oneOf": number(i32::MAX as u64)}),
    };
    schema["description"] = json!(field.help);
    if let Some(preset) = field.default {
        schema["default"] = json!(preset);
    }
    if !field.example.is_empty() {
        schema["examples"] = json!([field.example]);
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::configuration::yaml;
    use crate::routes::metric_stores::keys;

    /// As much of a validator as the schema needs; a keyword that it does not know fails the test.
    fn valid(schema: &Json, value: &Json, root: &Json) -> bool {
        let of = |schema: &Json| valid(schema, value, root);
        let text = || value.as_str().map(|text| text.chars().count() as u64);
        schema.as_object().expect("a schema is an object").iter().all(|(keyword, rule)| match keyword.as_str() {
            "description" | "title" | "default" | "examples" | "$schema" | "$defs" | "format" => true,
            "$ref" => of(root.pointer(rule.as_str().expect("text").trim_start_matches('#')).expect("what is referred to is there")),
            "const" => value == rule,
            "enum" => rule.as_array().expect("a list").contains(value),
            "oneOf" => rule.as_array().expect("a list").iter().filter(|one| of(one)).count() == 1,
            "type" => match rule {
                Json::Array(kinds) => kinds.iter().any(|kind| is(kind, value)),
                kind => is(kind, value),
            },
            "required" => value
                .as_object()
                .is_none_or(|map| rule.as_array().expect("a list").iter().all(|key| map.contains_key(key.as_str().expect("text")))),
            "properties" => value.as_object().is_none_or(|map| {
                rule.as_object().expect("a map").iter().all(|(key, schema)| map.get(key).is_none_or(|value| valid(schema, value, root)))
            }),
            "additionalProperties" => value.as_object().is_none_or(|map| {
                let more = map.iter().filter(|(key, _)| schema.get("properties").is_none_or(|known| known.get(key.as_str()).is_none()));
                let mut more = more.map(|(_, value)| value);
                if rule.is_boolean() { more.next().is_none() } else { more.all(|value| valid(rule, value, root)) }
            }),
            "propertyNames" => value.as_object().is_none_or(|map| map.keys().all(|key| valid(rule, &json!(key), root))),
            "items" => value.as_array().is_none_or(|list| list.iter().all(|value| valid(rule, value, root))),
            "prefixItems" => {
                let rules = rule.as_array().expect("a list");
                value.as_array().is_none_or(|list| list.iter().zip(rules).all(|(value, rule)| valid(rule, value, root)))
            }
            "minimum" => value.as_i64().is_none_or(|number| number >= rule.as_i64().expect("a number")),
            "maximum" => value.as_i64().is_none_or(|number| number <= rule.as_i64().expect("a number")),
            "minLength" => text().is_none_or(|length| length >= rule.as_u64().expect("a number")),
            "maxLength" => text().is_none_or(|length| length <= rule.as_u64().expect("a number")),
            "minItems" => value.as_array().is_none_or(|list| list.len() as u64 >= rule.as_u64().expect("a number")),
            "maxItems" => value.as_array().is_none_or(|list| list.len() as u64 <= rule.as_u64().expect("a number")),
            "minProperties" => value.as_object().is_none_or(|map| map.len() as u64 >= rule.as_u64().expect("a number")),
            "maxProperties" => value.as_object().is_none_or(|map| map.len() as u64 <= rule.as_u64().expect("a number")),
            "pattern" => value.as_str().is_none_or(|text| {
                let condition =
                    model::Condition::new("x", Operator::RegularExpression, model::Value::from(rule.as_str().expect("text")), false);
                condition.expect("a legal pattern").holds(Some(&model::Value::from(text)))
            }),
            other => panic!("the schema uses {other}, which this validator does not know"),
        })
    }

    fn is(kind: &Json, value: &Json) -> bool {
        match kind.as_str().expect("text") {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "null" => value.is_null(),
            "integer" => value.is_u64() || value.is_i64(),
            "number" => value.is_number(),
            other => panic!("there is no type {other}"),
        }
    }

    fn with_store(store: Json) -> Json {
        json!({"crashmeter": 1, "projects": {"p": {"metric_stores": {"s": store}}}})
    }

    #[test]
    fn the_example_in_the_docs_is_valid() {
        let page = include_str!("../../../../docs/configuration-as-code.md");
        let example = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
        let document = yaml::read(example).expect("legal YAML").json;
        let schema = schema();
        assert!(valid(&schema, &document, &schema));
    }

    #[test]
    fn what_the_schema_takes_and_refuses() {
        let schema = schema();
        let query = json!({"fold": {"_tx": [["count"]]}});
        let with_metric = |metric: Json| json!({"crashmeter": 1, "projects": {"p": {"metric_sets": {"s": {"metrics": {"m": metric}}}}}});
        for (document, legal) in [
            (json!({"crashmeter": 1, "projects": {}}), true),
            (json!({"crashmeter": 1, "projects": {"p": null}}), true),
            (json!({"crashmeter": 2, "projects": {}}), false),
            (json!({"projects": {}}), false),
            (json!({"crashmeter": 1, "projects": {"a/b": {}}}), false),
            (json!({"crashmeter": 1, "projects": {}, "more": 1}), false),
            (json!({"crashmeter": 1, "projects": {"p": {"metric_set": {}}}}), false),
            (with_metric(json!({"query": query})), true),
            (with_metric(json!({})), false),
            (with_metric(json!({"query": query, "zero_for": 0})), false),
            (with_metric(json!({"query": query, "series_budget": 100_001})), false),
            (with_metric(json!({"query": {"fold": {}}})), false),
            (with_metric(json!({"query": {"fold": {"_tx": [["range"]]}}})), false),
            (
                with_metric(
                    json!({"query": {"fold": {"_tx": ["head"]}, "filter": [{"a": [["equal", 1, {"case_insensitive": true}], ["is-set"]]}], "group": ["a"]}}),
                ),
                true,
            ),
            (with_metric(json!({"query": {"fold": {"_tx": ["count"]}, "filter": [{"a": [["like", 1]]}]}})), false),
            (with_store(json!({"adapter": "graphite", "period": "1m", "host": "h"})), true),
            (with_store(json!({"adapter": "graphite", "period": 60})), false),
            (with_store(json!({"adapter": "graphite", "period": 60, "host": "h", "port": "2004", "layout": "path", "tls": true})), true),
            (with_store(json!({"adapter": "graphite", "period": 60, "host": "h", "layout": "flat"})), false),
            (with_store(json!({"adapter": "graphite", "period": 60, "host": "h", "url": "http://h"})), false),
            (with_store(json!({"adapter": "graphite", "period": 0, "host": "h"})), false),
            (with_store(json!({"adapter": "nothing", "period": 60})), false),
            (with_store(json!({"adapter": "influxdb", "period": 60, "url": "http://h", "password": "${P}"})), true),
            (with_store(json!({"adapter": "influxdb", "period": 60, "url": "http://h", "password": {"file": "p"}})), true),
            (with_store(json!({"adapter": "influxdb", "period": 60, "url": "http://h", "password": "plain"})), false),
        ] {
            assert_eq!(valid(&schema, &document, &schema), legal, "{document}");
        }
    }

    #[test]
    fn every_adapter_is_in_it_with_every_field_that_may_be_set() {
        let schema = schema();
        for description in adapters::descriptions() {
            let properties = schema["$defs"][description.name]["properties"].as_object().expect("described");
            assert_eq!(properties.keys().map(String::as_str).collect::<Vec<_>>(), keys(description));
            for field in description.fields.iter().filter(|field| field.is_secret() && !field.generated) {
                assert_eq!(properties[field.name]["$ref"], "#/$defs/secret");
            }
        }
    }

    #[test]
    fn every_word_of_the_schema_is_one_of_the_grammar() {
        for operator in OPERATORS {
            assert!(grammar::parse(&json!({"filter": [{"a": [[operator, "x"]]}], "fold": {"_tx": ["count"]}})).is_ok(), "{operator:?}");
        }
        let words = schema()["$defs"]["query"]["properties"]["fold"]["additionalProperties"]["items"]["oneOf"][0]["enum"].clone();
        for word in words.as_array().expect("a list") {
            assert!(grammar::parse(&json!({"fold": {"n": [[word]]}})).is_ok(), "{word}");
        }
    }
}
