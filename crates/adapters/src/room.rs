//! How much room to make for series that are still to be written, so that the text of those before them is not moved again and again. It
//! is guessed, once, from a few series: a guess that is too low costs a move, one that is too high memory that nobody uses.

use model::Label;
use std::ops::Range;

/// Series looked at before and after the guess.
const FEW: usize = 128;
/// What is made room for, of what is expected.
const MORE: f64 = 17.0 / 16.0;

/// What each of a few of the series behind `written` stands for of the bytes still to come, with its place, when those before took so
/// many `bytes`. A series counts by the letters of its labels, and all together get no more for a series than those before had; and then
/// a sixteenth more, as just too little costs a move of nearly all.
pub(crate) fn expected<'a>(
    bytes: usize,
    written: usize,
    count: usize,
    labels: impl Fn(usize) -> &'a [(String, Label)],
) -> impl Iterator<Item = (usize, usize)> {
    let few = |range: Range<usize>| {
        let step = range.len().div_ceil(FEW).max(1);
        range.step_by(step).map(move |at| (at, step))
    };
    let weight = move |(at, step): (usize, usize)| letters(labels(at)) as f64 * step as f64;
    let before: f64 = few(0..written).map(&weight).sum();
    let rest: f64 = few(written..count).map(&weight).sum();
    let most = rest * written as f64 / (count - written).max(1) as f64;
    few(written..count).map(move |one| (one.0, (weight(one) / before.max(most) * bytes as f64 * MORE) as usize))
}

/// Letters of labels, and some for what a series has beside them.
fn letters(labels: &[(String, Label)]) -> usize {
    let text = |label: &Label| if let Label::Text(text) = label { text.len() } else { 0 };
    16 + labels.iter().map(|(name, label)| name.len() + text(label)).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(bytes: usize, written: usize, lengths: &[usize]) -> usize {
        let labels: Vec<_> = lengths.iter().map(|length| vec![("l".to_owned(), Label::Text("x".repeat(*length)))]).collect();
        expected(bytes, written, lengths.len(), |at| &labels[at]).map(|(_, bytes)| bytes).sum()
    }

    #[test]
    fn series_alike_are_expected_to_take_as_much_as_those_before() {
        for (count, written) in [(1_600, 101), (40, 3), (10, 1), (2, 1)] {
            let expected = total(written * 60, written, &vec![20; count]);
            let needed = (count - written) * 60;
            assert!((needed..=needed * 10 / 9).contains(&expected), "{expected} for {needed}");
        }
        assert_eq!(total(60, 1, &[20]), 0);
    }

    #[test]
    fn short_series_behind_long_ones_are_expected_to_be_short_and_long_ones_behind_short_ones_no_longer() {
        let long_first: Vec<usize> = (0..1_600).map(|at| if at < 100 { 4_000 } else { 4 }).collect();
        assert!(total(100 * 4_050, 100, &long_first) < 1_500 * 60);
        let long_last: Vec<usize> = (0..1_600).map(|at| if at < 100 { 4 } else { 4_000 }).collect();
        assert!(total(100 * 54, 100, &long_last) <= 1_600 * 54);
        // Long ones where nobody looks, too, are multiplied no more than by the series to come.
        let hidden: Vec<usize> = (0..25_600).map(|at| if at < 1_600 && at % 13 != 0 { 4_000 } else { 4 }).collect();
        let bytes = hidden[..1_600].iter().map(|length| length + 50).sum();
        assert!(total(bytes, 1_600, &hidden) <= bytes * 16);
    }
}
