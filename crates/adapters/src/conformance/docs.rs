//! The pages in docs/adapters show the kept bytes and name every field, so they cannot rot.

use super::{EXAMPLES, descriptions, golden};
use crate::Preset;
use std::path::PathBuf;

fn page_of(adapter: &str) -> String {
    let file: PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", "..", "docs", "adapters", &format!("{adapter}.md")].iter().collect();
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

#[test]
fn examples_are_the_bytes_on_file() {
    for example in EXAMPLES {
        let kept = std::fs::read_to_string(golden::file(example)).expect("a golden file");
        let page = page_of(example.adapter);
        let shown = page.split("```").skip(1).step_by(2).any(|block| block.split_once('\n').is_some_and(|(_, text)| text == kept));
        let shown = shown || page.contains(&format!("testdata/{}/{}.txt", example.adapter, example.name));
        assert!(shown, "docs/adapters/{}.md neither shows nor names {}.txt", example.adapter, example.name);
    }
    for description in descriptions() {
        let page = page_of(description.name);
        let shows_one = EXAMPLES.iter().filter(|example| example.adapter == description.name).any(|example| {
            let kept = std::fs::read_to_string(golden::file(example)).expect("a golden file");
            page.contains(&format!("```\n{kept}```"))
        });
        assert!(shows_one, "docs/adapters/{}.md shows no example", description.name);
    }
}

#[test]
fn every_field_is_named_with_its_default() {
    for description in descriptions() {
        let page = page_of(description.name);
        for field in description.fields {
            let default = match field.default {
                Some(Preset::Text(text)) => format!(" = `{text}`"),
                Some(Preset::Integer(number)) => format!(" = `{number}`"),
                Some(Preset::Flag(flag)) => format!(" = `{flag}`"),
                None => String::new(),
            };
            let expected = format!("| `{}`{default} |", field.name);
            assert!(page.contains(&expected), "docs/adapters/{}.md lacks {expected}", description.name);
        }
    }
}
