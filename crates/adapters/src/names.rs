//! How raw names and labels are told apart once they are written in a store's narrower alphabet. One place for all adapters.
//!
//! Two rules hold whatever arrives. A label *value* is written the same in every window, whoever else is there: either nothing
//! is lost, or a mark made of its raw text follows it, so no value can take over or rename another's series. *Names* are
//! what people configured: they stay plain, and get a mark only when two of them fall together.

use crate::NOTES_MAX;
use crate::push::Note;
use model::{Label, Series, Shape};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

/// How a missing value is shown (design.md 2).
pub(crate) const MISSING: &str = "none";
/// How the series beyond the budget are shown together (design.md 2).
pub(crate) const OTHER: &str = "__other__";
/// How an empty text is shown: Prometheus takes an empty label for a missing one, Graphite and InfluxDB refuse it.
pub(crate) const EMPTY: &str = "__empty__";
/// Longest label value in characters (metric-stores 3.2 and 5.6).
pub(crate) const VALUE_CHARS_MAX: usize = 200;
/// Longest node of a name, longest label name, in characters.
pub(crate) const NAME_CHARS_MAX: usize = 100;
/// Characters of a mark.
pub(crate) const MARK_CHARS: usize = 10;
/// Label that keeps two series apart whose names and labels are written alike.
pub(crate) const SERIES_LABEL: &str = "series";
/// Raw text shown in a note, in characters.
const NOTE_CHARS_MAX: usize = 200;
/// Why a point is left out that no spelling can keep apart.
pub(crate) const TWIN: &str = "another series of the batch has the same name and labels";

/// A text in a store's alphabet.
pub(crate) enum Clean<'a> {
    /// No other text is written like this.
    Faithful(Cow<'a, str>),
    /// Something was replaced.
    Lossy(String),
}

impl<'a> Clean<'a> {
    /// The characters of `raw` with those that `keep` refuses replaced by `_`.
    pub(crate) fn replacing(raw: &'a str, keep: impl Fn(char) -> bool) -> Clean<'a> {
        if raw.chars().all(&keep) {
            return Clean::Faithful(Cow::Borrowed(raw));
        }
        Clean::Lossy(raw.chars().map(|c| if keep(c) { c } else { '_' }).collect())
    }
}

/// The bytes that a store takes in a label's value as they are: printable ASCII without what the store escapes, replaces or cuts.
pub(crate) struct Plain([bool; 256]);

impl Plain {
    /// Printable ASCII but for these.
    pub(crate) const fn without(special: &[u8]) -> Plain {
        let mut plain = [false; 256];
        let mut byte = b' ';
        while byte <= b'~' {
            plain[byte as usize] = true;
            byte += 1;
        }
        let mut at = 0;
        while at < special.len() {
            plain[special[at] as usize] = false;
            at += 1;
        }
        Plain(plain)
    }

