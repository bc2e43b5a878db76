//! The faulting callstack: which frames of a report count, and how a frame is written so that builds of one program agree.
//!
//! The same written frames are shown in `callstack` and hashed into the fingerprint, so equal callstacks always have equal
//! fingerprints. Backtrace rewrites frames by rules that are not public; its fingerprints can be imitated, not matched.

use crate::Limits;
use crate::cursor::Cursor;
use crate::json::string;
use std::borrow::Cow;
use std::collections::HashMap;

/// The frames of the faulting thread, innermost first.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Stack<'a> {
    /// Every frame: its function, else its library.
    pub(crate) frames: Vec<Cow<'a, str>>,
    /// The functions that are named.
    pub(crate) functions: Vec<Cow<'a, str>>,
    /// Source files, where the report tells them apart from libraries.
    pub(crate) files: Vec<Cow<'a, str>>,
    /// Libraries, or what an SDK puts in their place.
    pub(crate) modules: Vec<Cow<'a, str>>,
}

impl<'a> Stack<'a> {
    /// Takes each list while its text stays within the length of a value.
    pub(crate) fn of(frames: Vec<Frame<'a>>, source_code: Option<&'a str>, limits: &Limits) -> Stack<'a> {
        let paths = source_paths(source_code, &frames, limits);
        let mut stack = Stack::default();
        for list in [&mut stack.frames, &mut stack.functions, &mut stack.modules] {
            list.reserve(frames.len());
        }
        let mut rooms = [(); 3].map(|()| Room::of(limits.value_bytes));
        let [functions, files, modules] = &mut rooms;
        for frame in frames {
            if frame.named {
                functions.put(&frame.written, &mut stack.functions);
            }
            if let Some(file) = frame.path.as_ref().or_else(|| paths.get(frame.source.as_deref()?)) {
                files.put(file, &mut stack.files);
            }
            if let Some(module) = &frame.library {
                modules.put(module, &mut stack.modules);
            }
            stack.frames.push(frame.written);
        }
        stack
    }
}

/// A list of frames as the `callstack` attributes hold it: compact JSON text with one key.
pub(crate) fn frame_text(frames: &[Cow<'_, str>]) -> String {
    let mut text = String::with_capacity(16 + frames.iter().map(|frame| frame.len() + 3).sum::<usize>());
    text.push_str("{\"frame\":[");
    for (at, frame) in frames.iter().enumerate() {
        text.push_str(if at == 0 { "\"" } else { ",\"" });
        if is_plain(frame) {
            text.push_str(frame);
        } else {
            let escaped = serde_json::to_string(frame).expect("a text can be written as JSON");
            text.push_str(&escaped[1..escaped.len() - 1]);
        }
        text.push('"');
    }
    text.push_str("]}");
    text
}

/// Whether JSON writes a text as it is, as of the report's own text is known: what was borrowed stood there without an escape.
#[expect(clippy::ptr_arg, reason = "whether a text is borrowed is what is asked")]
fn is_plain(text: &Cow<'_, str>) -> bool {
    matches!(text, Cow::Borrowed(_))
}

/// What is left of the bound on a list's text. One long path may be named by every frame, so without it a small report could make a
/// huge list.
struct Room(usize);

#[expect(clippy::ptr_arg, reason = "whether a text is borrowed is what is asked")]
impl Room {
    fn of(text_bytes_max: usize) -> Room {
        Room(text_bytes_max.saturating_sub(frame_text(&[]).len()))
    }

    /// Whether one more text fits, with its quotes, its comma and the longest spelling of its escapes. When one does not, none does any more.
    fn take(&mut self, text: &Cow<'_, str>) -> bool {
        // Many frames may name one text: it is not gone through again where its length says enough.
        if text.len() > self.0 {
            self.0 = 0;
            return false;
        }
        let escaped = |byte| match byte {
            0..0x20 => 6,
            b'"' | b'\\' => 2,
            _ => 1,
        };
        let bytes = if is_plain(text) { text.len() } else { text.bytes().map(escaped).sum() };
        let left = self.0.checked_sub(3 + bytes);
        self.0 = left.unwrap_or(0);
        left.is_some()
    }

    fn put<'a>(&mut self, text: &Cow<'a, str>, list: &mut Vec<Cow<'a, str>>) {
        if self.take(text) {
            list.push(text.clone());
        }
    }
}

