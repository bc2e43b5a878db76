//! The Retry-After header (RFC 9110 section 10.2.3): seconds, or an HTTP date. Pure; rubbish says nothing.

use jiff::civil::DateTime;
use jiff::fmt::strtime;

/// A store can ask for 1 s to 10 minutes (design.md 4); what it asks beyond is brought to the nearer end.
const ASKED_SECS: std::ops::RangeInclusive<u64> = 1..=600;

/// An HTTP date and its two obsolete forms, which recipients still have to read (RFC 9110 section 5.6.7). All are in GMT.
const DATE_FORMS: [&str; 3] = ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];

/// The seconds asked for. A date counts from the answer's own `date` where that can be read, because then a wrong clock on
/// either side does no harm, else from `now`, which is in GMT too.
pub(super) fn seconds(value: &str, date: Option<&str>, now: DateTime) -> Option<u64> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // Only a number too large for the type fails here, and that is more than the longest wait.
        return Some(within(value.parse().unwrap_or(u64::MAX)));
    }
    let from = date.and_then(http_date).unwrap_or(now);
    let wait = http_date(value)?.duration_since(from).as_secs();
    Some(within(u64::try_from(wait).unwrap_or(0)))
}

fn within(seconds: u64) -> u64 {
    seconds.clamp(*ASKED_SECS.start(), *ASKED_SECS.end())
}

fn http_date(text: &str) -> Option<DateTime> {
    DATE_FORMS.iter().find_map(|form| strtime::parse(form, text).ok()?.to_datetime().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_read_and_bounded_and_rubbish_is_not() {
        let now = jiff::civil::datetime(1994, 11, 6, 8, 49, 7, 0);
        let date = Some("Sun, 06 Nov 1994 08:48:37 GMT");
        for (value, date, expected) in [
            ("7", None, Some(7)),
            (" 7 ", None, Some(7)),
            ("0", None, Some(1)),
            ("600", None, Some(600)),
            ("601", None, Some(600)),
            ("1000000000000000000", None, Some(600)),
            ("99999999999999999999999999", None, Some(600)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", None, Some(30)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", date, Some(60)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some("rubbish"), Some(30)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", None, Some(30)),
            ("Sun Nov  6 08:49:37 1994", None, Some(30)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", None, Some(1)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", None, Some(600)),
            ("Fri, 31 Dec 9999", None, None),
            ("-1", None, None),
            ("+5", None, None),
            ("1.5", None, None),
            ("1e18", None, None),
            ("", None, None),
            ("soon", None, None),
            ("\u{663}", None, None),
        ] {
            assert_eq!(seconds(value, date, now), expected, "{value:?}");
        }
    }
}
