//! What the series of one metric have in common once they are written: the name and the labels' names, with room for the labels'
//! values. It is made once and then copied, so that a series costs little more than its values.

use model::Label;

/// The bytes of a series without its values, and which label's value belongs where.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Frame {
    text: Vec<u8>,
    /// Where in `text` a value belongs, and the place of its label.
    gaps: Vec<(usize, usize)>,
}

impl Frame {
    /// Appends bytes that every series has here.
    pub(crate) fn push(&mut self, text: impl AsRef<[u8]>) {
        self.text.extend_from_slice(text.as_ref());
    }

    /// The value of the label at this place belongs here.
    pub(crate) fn gap(&mut self, label: usize) {
        self.gaps.push((self.text.len(), label));
    }

    /// Appends a series: the frame, with `value` called where a value belongs, with the place of its label.
    pub(crate) fn write<'a>(
        &self,
        labels: &'a [(String, Label)],
        out: &mut Vec<u8>,
        mut value: impl FnMut(usize, &'a Label, &mut Vec<u8>),
    ) {
        let mut start = 0;
        for &(end, label) in &self.gaps {
            out.extend_from_slice(&self.text[start..end]);
            value(label, &labels[label].1, out);
            start = end;
        }
        out.extend_from_slice(&self.text[start..]);
    }
}

/// The frames of a batch: the newest of each name, as a metric's series mostly have the same labels.
#[derive(Default)]
pub(crate) struct Frames(Vec<Option<(Vec<String>, Frame)>>);

impl Frames {
    /// The frame of the name at a place, beside labels of these names. `make` writes it where there is none yet.
    pub(crate) fn of(&mut self, place: usize, labels: &[(String, Label)], make: impl FnOnce() -> Frame) -> &Frame {
        if self.0.len() <= place {
            self.0.resize_with(place + 1, || None);
        }
        let slot = &mut self.0[place];
        if !slot.as_ref().is_some_and(|(names, _)| have_names(labels, names)) {
            *slot = None;
        }
        let (_, frame) = slot.get_or_insert_with(|| (labels.iter().map(|(name, _)| name.clone()).collect(), make()));
        frame
    }
}

/// Whether the labels have these very names.
pub(crate) fn have_names(labels: &[(String, Label)], names: &[String]) -> bool {
    labels.len() == names.len() && labels.iter().zip(names).all(|((name, _), known)| name == known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(of: &[(&str, &str)]) -> Vec<(String, Label)> {
        of.iter().map(|(name, value)| ((*name).to_owned(), Label::Text((*value).to_owned()))).collect()
    }

    fn frame(name: &str, order: &[usize]) -> Frame {
        let mut frame = Frame::default();
        frame.push(name);
        for &label in order {
            frame.push(";");
            frame.gap(label);
        }
        frame.push("!");
        frame
    }

    fn written(frame: &Frame, labels: &[(String, Label)]) -> String {
        let mut out = b">".to_vec();
        frame.write(labels, &mut out, |at, label, out| {
            let Label::Text(text) = label else { panic!("a text") };
            out.extend_from_slice(format!("{at}{text}").as_bytes());
        });
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn values_stand_where_the_frame_has_room_for_them() {
        for (order, text) in [(&[][..], ">n!"), (&[0], ">n;0x!"), (&[1, 0], ">n;1y;0x!"), (&[1, 1], ">n;1y;1y!")] {
            assert_eq!(written(&frame("n", order), &labels(&[("a", "x"), ("b", "y")])), text);
        }
    }

    #[test]
    fn a_frame_is_made_anew_only_for_another_name_or_other_labels() {
        let mut frames = Frames::default();
        let (ab, ac, a) = (labels(&[("a", "1"), ("b", "2")]), labels(&[("a", "1"), ("c", "2")]), labels(&[("a", "1")]));
        let mut made = Vec::new();
        for (place, labels) in [(1, &ab), (0, &ab), (1, &ab), (0, &ab), (1, &ac), (1, &ac), (1, &a), (0, &ab), (1, &ab), (2, &labels(&[]))]
        {
            let mut is_new = false;
            let known = frames.of(place, labels, || {
                is_new = true;
                frame(&place.to_string(), &[])
            });
            assert_eq!(known, &frame(&place.to_string(), &[]));
            made.push(is_new);
        }
        assert_eq!(made, [true, true, false, false, true, false, true, false, true, true]);
    }
}