/// A frame of the main thread.
#[derive(Debug, PartialEq)]
pub(crate) struct Frame<'a> {
    written: Cow<'a, str>,
    /// Whether by a function.
    named: bool,
    library: Option<Cow<'a, str>>,
    path: Option<Cow<'a, str>>,
    source: Option<Cow<'a, str>>,
}

/// Reads the stack of the main thread, whose id is raw JSON, else of the first thread that is marked as faulting.
///
/// Frames are taken while their text stays within the length of a value: the rest of a runaway recursion tells nothing new, and hashed
/// with it would part reports that belong together.
pub(crate) fn main_frames<'a>(threads: &mut Cursor<'a>, main_thread: Option<&str>, limits: &Limits) -> Vec<Frame<'a>> {
    // python sends the id as text, others as a number; keys are text in any case.
    let main_thread = main_thread.map(|raw| string(raw).unwrap_or(Cow::Borrowed(raw)));
    let (mut main, mut faulting) = (Vec::new(), Vec::new());
    threads.object(|id, thread| {
        if main_thread.as_deref() == Some(&*id) {
            main = Vec::new();
            thread.object(|name, value| {
                if name == "stack" {
                    main = read_frames(value, limits);
                }
            });
        } else if faulting.is_empty() {
            let (mut stack, mut fault) = (None, false);
            thread.object(|name, value| match &*name {
                "stack" => stack = Some(value.raw()),
                "fault" => fault = value.raw() == "true",
                _ => {}
            });
            if let Some(stack) = stack.filter(|_| fault) {
                faulting = read_frames(&mut Cursor::new(stack, limits.depth), limits);
            }
        }
    });
    if main.is_empty() { faulting } else { main }
}

/// Frames of a stack, for most of them.
const USUAL_FRAMES: usize = 24;

fn read_frames<'a>(stack: &mut Cursor<'a>, limits: &Limits) -> Vec<Frame<'a>> {
    let mut frames = Vec::with_capacity(USUAL_FRAMES);
    let mut room = Room::of(limits.value_bytes);
    stack.array(|value| {
        let Some(frame) = read_frame(value, limits) else { return true };
        let fits = room.take(&frame.written);
        if fits {
            frames.push(frame);
        }
        fits
    });
    frames
}

/// One frame, or `None` when there is nothing to call it by. A name longer than a value stays as it was sent, and fits into no list.
fn read_frame<'a>(frame: &mut Cursor<'a>, limits: &Limits) -> Option<Frame<'a>> {
    let (mut function, mut library, mut path, mut source) = (None, None, None, None);
    frame.object(|name, value| {
        let place = match &*name {
            "funcName" => &mut function,
            "library" => &mut library,
            // The older node SDK writes `path` in place of `library`; it is a source file.
            "path" => &mut path,
            "sourceCode" => &mut source,
            _ => return,
        };
        *place = value.string().filter(|text| !text.chars().all(char::is_whitespace));
    });
    let written = match (&function, &library, &path) {
        (Some(function), _, _) if function.len() > limits.value_bytes => function.clone(),
        (Some(function), _, _) => written_function(function),
        (None, Some(place), _) | (None, None, Some(place)) => trimmed(place, trim),
        (None, None, None) => return None,
    };
    Some(Frame { written, named: function.is_some(), library, path, source })
}

/// A text without white space around it. Most have none, as is plain by their ends.
fn trim(text: &str) -> &str {
    match text.as_bytes() {
        [first, .., last] if first.is_ascii_graphic() && last.is_ascii_graphic() => text,
        _ => text.trim(),
    }
}

/// A part of a text, without a copy where the text is not one itself.
fn trimmed<'a>(text: &Cow<'a, str>, part: impl for<'t> Fn(&'t str) -> &'t str) -> Cow<'a, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(part(text)),
        Cow::Owned(text) => Cow::Owned(part(text).to_owned()),
    }
}

/// The paths of the source files that the frames refer to, by their ids.
fn source_paths<'a>(source_code: Option<&'a str>, frames: &[Frame<'a>], limits: &Limits) -> HashMap<Cow<'a, str>, Cow<'a, str>> {
    let mut wanted: HashMap<&str, Option<Cow<'a, str>>> =
        frames.iter().filter_map(|frame| Some((frame.source.as_deref()?, None))).collect();
    if wanted.is_empty() {
        return HashMap::new();
    }
    Cursor::new(source_code.unwrap_or("{}"), limits.depth).object(|id, file| {
        if let Some(found) = wanted.get_mut(&*id) {
            file.object(|name, value| {
                if name == "path" {
                    *found = value.string().filter(|path| !path.is_empty());
                }
            });
        }
    });
    wanted.into_iter().filter_map(|(id, path)| Some((Cow::Owned(id.to_owned()), path?))).collect()
}

