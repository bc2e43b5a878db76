//! How the path of a store's series is made: a text such as `{prefix}.{project}.{set}.{metric}`. It says which nodes there are, not
//! how a store spells them.

use serde::{Deserialize, Serialize};

/// Most nodes of a path.
const NODES_MAX: usize = 16;
/// Longest template in bytes.
const BYTES_MAX: usize = 256;

/// A checked template. Nodes are parted by dots and hold text and at most one placeholder, so that no two metrics ever fall together:
/// each has a path of as many nodes, with its set and its name whole and in their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathTemplate(Vec<Node>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    before: String,
    /// Position in [`PLACES`].
    place: Option<usize>,
    after: String,
}

/// What placeholders stand for, in the order of `PathTemplate::path`'s arguments.
const PLACES: [&str; 4] = ["prefix", "project", "set", "metric"];

impl PathTemplate {
    /// The text of the default.
    pub const USUAL: &'static str = "{prefix}.{project}.{set}.{metric}";

    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it, as words that follow the field's name.
    pub fn parse(text: &str) -> Result<PathTemplate, String> {
        if text.len() > BYTES_MAX || text.chars().any(char::is_control) {
            return Err(format!("must be at most {BYTES_MAX} bytes without control characters"));
        }
        let nodes: Vec<Node> = text.split('.').map(read_node).collect::<Result<_, _>>()?;
        if nodes.len() > NODES_MAX {
            return Err(format!("must have at most {NODES_MAX} nodes"));
        }
        for (at, name) in PLACES.iter().enumerate() {
            match nodes.iter().filter(|node| node.place == Some(at)).count() {
                0 if at < 2 => {}
                0 => return Err(format!("must hold {{{name}}}, or metrics would fall together")),
                1 => {}
                _ => return Err(format!("holds {{{name}}} more than once")),
            }
        }
        Ok(PathTemplate(nodes))
    }

    /// The nodes of a metric's path.
    pub fn path(&self, prefix: &str, project: &str, set: &str, metric: &str) -> Vec<String> {
        let values = [prefix, project, set, metric];
        let written = |node: &Node| format!("{}{}{}", node.before, node.place.map_or("", |at| values[at]), node.after);
        self.0.iter().map(written).collect()
    }
}

impl Default for PathTemplate {
    fn default() -> PathTemplate {
        PathTemplate::parse(PathTemplate::USUAL).expect("the default is sound")
    }
}

impl TryFrom<String> for PathTemplate {
    type Error = String;

    fn try_from(text: String) -> Result<PathTemplate, String> {
        PathTemplate::parse(&text)
    }
}

impl From<PathTemplate> for String {
    fn from(template: PathTemplate) -> String {
        let node =
            |node: Node| format!("{}{}{}", node.before, node.place.map_or(String::new(), |at| format!("{{{}}}", PLACES[at])), node.after);
        template.0.into_iter().map(node).collect::<Vec<_>>().join(".")
    }
}

fn read_node(text: &str) -> Result<Node, String> {
    if text.is_empty() {
        return Err("has an empty node".to_owned());
    }
    let plain = |text: &str| {
        if text.contains(['{', '}']) { Err(format!("has a stray brace or a second placeholder in {text:?}")) } else { Ok(text.to_owned()) }
    };
    let Some((before, rest)) = text.split_once('{') else {
        return Ok(Node { before: plain(text)?, place: None, after: String::new() });
    };
    let (name, after) = rest.split_once('}').ok_or_else(|| format!("has a brace without its end in {text:?}"))?;
    let known = || PLACES.map(|name| format!("{{{name}}}")).join(", ");
    let place = PLACES.iter().position(|place| *place == name).ok_or_else(|| format!("has {{{name}}}; there are {}", known()))?;
    Ok(Node { before: plain(before)?, place: Some(place), after: plain(after)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_says_which_nodes_a_path_has() {
        for (text, path) in [
            (PathTemplate::USUAL, vec!["c", "p.q", "s", "m"]),
            ("games.{project}.{set}.win-{metric}", vec!["games", "p.q", "s", "win-m"]),
            ("{set}.x{metric}y", vec!["s", "xmy"]),
        ] {
            let template = PathTemplate::parse(text).expect(text);
            assert_eq!(template.path("c", "p.q", "s", "m"), path, "{text}");
            assert_eq!(String::from(template), text);
        }
    }

    #[test]
    fn faults_are_told() {
        for (text, fault) in [
            ("", "empty node"),
            ("{set}..{metric}", "empty node"),
            ("{set}", "must hold {metric}"),
            ("{metric}", "must hold {set}"),
            ("{set}.{metric}.{metric}", "{metric} more than once"),
            ("{set}.{metric}{prefix}", "second placeholder"),
            ("{set}.{name}", "has {name}; there are {prefix}, {project}, {set}, {metric}"),
            ("{set.{metric}", "brace without its end"),
            ("{set}.metric}.{metric}", "stray brace"),
            ("{set}.{metric}\n", "control characters"),
            ("a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.{set}.{metric}", "16 nodes"),
        ] {
            let found = PathTemplate::parse(text).expect_err(text);
            assert!(found.contains(fault), "{text}: {found}");
        }
    }
}
