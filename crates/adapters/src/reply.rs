//! What a store answered, what that means, and the table that all HTTP adapters start from.

/// A store's answer. Failures of the network never come here: there is nothing to judge, the caller tries again.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// An HTTP answer.
    Http {
        /// Status code.
        status: u16,
        /// `Retry-After` in seconds, where it was given and could be read.
        retry_after: Option<u64>,
        /// The body, at most its first 64 KiB.
        body: Vec<u8>,
    },
    /// All lines were written and no reset came back.
    Tcp,
}

/// What an answer means for the points of the payload (design.md 4).
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// All points went in.
    Accepted {
        /// Whether the store vouches for them, or cannot say.
        confirmed: bool,
    },
    /// Some points were refused, the others went in.
    Partial {
        /// Refused points by their number in the batch, each with the store's reason.
        refused: Vec<(u32, String)>,
        /// How many more were refused without being named.
        unnamed: u64,
        /// The store's words.
        reason: String,
    },
    /// This payload can never go in.
    Drop {
        /// The store's words.
        reason: String,
    },
    /// The payload is too large: send its halves.
    Split,
    /// The store asks to be left alone for a while.
    Throttle {
        /// For how many seconds, where it says so.
        after_secs: Option<u64>,
        /// The store's words.
        reason: String,
    },
    /// Try the same bytes again later.
    Retry {
        /// The store's words.
        reason: String,
    },
    /// A person has to mend the settings, here or at the store.
    Config {
        /// What to look at.
        reason: String,
    },
}

/// Longest foreign text that is kept and shown (metric-stores 1.4), in characters.
const SHOWN_CHARS_MAX: usize = 300;

/// The common table (design.md 4, metric-stores 1.4). An adapter asks it for every answer that its vendor does not document
/// otherwise.
pub(crate) fn judge_http(status: u16, retry_after: Option<u64>, body: &[u8]) -> Verdict {
    let reason = reason(status, body);
    match status {
        200..=299 => Verdict::Accepted { confirmed: true },
        // Not followed: the credentials would go to whoever the answer names.
        300..=399 => Verdict::Config { reason: format!("{reason}; redirects are not followed, give the final URL") },
        401 | 403 | 404 => Verdict::Config { reason },
        408 => Verdict::Retry { reason },
        413 => Verdict::Split,
        429 | 503 => Verdict::Throttle { after_secs: retry_after, reason },
        400..=499 => Verdict::Drop { reason },
        _ => Verdict::Retry { reason },
    }
}

/// Status and the store's words, for people.
pub fn reason(status: u16, body: &[u8]) -> String {
    let text = shown(body);
    if text.is_empty() { format!("HTTP {status}") } else { format!("HTTP {status}: {text}") }
}

/// A foreign text on one line, without control characters, cut to a length that people read.
pub(crate) fn shown(text: &[u8]) -> String {
    // Only a bounded prefix can matter: a character has at most four bytes, and a run of blanks becomes one.
    let text = String::from_utf8_lossy(&text[..text.len().min(16 * SHOWN_CHARS_MAX)]);
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ").chars().take(SHOWN_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_common_table() {
        let word = |verdict: &Verdict| match verdict {
            Verdict::Accepted { confirmed: true } => "confirmed",
            Verdict::Accepted { confirmed: false } => "sent",
            Verdict::Partial { .. } => "partial",
            Verdict::Drop { .. } => "drop",
            Verdict::Split => "split",
            Verdict::Throttle { .. } => "throttle",
            Verdict::Retry { .. } => "retry",
            Verdict::Config { .. } => "config",
        };
        for (status, expected) in [
            (200, "confirmed"),
            (204, "confirmed"),
            (299, "confirmed"),
            (301, "config"),
            (307, "config"),
            (400, "drop"),
            (401, "config"),
            (403, "config"),
            (404, "config"),
            (408, "retry"),
            (413, "split"),
            (418, "drop"),
            (422, "drop"),
            (429, "throttle"),
            (500, "retry"),
            (502, "retry"),
            (503, "throttle"),
            (599, "retry"),
            (999, "retry"),
            (100, "retry"),
        ] {
            assert_eq!(word(&judge_http(status, None, b"x")), expected, "{status}");
        }
        let Verdict::Throttle { after_secs, .. } = judge_http(429, Some(7), b"") else { panic!("not throttled") };
        assert_eq!(after_secs, Some(7));
    }

    #[test]
    fn foreign_texts_are_short_and_on_one_line() {
        assert_eq!(reason(400, b"a\r\n\tb\x1b[0m\0 c "), "HTTP 400: a b [0m c");
        assert_eq!(reason(500, b" \n"), "HTTP 500");
        assert_eq!(shown("\u{e4}".repeat(9_000).as_bytes()), "\u{e4}".repeat(SHOWN_CHARS_MAX));
        assert_eq!(shown(b"\xff\xfe"), "\u{fffd}\u{fffd}");
    }
}