/// A function's name without what changes from build to build: template arguments, line numbers and offsets, the numbers
/// that compilers give to anonymous things, the marks of cloned functions.
fn written_function<'a>(name: &Cow<'a, str>) -> Cow<'a, str> {
    let plain = |name: &Cow<'a, str>| trimmed(name, without_suffixes);
    if memchr::memchr3(b'<', b'$', b'#', name.as_bytes()).is_none() {
        return plain(name);
    }
    plain(&Cow::Owned(without_anonymous_numbers(&without_template_arguments(name.trim()))))
}

fn without_suffixes(name: &str) -> &str {
    let mut written = trim(name);
    while let Some(shorter) = without_suffix(written) {
        written = shorter;
    }
    written
}

/// Removes `<...>` where it follows a name: `Vec<int>::push` is `Vec::push`. Elsewhere it is a name itself (`<module>`,
/// `Object.<anonymous>`, `Foo.<init>`) or part of an operator, and stays.
fn without_template_arguments(name: &str) -> String {
    let mut kept = String::with_capacity(name.len());
    let mut depth = 0usize;
    let mut previous = ' ';
    for c in name.chars() {
        let opens = c == '<' && (depth > 0 || previous.is_alphanumeric() || previous == '_') && !kept.ends_with("operator");
        if opens {
            depth += 1;
        } else if depth > 0 {
            // An arrow inside the arguments closes nothing.
            depth -= usize::from(c == '>' && previous != '-');
        } else {
            kept.push(c);
        }
        previous = c;
    }
    // Brackets that do not pair are no template arguments.
    if depth > 0 { name.to_owned() } else { kept }
}

/// Removes the numbers in `Outer$1.run`, `lambda$main$0`, `{closure#2}` and `$_7`, where the number ends its word.
fn without_anonymous_numbers(name: &str) -> String {
    let mut kept = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(at) = rest.find(['$', '#']) {
        kept.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        let digits = tail.strip_prefix('_').unwrap_or(tail);
        let after = digits.trim_start_matches(|c: char| c.is_ascii_digit());
        let ends_word = !after.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        if after.len() < digits.len() && ends_word && !kept.is_empty() {
            rest = after;
        } else {
            kept.push_str(&rest[at..=at]);
            rest = tail;
        }
    }
    kept.push_str(rest);
    kept
}

/// The marks that compilers put, after a dot, behind the name of a function they cloned or split.
const CLONE_MARKS: [&str; 6] = ["isra", "constprop", "part", "cold", "llvm", "lto_priv"];

/// The name without one more suffix: `:12` (a line), `+31` or `+0x1f` (an offset), `::h0123456789abcdef` (Rust's old
/// mangling), ` [clone ...]` or a clone's mark with or without its number. `None` when there is no more.
///
/// A name may have as many suffixes as letters, so only those bytes are looked at that the suffix has, and a few before it.
fn without_suffix(name: &str) -> Option<&str> {
    let decimal = before_digits(name, 10);
    let clone = name.strip_suffix(']').and_then(|name| name.rsplit_once(" [clone ")).map(|(stem, _)| stem);
    let hexadecimal = before_digits(name, 16);
    let offset = hexadecimal.and_then(|stem| stem.strip_suffix("+0x"));
    let hash = hexadecimal.and_then(|stem| stem.strip_suffix("::h")).filter(|stem| name.len() - stem.len() == 19);
    let line = decimal.and_then(|stem| stem.strip_suffix(['+', ':'])).filter(|stem| !stem.ends_with(':'));
    let unnumbered = decimal.and_then(|stem| stem.strip_suffix('.')).unwrap_or(name);
    let mark = || CLONE_MARKS.iter().find_map(|mark| unnumbered.strip_suffix(mark)?.strip_suffix('.'));
    let stem = clone.or(offset).or(hash).or(line).or_else(mark)?.trim_end();
    (!stem.is_empty()).then_some(stem)
}

