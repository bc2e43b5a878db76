//! Takes secrets out of what a store sends back, and makes its words fit to be shown. Some servers repeat the request in their
//! error pages, and answers are kept and shown to people who may not see the key.

use adapters::{HeaderText, HttpRequest};

/// Shorter texts are no secrets, and replacing them would garble answers.
const SECRET_BYTES_MIN: usize = 4;
/// Most of a foreign text that is worth showing (`metric-stores.md` 1.4).
const SHOWN_CHARS_MAX: usize = 300;
const MASK: &[u8] = b"***";

/// Everything in the request that an answer must not show: secret headers, with and without their scheme word and the user before a
/// key, and the URL's path and query, where Circonus and others carry a secret; of a path that is a key also its last piece alone.
pub(super) fn secrets(request: &HttpRequest) -> Vec<&[u8]> {
    let headers = request.headers.iter().filter_map(|(_, text)| match text {
        HeaderText::Secret(secret) => Some(secret.reveal()),
        HeaderText::Plain(_) => None,
    });
    let headers = headers.flat_map(|text| [Some(text), text.rsplit(' ').next(), text.rsplit([' ', ':']).next()]);
    let last = request.url.path_segments().and_then(|mut pieces| pieces.rfind(|piece| !piece.is_empty()));
    let texts = headers.chain([request.url.query(), Some(request.url.path()), last.filter(|_| request.secret_path)]).flatten();
    texts.map(str::as_bytes).filter(|text| text.len() >= SECRET_BYTES_MIN).collect()
}

/// `text` with every occurrence of every secret replaced.
pub(super) fn masked(mut text: Vec<u8>, secrets: &[&[u8]]) -> Vec<u8> {
    for secret in secrets {
        let mut clean = Vec::with_capacity(text.len());
        let mut rest = text.as_slice();
        while let Some(at) = rest.windows(secret.len()).position(|window| window == *secret) {
            clean.extend_from_slice(&rest[..at]);
            clean.extend_from_slice(MASK);
            rest = &rest[at + secret.len()..];
        }
        clean.extend_from_slice(rest);
        text = clean;
    }
    text
}

/// A foreign text on one line, without control characters, cut to a length that people read.
pub(super) fn printable(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Secret;

    #[test]
    fn keys_are_found_in_every_form_in_which_they_went_out() {
        let request = HttpRequest {
            method: "POST",
            url: "https://store.example/module/httptrap/abc/s3cret?token=tok3n".parse().expect("a URL"),
            secret_path: false,
            headers: vec![
                ("authorization", HeaderText::Secret(Secret::new("Bearer key-in-header"))),
                ("x-user-and-key", HeaderText::Secret(Secret::new("Bearer 12345:key-of-user"))),
                ("content-type", HeaderText::Plain("text/plain".into())),
            ],
            body: Vec::new(),
            ca_pem: None,
        };
        for (answer, expected) in [
            ("bad key key-in-header.", "bad key ***."),
            ("Authorization: Bearer key-in-header", "Authorization: ***"),
            ("key-in-headerkey-in-header", "******"),
            ("user 12345 has no key-of-user", "user 12345 has no ***"),
            ("12345:key-of-user", "***"),
            ("no such path /module/httptrap/abc/s3cret", "no such path ***"),
            ("?token=tok3n", "?***"),
            ("want text/plain", "want text/plain"),
            ("", ""),
        ] {
            let shown = masked(answer.as_bytes().to_vec(), &secrets(&request));
            assert_eq!(String::from_utf8(shown).expect("text"), expected);
        }
        for (path, secret_path, answer, expected) in [
            ("module/httptrap/abc/s3cret", true, "no check has the secret s3cret", "no check has the secret ***"),
            ("module/httptrap/abc/s3cret/", true, "s3cret? /module/httptrap/abc/s3cret/", "***? ***"),
            ("api/v1/write", false, "cannot write", "cannot write"),
        ] {
            let url = format!("https://store.example/{path}").parse().expect("a URL");
            let request = HttpRequest { url, secret_path, ..request.clone() };
            let shown = masked(answer.as_bytes().to_vec(), &secrets(&request));
            assert_eq!(String::from_utf8(shown).expect("text"), expected);
        }
    }

    #[test]
    fn what_is_shown_is_one_short_line() {
        assert_eq!(printable(b"a\r\nb\x1b[31m\xff"), "a  b [31m\u{fffd}");
        assert_eq!(printable("\u{e4}".repeat(1000).as_bytes()).chars().count(), SHOWN_CHARS_MAX);
    }
}
