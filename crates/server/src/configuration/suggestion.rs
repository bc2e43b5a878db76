//! "Did you mean": the known word that is nearest to a misspelt one.

/// The nearest of some words, when it is near enough to be meant.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // One slip in a short word, about a third of a longer one.
    let most = (word.chars().count() / 3).clamp(1, 4);
    // A word much longer than any key is no slip, and comparing it would cost its length.
    let known = known.into_iter().filter(|one| word.len() <= 2 * one.len() + 4);
    let ranked = known.map(|one| (distance(word, one), one));
    ranked.filter(|(distance, _)| *distance <= most).min_by_key(|(distance, _)| *distance).map(|(_, one)| one)
}

/// A sentence's end: what was perhaps meant, or what there is.
pub(crate) fn hint(word: &str, known: &[&str]) -> String {
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("is not known here; did you mean {near}?"),
        None => format!("is not known here; there are {}", known.join(", ")),
    }
}

/// How many letters have to be put in, taken out, exchanged or swapped with the next (optimal string alignment), case aside.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.to_lowercase().chars().collect(), b.to_lowercase().chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let exchanged = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = exchanged.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in
            [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("ab", "ba", 1), ("abc", "ca", 3), ("URL", "url", 0)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn only_near_words_are_suggested() {
        let known = ["metric_sets", "metric_stores", "url", "host", "port"];
        for (word, expected) in [
            ("metric_set", Some("metric_sets")),
            ("metricstores", Some("metric_stores")),
            ("urls", Some("url")),
            ("hots", Some("host")),
            ("zebra", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
        assert_eq!(hint("pirate", &["port"]), "is not known here; there are port");
        assert_eq!(hint("prot", &["port"]), "is not known here; did you mean port?");
    }
}