/// What is before the digits that end the name, if any do.
fn before_digits(name: &str, radix: u32) -> Option<&str> {
    let others = name.bytes().rposition(|byte| !char::from(byte).is_digit(radix)).map_or(0, |at| at + 1);
    (others < name.len()).then(|| &name[..others])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn functions_are_written_alike_across_builds() {
        for (sent, written) in [
            ("loadLevel", "loadLevel"),
            ("std::vector<int, std::allocator<int>>::push_back", "std::vector::push_back"),
            ("core::ptr::drop_in_place<alloc::vec::Vec<u8>>", "core::ptr::drop_in_place"),
            ("call<void (*)(int) -> bool>(x)", "call(x)"),
            ("operator<", "operator<"),
            ("Point::operator<<", "Point::operator<<"),
            ("Point::operator<=>", "Point::operator<=>"),
            ("Point::operator->", "Point::operator->"),
            ("a<b", "a<b"),
            ("<module>", "<module>"),
            ("<T as core::ops::Drop>::drop", "<T as core::ops::Drop>::drop"),
            ("Object.<anonymous>", "Object.<anonymous>"),
            ("Foo.<init>", "Foo.<init>"),
            ("outer.<locals>.inner", "outer.<locals>.inner"),
            ("Function.executeUserEntryPoint [as runMain]", "Function.executeUserEntryPoint [as runMain]"),
            ("com.acme.Level$1.run", "com.acme.Level.run"),
            ("com.acme.Level$Loader.run", "com.acme.Level$Loader.run"),
            ("lambda$main$0", "lambda$main"),
            ("main::{closure#0}", "main::{closure}"),
            ("$_0", "$_0"),
            ("f$1x", "f$1x"),
            ("jquery$", "jquery$"),
            ("tick:12", "tick"),
            ("tick:12:5", "tick"),
            ("A::1", "A::1"),
            ("memcpy+0x1f", "memcpy"),
            ("memcpy+31", "memcpy"),
            ("md5", "md5"),
            ("0xdeadbeef", "0xdeadbeef"),
            ("vec2.add", "vec2.add"),
            ("do_it.isra.0", "do_it"),
            ("do_it.constprop.0.cold", "do_it"),
            ("do_it.llvm.1234567890", "do_it"),
            ("do_it [clone .isra.3]", "do_it"),
            ("core::panicking::panic::h0123456789abcdef", "core::panicking::panic"),
            ("crate::hash", "crate::hash"),
            (".cold", ".cold"),
            (":7", ":7"),
            (" spaced ", "spaced"),
            ("é<ü>", "é"),
        ] {
            assert_eq!(written_function(&Cow::Borrowed(sent)), written, "{sent}");
            assert_eq!(written_function(&Cow::Owned(sent.to_owned())), written, "{sent}");
        }
    }

    /// So many suffixes take a fraction of a second, and would take hours if each looked at all of the name.
    #[test]
    fn a_name_of_nothing_but_suffixes_is_written_in_the_time_that_reading_it_takes() {
        let began = Instant::now();
        for suffix in
            [":1", "+7", "+0x1f", " [clone ]", " [clone .cold]", ".cold", ".isra.0", ".lto_priv.12", "::h0123456789abcdef", ".cold :1 "]
        {
            let name = format!("a{}", suffix.repeat((1 << 20) / suffix.len()));
            assert_eq!(written_function(&Cow::Borrowed(&*name)), "a", "{suffix}");
        }
        // Of these none is a suffix, and each begins like one.
        for piece in ["0", "f", ".", ":", "::h", "+0x", "[clone ", ".1", "]", "<", "a<", "$1", "$1x", "#_", "operator<"] {
            let name = format!("a{}", piece.repeat((1 << 20) / piece.len()));
            assert!(!written_function(&Cow::Borrowed(&*name)).is_empty(), "{piece}");
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    }

    #[test]
    fn a_name_that_is_longer_than_a_value_ends_its_list_as_it_was_sent() {
        let threads = |bytes: usize| {
            format!(r#"{{"m":{{"stack":[{{"funcName":"in"}},{{"funcName":"a{}"}},{{"funcName":"out"}}]}}}}"#, ":1".repeat(bytes / 2))
        };
        let frames = |threads: &str| read(threads, Some("\"m\""), None, 1_000).frames.join(" ");
        assert_eq!(frames(&threads(998)), "in a out");
        assert_eq!(frames(&threads(1_000)), "in");
    }

    #[test]
    fn a_path_that_fits_into_no_list_is_not_gone_through_for_each_frame() {
        let source = format!(r#"{{"s":{{"path":"\u0070{}"}}}}"#, "p".repeat(8 << 20));
        let threads = format!(r#"{{"m":{{"stack":[{}{{}}]}}}}"#, r#"{"funcName":"f","sourceCode":"s"},"#.repeat(8_000));
        let began = Instant::now();
        assert!(read(&threads, Some("\"m\""), Some(&source), 1 << 15).files.is_empty());
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }

    fn read<'a>(threads: &'a str, main_thread: Option<&str>, source_code: Option<&'a str>, value_bytes: usize) -> Stack<'a> {
        let limits = Limits { value_bytes, ..Limits::DEFAULT };
        Stack::of(main_frames(&mut Cursor::new(threads, limits.depth), main_thread, &limits), source_code, &limits)
    }

    fn frames<'a>(threads: &'a str, main_thread: Option<&str>) -> Vec<Cow<'a, str>> {
        read(threads, main_thread, None, 1 << 15).frames
    }

    #[test]
    fn the_main_thread_counts_else_the_first_faulting_one() {
        let threads = r#"{"7":{"stack":[{"funcName":"seven"}]},"8":{"fault":true,"stack":[{"funcName":"eight"}]},
            "9":{"fault":true,"stack":[{"funcName":"nine"}]},"0":{"stack":[]}}"#;
        for (main_thread, expected) in [
            (Some("\"7\""), &["seven"][..]),
            (Some("7"), &["seven"]),
            (Some("\"none\""), &["eight"]),
            (Some("\"0\""), &["eight"]),
            (Some("{}"), &["eight"]),
            (None, &["eight"]),
        ] {
            assert_eq!(frames(threads, main_thread), expected, "{main_thread:?}");
        }
        for odd in ["[]", "null", "{}", r#"{"7":[]}"#, r#"{"7":{"stack":{}}}"#, r#"{"7":{"stack":[1,null,[],{"line":"3"}]}}"#] {
            assert!(frames(odd, Some("7")).is_empty(), "{odd}");
        }
    }

    #[test]
    fn frames_fall_back_to_their_library_and_find_their_files() {
        let threads = r#"{"m":{"stack":[
            {"funcName":"inner","sourceCode":"s1"},{"funcName":"","library":"libart.so"},{"line":3},
            {"funcName":"old","path":"node_old.cjs"},{"funcName":"old","path":"node_old.cjs"}]}}"#;
        let stack = read(threads, Some("\"m\""), Some(r#"{"s1":{"text":"...","path":"Demo.java"},"s2":{"path":"x"}}"#), 1 << 15);
        assert_eq!(stack.frames, ["inner", "libart.so", "old", "old"]);
        assert_eq!(stack.functions, ["inner", "old", "old"]);
        assert_eq!(stack.files, ["Demo.java", "node_old.cjs", "node_old.cjs"]);
        assert_eq!(stack.modules, ["libart.so"]);
        assert_eq!(frame_text(&stack.modules), r#"{"frame":["libart.so"]}"#);
    }

    #[test]
    fn lists_are_bounded_so_a_runaway_recursion_is_cut_at_its_outer_end() {
        let long = "p".repeat(1 << 20);
        let source = format!(r#"{{"s":{{"path":"{long}"}}}}"#);
        let named = format!(r#"{{"m":{{"stack":[{}{{}}]}}}}"#, r#"{"funcName":"\u0001","library":"\"","sourceCode":"s"},"#.repeat(9_000));
        let stack = read(&named, Some("\"m\""), Some(&source), 1 << 15);
        assert!(stack.files.is_empty() && stack.frames.len() > 3_000);
        for list in [&stack.frames, &stack.functions, &stack.modules] {
            assert!(frame_text(list).len() <= 1 << 15);
        }
        let many = |times: usize| format!(r#"{{"m":{{"stack":[{}{{}}]}}}}"#, r#"{"funcName":"again"},"#.repeat(times));
        let (many, fewer) = (many(100_000), many(50_000));
        let stack = read(&many, Some("\"m\""), None, 1_000);
        assert!(frame_text(&stack.frames).len() <= 1_000);
        assert_eq!(stack, read(&fewer, Some("\"m\""), None, 1_000));
        assert!(stack.frames.len() > 100);
    }
}
