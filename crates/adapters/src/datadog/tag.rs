//! Tags that Datadog keeps as they are sent. It lower-cases tags, replaces what it does not know and cuts the rest, all without a word
//! (metric-stores 2.7), so whatever it would change is changed here, where a mark can keep two values apart.

use crate::names::{self, Clean, Plain, Speller};
use model::Label;

/// Longest tag, key and colon included, in characters.
const TAG_CHARS_MAX: usize = 200;
/// Longest key that is made here; a mark may follow it.
const KEY_CHARS_MAX: usize = names::NAME_CHARS_MAX - names::MARK_CHARS;
/// `__other__` and `__empty__` as Datadog would keep them.
const OTHER: &str = "_other";
const EMPTY: &str = "_empty";
/// Keys that set the series' host or device, and with the host what is billed.
const TAKEN_KEYS: [&str; 2] = ["host", "device"];
/// Keys that begin so become resources of the series.
const TAKEN_START: &str = "dd.internal";

/// What a value may hold anywhere. `_` and `:` are cut in some places.
pub(crate) const PLAIN: Plain = Plain::without(b" !\"#$%&'()*+,:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`{|}~");

/// `key:value`.
pub(super) fn text(key: &str, label: &Label, speller: &mut Speller) -> String {
    let mut value = Vec::new();
    write(key, label, speller, &mut value);
    format!("{key}:{}", String::from_utf8_lossy(&value))
}

/// Appends the value of a tag with this key.
pub(super) fn write(key: &str, label: &Label, speller: &mut Speller, out: &mut Vec<u8>) {
    let chars_max = TAG_CHARS_MAX - key.chars().count() - 1;
    match label {
        Label::Other => out.extend_from_slice(OTHER.as_bytes()),
        Label::Text(raw) if raw.is_empty() => out.extend_from_slice(EMPTY.as_bytes()),
        label => speller.write(label, chars_max, &PLAIN, |raw| value(raw, chars_max), names::as_it_is, out),
    }
}

/// A tag's key: a letter first, no colon.
pub(super) fn key(raw: &str) -> String {
    let node = names::node(&raw.to_lowercase(), |c| is_tag_char(c) && c != ':');
    let mut key = node.trim_matches('_').to_owned();
    if !key.starts_with(char::is_alphabetic) || TAKEN_KEYS.contains(&key.as_str()) || key.starts_with(TAKEN_START) {
        key.insert_str(0, "label_");
    }
    if key.chars().count() > KEY_CHARS_MAX {
        let stem = names::cut(&key, KEY_CHARS_MAX - names::MARK_CHARS).trim_end_matches('_');
        key = format!("{stem}{}", names::mark(raw.as_bytes()));
    }
    key
}

/// A tag's value, so short that a mark can follow it where it needs one.
pub(crate) fn value(raw: &str, chars_max: usize) -> Clean<'_> {
    let mut text = String::with_capacity(raw.len());
    for c in raw.chars().flat_map(char::to_lowercase) {
        let c = if is_tag_char(c) { c } else { '_' };
        if c != '_' || !text.ends_with('_') {
            text.push(c);
        }
    }
    text.truncate(text.trim_end_matches(['_', ':']).len());
    let start = names::cut(&text, chars_max - names::MARK_CHARS);
    // A mark begins with `_`, which may not stand beside another.
    if text == raw && !start.ends_with('_') && !matches!(raw, OTHER | EMPTY) {
        return Clean::Faithful(raw.into());
    }
    Clean::Lossy(start.trim_end_matches('_').to_owned())
}

/// What stays as it is in a tag. Of letters beyond ASCII only those are taken that every version of Unicode's tables calls letters:
/// a sign that the vendor does not take for one becomes `_`, and two values become one.
fn is_tag_char(c: char) -> bool {
    match c {
        'a'..='z' | '0'..='9' | '_' | '-' | ':' | '.' | '/' => true,
        // Latin, Greek, Cyrillic, Hebrew, Arabic, kana, Chinese characters, Hangul.
        '\u{df}'..='\u{24f}'
        | '\u{386}'..='\u{3ff}'
        | '\u{400}'..='\u{481}'
        | '\u{48a}'..='\u{52f}'
        | '\u{5d0}'..='\u{5ea}'
        | '\u{621}'..='\u{63a}'
        | '\u{641}'..='\u{64a}'
        | '\u{1e00}'..='\u{1eff}'
        | '\u{3041}'..='\u{3096}'
        | '\u{30a1}'..='\u{30fa}'
        | '\u{4e00}'..='\u{9fa5}'
        | '\u{ac00}'..='\u{d7a3}' => c.is_alphabetic() && c.to_lowercase().eq([c]),
        _ => false,
    }
}
