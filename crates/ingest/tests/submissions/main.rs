//! Whole submissions, as bytes: those that real clients sent, and those that hostile or broken ones could send.

mod fixture;
mod hostile;

use ingest::{Format, Limits, Parsed, Rejection, Submission};

/// Parses a body that is not multipart, with the default limits.
fn parse(format: Format, query: &[(&str, &str)], body: &[u8]) -> Result<Parsed, Rejection> {
    parse_typed(format, query, None, body)
}

fn parse_typed(format: Format, query: &[(&str, &str)], content_type: Option<&str>, body: &[u8]) -> Result<Parsed, Rejection> {
    let query: Vec<_> = query.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    ingest::parse(&Submission { format, content_type, query: &query, body }, &Limits::DEFAULT)
}

/// A multipart body of (disposition parameters, content) with the boundary `b`, and its Content-Type.
fn form(parts: &[(&str, &str)]) -> (&'static str, Vec<u8>) {
    let mut body = String::new();
    for (parameters, content) in parts {
        body += &format!("--b\r\nContent-Disposition: form-data; {parameters}\r\n\r\n{content}\r\n");
    }
    ("multipart/form-data; boundary=b", (body + "--b--\r\n").into_bytes())
}
