//! Target of Prometheus' remote write: the protobuf message is read here by its wire rules alone.

use crate::push::{Sample, Store, check};

/// The laws of `push` for the one form there is.
pub(crate) fn remote_write(input: &[u8]) -> String {
    check(
        input,
        &[Store {
            adapter: "remote_write",
            fields: r#"{"url": "https://prometheus.example.com/api/v1/write", "bearer": "t0ken"}"#,
            frame_lines: usize::MAX,
            bytes_max: 1 << 20,
            read: |_, body| fields(body).into_iter().map(series).collect(),
        }],
    )
}

/// One field of a message: its number and content.
enum Content<'a> {
    Varint(u64),
    Fixed([u8; 8]),
    Bytes(&'a [u8]),
}

type Field<'a> = (u64, Content<'a>);

fn fields(mut message: &[u8]) -> Vec<Field<'_>> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message);
        let content = match tag & 7 {
            0 => Content::Varint(varint(&mut message)),
            1 => Content::Fixed(take(&mut message, 8).try_into().expect("eight bytes")),
            2 => {
                let length = varint(&mut message) as usize;
                Content::Bytes(take(&mut message, length))
            }
            other => panic!("the wire type {other}"),
        };
        fields.push((tag >> 3, content));
    }
    fields
}

fn series((number, content): Field<'_>) -> Sample {
    let (1, Content::Bytes(message)) = (number, content) else { panic!("the field {number} of a request") };
    let (mut labels, mut samples) = (Vec::new(), Vec::new());
    for (number, content) in fields(message) {
        let Content::Bytes(message) = content else { panic!("the field {number} of a series") };
        match number {
            1 => labels.push(label(message)),
            2 => samples.push(sample(message)),
            other => panic!("the field {other} of a series"),
        }
    }
    assert!(labels.windows(2).all(|pair| pair[0].0 < pair[1].0), "labels are sorted, each once: {labels:?}");
    for (name, value) in &labels {
        let start = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        assert!(start && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') && !value.is_empty(), "{name:?}={value:?}");
        assert!(name == "__name__" || !name.starts_with("__"), "the label {name:?}");
    }
    let name = &labels.iter().find(|(name, _)| name == "__name__").expect("a name").1;
    let start = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    assert!(start && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "the name {name:?}");
    let [(value, millis)] = samples[..] else { panic!("{} samples", samples.len()) };
    Sample { series: format!("{labels:?}"), value, secs: millis / 1_000 }
}

fn label(message: &[u8]) -> (String, String) {
    match &fields(message)[..] {
        [(1, Content::Bytes(name)), (2, Content::Bytes(value))] => (utf8(name), utf8(value)),
        other => panic!("a label of {} fields", other.len()),
    }
}

fn sample(message: &[u8]) -> (f64, u64) {
    let (mut value, mut millis) = (0.0, 0);
    for field in fields(message) {
        match field {
            (1, Content::Fixed(bytes)) => value = f64::from_le_bytes(bytes),
            (2, Content::Varint(number)) => millis = number,
            (other, _) => panic!("the field {other} of a sample"),
        }
    }
    (value, millis)
}

fn utf8(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).expect("UTF-8").to_owned()
}

fn take<'a>(message: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, rest) = message.split_at_checked(length).expect("as many bytes as the length says");
    *message = rest;
    taken
}

fn varint(message: &mut &[u8]) -> u64 {
    let mut number = 0;
    for at in 0..10 {
        let byte = take(message, 1)[0];
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            return number;
        }
    }
    panic!("a varint of more than ten bytes")
}