    /// Whether a text of such bytes is neither too long nor one that might stand for something else, so that it is written as it is.
    fn holds(&self, text: &[u8], chars_max: usize) -> bool {
        let might_be_taken = matches!(text, [] | [b'_', b'_', ..] | b"none" | [.., b'_', b'x', _, _, _, _, _, _, _, _]);
        !might_be_taken && text.len() <= chars_max && text.iter().all(|byte| self.0[usize::from(*byte)])
    }
}

/// Appends a text as it is: for stores that escape nothing.
pub(crate) fn as_it_is(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(text.as_bytes());
}

/// Ten characters that stand for a raw text: `_x` and 32 bits of its SHA-256. They are legal in every store's names.
pub(crate) fn mark(raw: &[u8]) -> String {
    let digest = Sha256::digest(raw);
    format!("_x{:02x}{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2], digest[3])
}

fn is_marked(text: &str) -> bool {
    let digits = text.len().checked_sub(MARK_CHARS).and_then(|at| text.get(at..)).and_then(|end| end.strip_prefix("_x"));
    digits.is_some_and(|digits| digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

/// The first characters of a text.
pub(crate) fn cut(text: &str, chars_max: usize) -> &str {
    if text.len() <= chars_max {
        return text;
    }
    text.char_indices().nth(chars_max).map_or(text, |(at, _)| &text[..at])
}

/// Whether a store may show the label with this value, read as the store spells it: `none` is a missing value and never a text.
pub fn may_be_value(written: &str, label: &Label) -> bool {
    match label {
        Label::Missing => written == MISSING,
        Label::Other => written == OTHER,
        Label::Text(raw) if raw.is_empty() => written == EMPTY,
        Label::Text(raw) if is_marked(written) => written.ends_with(&mark(raw.as_bytes())),
        Label::Text(raw) => written == raw && !is_taken(raw),
    }
}

/// Whether a store may show the attribute under this label name: letters and digits are never replaced, other characters may be.
pub fn may_be_name(written: &str, attribute: &str) -> bool {
    let plain = |name: &str| node(name, char::is_alphanumeric).to_lowercase();
    written == attribute || plain(written) == plain(attribute) || (is_marked(written) && written.ends_with(&mark(attribute.as_bytes())))
}

/// Whether a text is one that stores show for something else.
fn is_taken(raw: &str) -> bool {
    matches!(raw, MISSING | OTHER | EMPTY) || is_marked(raw)
}

/// One node of a name: characters that `keep` refuses become `_`, runs of `_` become one. A node that is too long, or of
/// which nothing readable is left, carries a mark.
pub(crate) fn node(raw: &str, keep: impl Fn(char) -> bool) -> String {
    let mut node = String::with_capacity(raw.len().min(NAME_CHARS_MAX));
    for c in cut(raw, NAME_CHARS_MAX).chars() {
        let c = if keep(c) { c } else { '_' };
        if c != '_' || !node.ends_with('_') {
            node.push(c);
        }
    }
    let too_long = cut(raw, NAME_CHARS_MAX).len() < raw.len();
    if too_long || !node.contains(char::is_alphanumeric) {
        node = format!("{}{}", cut(&node, NAME_CHARS_MAX - MARK_CHARS).trim_end_matches('_'), mark(raw.as_bytes()));
    }
    node
}

/// Spells labels and remembers what looks different from what people would expect.
#[derive(Default)]
pub(crate) struct Speller {
    notes: BTreeSet<Note>,
    /// The label names of the series before: mostly those of the next one too.
    keys: (Vec<String>, Rc<[String]>),
}

impl Speller {
    /// The text of a label's value, cut to a length. `clean` writes it in the store's alphabet.
    pub(crate) fn value<'a>(&mut self, label: &'a Label, chars_max: usize, clean: impl Fn(&'a str) -> Clean<'a>) -> Cow<'a, str> {
        let raw = match label {
            Label::Missing => return Cow::Borrowed(MISSING),
            Label::Other => return Cow::Borrowed(OTHER),
            Label::Text(raw) if raw.is_empty() => return Cow::Borrowed(EMPTY),
            Label::Text(raw) => raw,
        };
        let short = cut(raw, chars_max);
        let taken = is_taken(raw);
        let text = match clean(short) {
            Clean::Faithful(text) if !taken && short.len() == raw.len() => return text,
            Clean::Faithful(text) => text.into_owned(),
            Clean::Lossy(text) => text,
        };
        let written = format!("{}{}", cut(&text, chars_max - MARK_CHARS), mark(raw.as_bytes()));
        self.note(raw, &written);
        Cow::Owned(written)
    }

    /// Appends the value of a label as [`Speller::value`] gives it and `escape` then writes it. Most values are plain and need neither.
    pub(crate) fn write<'a>(
        &mut self,
        label: &'a Label,
        chars_max: usize,
        plain: &Plain,
        clean: impl Fn(&'a str) -> Clean<'a>,
        escape: impl FnOnce(&str, &mut Vec<u8>),
        out: &mut Vec<u8>,
    ) {
        match label {
            Label::Text(raw) if plain.holds(raw.as_bytes(), chars_max) => out.extend_from_slice(raw.as_bytes()),
            _ => escape(&self.value(label, chars_max, clean), out),
        }
    }

    /// The labels' names, no two alike. `clean` writes one in the store's alphabet. Where two fall together, the one that is
    /// written as it is keeps its spelling.
    pub(crate) fn keys(&mut self, labels: &[(String, Label)], clean: impl Fn(&str) -> String) -> Rc<[String]> {
        let known = self.keys.0.len() == labels.len() && self.keys.0.iter().zip(labels).all(|(known, (raw, _))| known == raw);
        if !known {
            let raws: Vec<&str> = labels.iter().map(|(raw, _)| raw.as_str()).collect();
            let written = distinct(&raws, |raw| clean(cut(raw, NAME_CHARS_MAX)));
            raws.iter().zip(&written).filter(|(_, written)| is_marked(written)).for_each(|(raw, written)| self.note(raw, written));
            self.keys = (raws.into_iter().map(str::to_owned).collect(), written.into());
        }
        self.keys.1.clone()
    }

    /// Remembers that `raw` is shown as `written`.
    pub(crate) fn note(&mut self, raw: &str, written: &str) {
        if self.notes.len() < NOTES_MAX {
            self.notes.insert(Note { raw: cut(raw, NOTE_CHARS_MAX).to_owned(), written: written.to_owned() });
        }
    }

    /// Everything remembered, in order.
    pub(crate) fn finish(self) -> Vec<Note> {
        self.notes.into_iter().collect()
    }
}

/// Writes each of a few names so that no two are alike.
pub(crate) fn distinct(raws: &[&str], clean: impl Fn(&str) -> String) -> Vec<String> {
    let plain: Vec<String> = raws.iter().map(|raw| clean(raw)).collect();
    let keeps = |at: usize| {
        let alone = plain.iter().enumerate().all(|(other, written)| other == at || *written != plain[at]);
        alone || (plain[at] == raws[at] && !raws[..at].contains(&raws[at]))
    };
    let mut written: Vec<String> = Vec::with_capacity(raws.len());
    for at in 0..raws.len() {
        let mut name = plain[at].clone();
        let mut salt = raws[at].as_bytes().to_vec();
        if !keeps(at) || raws[at].len() > NAME_CHARS_MAX {
            // A name given twice, or made to look like another's mark, is salted until it differs.
            loop {
                name = format!("{}{}", cut(&plain[at], NAME_CHARS_MAX - MARK_CHARS), mark(&salt));
                if !written.contains(&name) && !plain.contains(&name) {
                    break;
                }
                salt.push(b'+');
            }
        }
        written.push(name);
    }
    written
}

/// What a name is made from.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Name<'a> {
    /// Nodes from the root.
    pub(crate) path: &'a [String],
    /// Empty where the store keeps the aggregate apart from the name.
    pub(crate) aggregate: &'a str,
    /// What kind of number it is.
    pub(crate) shape: Shape,
}

impl<'a> Name<'a> {
    /// Path and aggregate of a series.
    pub(crate) fn of(series: &'a Series, shape: Shape) -> Name<'a> {
        Name { path: &series.path, aggregate: &series.aggregate, shape }
    }

    /// For people.
    pub(crate) fn shown(&self) -> String {
        let nodes = self.path.iter().map(String::as_str).chain([self.aggregate]).filter(|node| !node.is_empty());
        nodes.collect::<Vec<_>>().join(" / ")
    }

    /// Whether every store can write it as it is.
    fn is_plain(&self) -> bool {
        let mut nodes = self.path.iter().map(String::as_str).chain([self.aggregate]);
        nodes.all(|node| node.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric()))
    }
}

/// The distinct names of a batch's series, each with a place of its own, in the order of their first series.
#[derive(Default)]
pub(crate) struct Places<'a> {
    all: Vec<Name<'a>>,
    known: HashMap<Name<'a>, u32>,
    /// What came behind each name the last time: aggregates of a metric take turns.
    behind: Vec<u32>,
    last: u32,
}

impl<'a> Places<'a> {
    /// The place of the next series' name.
    pub(crate) fn of(&mut self, name: Name<'a>) -> usize {
        let guess = self.behind.get(self.last as usize).copied();
        let place = match guess {
            Some(place) if self.all[place as usize] == name => return self.moved(place),
            _ => *self.known.entry(name).or_insert(self.all.len() as u32),
        };
        if place as usize == self.all.len() {
            self.all.push(name);
            self.behind.push(place);
        }
        self.behind[self.last as usize] = place;
        self.moved(place)
    }

    /// The place of a name that has one.
    pub(crate) fn known(&self, name: &Name<'a>) -> Option<usize> {
        self.known.get(name).map(|place| *place as usize)
    }

    fn moved(&mut self, place: u32) -> usize {
        self.last = place;
        place as usize
    }
}

/// The names of a batch's series, each written once.
pub(crate) struct Names {
    /// For each series the place of its name in `written`.
    places: Vec<u32>,
    written: Vec<String>,
}

impl Names {
    /// Writes the names so that no two are alike. `write` gives the name, with a mark at its end where one is given, and behind it
    /// every other text that the name takes up. Of names that fall together, a single one that is plain stays as it is.
    pub(crate) fn new<'a>(
        names: impl Iterator<Item = Name<'a>>,
        write: impl Fn(&Name<'a>, &str) -> Vec<String>,
        speller: &mut Speller,
    ) -> Names {
        let mut known = Places::default();
        let places = names.map(|name| known.of(name) as u32).collect();
        let all = known.all;
        let claims: Vec<Vec<String>> = all.iter().map(|name| write(name, "")).collect();
        let mut owners: HashMap<&str, BTreeSet<usize>> = HashMap::new();
        for (at, texts) in claims.iter().enumerate() {
            for text in texts {
                owners.entry(text).or_default().insert(at);
            }
        }
        let mut clash = BTreeSet::new();
        for together in owners.into_values().filter(|together| together.len() > 1) {
            let plain: Vec<usize> = together.iter().copied().filter(|at| all[*at].is_plain()).collect();
            clash.extend(together.into_iter().filter(|at| plain != [*at]));
        }
        let mut written: Vec<String> = claims.into_iter().map(|mut texts| texts.swap_remove(0)).collect();
        for at in clash {
            let raw = [all[at].path.join("\0").as_bytes(), b"\0", all[at].aggregate.as_bytes(), &[all[at].shape as u8]].concat();
            written[at] = write(&all[at], &mark(&raw)).swap_remove(0);
            speller.note(&all[at].shown(), &written[at]);
        }
        Names { places, written }
    }

    /// The name of the series at a place in the batch.
    pub(crate) fn of(&self, at: usize) -> &str {
        &self.written[self.place(at)]
    }

    /// The place of that name among the distinct ones.
    pub(crate) fn place(&self, at: usize) -> usize {
        self.places[at] as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(c: char) -> bool {
        c == '_' || c.is_ascii_alphanumeric()
    }

    #[test]
    fn nodes_stay_readable_and_are_marked_only_where_they_cannot() {
        let long = "n".repeat(101);
        for (raw, written) in [
            ("Errors", "Errors".to_owned()),
            ("error.type", "error_type".to_owned()),
            ("a -- b", "a_b".to_owned()),
            ("__a__", "_a_".to_owned()),
            ("", mark(b"")),
            ("..", mark(b"..")),
            ("\u{418}\u{43c}\u{44f}", mark("\u{418}\u{43c}\u{44f}".as_bytes())),
            (&long[..100], long[..100].to_owned()),
            (&long, format!("{}{}", &long[..90], mark(long.as_bytes()))),
        ] {
            assert_eq!(node(raw, plain), written, "{raw:?}");
        }
    }

    #[test]
    fn a_mark_is_known_by_its_form() {
        for (text, marked) in
            [("a_x0a1b2c3d", true), ("_x00000000", true), ("a_x0a1b2c3", false), ("a_x0A1b2c3d", false), ("0a1b2c3d", false), ("", false)]
        {
            assert_eq!(is_marked(text), marked, "{text:?}");
        }
        assert!(is_marked(&mark(b"anything")));
        assert!(!is_marked("\u{e4}x0a1b2c3d"));
    }

    #[test]
    fn what_a_store_shows_leads_back_to_the_label() {
        let text = |raw: &str| Label::Text(raw.to_owned());
        let long = "x".repeat(VALUE_CHARS_MAX + 1);
        let labels =
            [Label::Missing, Label::Other, text(""), text("none"), text("__other__"), text("a"), text("a b"), text("a_b"), text(&long)];
        let mut speller = Speller::default();
        for label in &labels {
            let written = speller.value(label, VALUE_CHARS_MAX, |raw| Clean::replacing(raw, plain));
            let meant: Vec<&Label> = labels.iter().filter(|other| may_be_value(&written, other)).collect();
            assert_eq!(meant, [label], "{written}");
        }
        for (written, attribute, may) in [
            ("error_type", "error.type", true),
            ("error.type", "error.type", true),
            ("Error-Type", "error.type", true),
            (&format!("error_type{}", mark(b"error.type")), "error.type", true),
            ("errortype", "error.type", false),
            ("error_type", "error.types", false),
        ] {
            assert_eq!(may_be_name(written, attribute), may, "{written}");
        }
    }

    #[test]
    fn of_names_that_fall_together_the_one_written_as_it_is_keeps_its_spelling() {
        let clean = |raw: &str| node(raw, plain);
        for (raws, written) in [
            (&["a.b", "c"][..], vec!["a_b".to_owned(), "c".to_owned()]),
            (&["a.b", "a_b"], vec![format!("a_b{}", mark(b"a.b")), "a_b".to_owned()]),
            (&["a.b", "a-b"], vec![format!("a_b{}", mark(b"a.b")), format!("a_b{}", mark(b"a-b"))]),
            (&["a", "a"], vec!["a".to_owned(), format!("a{}", mark(b"a"))]),
            (&["a", "a", "a"], vec!["a".to_owned(), format!("a{}", mark(b"a")), format!("a{}", mark(b"a+"))]),
            (&[], vec![]),
        ] {
            assert_eq!(distinct(raws, clean), written, "{raws:?}");
        }
    }
}
