//! A request's body in pieces. Splitting a body in halves and isolating a poison point are the same for every store, and never
//! change the bytes of a piece.

/// Version of the kept form; another one is not read.
const KEPT_FORM: u8 = 1;

/// A body: `head`, the pieces with `separator` between them, `tail`. A piece carries one or more points of the batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    head: Vec<u8>,
    separator: Vec<u8>,
    tail: Vec<u8>,
    /// All pieces, one behind the other.
    bytes: Vec<u8>,
    /// The points of all pieces, one behind the other.
    points: Vec<u32>,
    /// Where each piece ends in `bytes` and in `points`.
    ends: Vec<(u32, u32)>,
}

/// One piece of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// The points it carries, by their number in the batch.
    pub points: &'a [u32],
}

impl Payload {
    /// A body without pieces.
    pub fn new(head: &[u8], separator: &[u8], tail: &[u8]) -> Payload {
        Payload { head: head.to_vec(), separator: separator.to_vec(), tail: tail.to_vec(), ..Payload::default() }
    }

    /// Adds a piece at the end.
    ///
    /// # Panics
    /// When the body grows beyond 4 GiB: the encoder's limits are far below.
    pub fn push(&mut self, bytes: &[u8], points: &[u32]) {
        self.bytes.extend_from_slice(bytes);
        self.close(points);
    }

    /// Makes a piece of the bytes behind the last one.
    fn close(&mut self, points: &[u32]) {
        self.points.extend_from_slice(points);
        let end = |length: usize| u32::try_from(length).expect("a body below 4 GiB");
        self.ends.push((end(self.bytes.len()), end(self.points.len())));
    }

    /// The bytes of the body, before any compression.
    pub fn body(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.body_bytes());
        body.extend_from_slice(&self.head);
        if self.separator.is_empty() {
            body.extend_from_slice(&self.bytes);
        } else {
            for (at, piece) in self.pieces().enumerate() {
                body.extend_from_slice(if at == 0 { &[] } else { &self.separator });
                body.extend_from_slice(piece.bytes);
            }
        }
        body.extend_from_slice(&self.tail);
        body
    }

    /// Length of the body in bytes.
    pub fn body_bytes(&self) -> usize {
        self.head.len() + self.bytes.len() + self.separator.len() * self.ends.len().saturating_sub(1) + self.tail.len()
    }

    /// The pieces in order.
    pub fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        (0..self.ends.len()).map(|at| self.piece(at).expect("within bounds"))
    }

    /// The piece at a place.
    pub fn piece(&self, at: usize) -> Option<Piece<'_>> {
        let end = *self.ends.get(at)?;
        let start = if at == 0 { (0, 0) } else { self.ends[at - 1] };
        Some(Piece { bytes: &self.bytes[start.0 as usize..end.0 as usize], points: &self.points[start.1 as usize..end.1 as usize] })
    }

    /// How many pieces there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The points it carries, by their number in the batch.
    pub fn points(&self) -> impl Iterator<Item = u32> {
        self.points.iter().copied()
    }

    /// The same pieces in two bodies, or `None` when there is only one piece left.
    pub fn halves(&self) -> Option<(Payload, Payload)> {
        if self.len() < 2 {
            return None;
        }
        let mut halves = [(); 2].map(|()| Payload::new(&self.head, &self.separator, &self.tail));
        for (at, piece) in self.pieces().enumerate() {
            halves[usize::from(at >= self.len() / 2)].push(piece.bytes, piece.points);
        }
        let [left, right] = halves;
        Some((left, right))
    }

    /// A compact form to keep in the database.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut kept = Vec::with_capacity(64 + self.bytes.len() + 4 * self.points.len() + 8 * self.ends.len());
        kept.push(KEPT_FORM);
        for part in [&self.head, &self.separator, &self.tail] {
            put_length(&mut kept, part.len());
            kept.extend_from_slice(part);
        }
        put_length(&mut kept, self.len());
        for piece in self.pieces() {
            put_length(&mut kept, piece.bytes.len());
            put_length(&mut kept, piece.points.len());
            piece.points.iter().for_each(|point| kept.extend_from_slice(&point.to_le_bytes()));
        }
        kept.extend_from_slice(&self.bytes);
        kept
    }

    /// Reads the compact form back; `None` when it is damaged or of another version.
    pub fn from_bytes(kept: &[u8]) -> Option<Payload> {
        let (&form, mut rest) = kept.split_first()?;
        if form != KEPT_FORM {
            return None;
        }
        let mut parts = [const { Vec::new() }; 3];
        for part in &mut parts {
            let length = take_length(&mut rest)?;
            *part = take(&mut rest, length)?.to_vec();
        }
        let [head, separator, tail] = parts;
        let (mut points, mut ends, mut end) = (Vec::new(), Vec::new(), 0u32);
        for _ in 0..take_length(&mut rest)? {
            end = end.checked_add(u32::try_from(take_length(&mut rest)?).ok()?)?;
            for _ in 0..take_length(&mut rest)? {
                points.push(u32::from_le_bytes(*take(&mut rest, 4)?.first_chunk()?));
            }
            ends.push((end, u32::try_from(points.len()).ok()?));
        }
        (rest.len() == end as usize).then(|| Payload { head, separator, tail, bytes: rest.to_vec(), points, ends })
    }
}

/// A body that is no text, for people: lines of sixteen bytes with where they stand, their hexadecimal digits, and what of them can be
/// read.
pub fn dump(body: &[u8]) -> String {
    let line = |(at, bytes): (usize, &[u8])| {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x} ")).collect();
        let shown: String = bytes.iter().map(|&byte| if matches!(byte, b' '..=b'~') { char::from(byte) } else { '.' }).collect();
        format!("{:04x}  {digits:<48} {shown}\n", 16 * at)
    };
    body.chunks(16).enumerate().map(line).collect()
}

/// Collects pieces into bodies below a store's limits.
pub(crate) struct Packer {
    empty: Payload,
    pieces_max: usize,
    bytes_max: usize,
    full: Vec<Payload>,
    open: Payload,
}

impl Packer {
    /// Bodies like `empty`, each of at most so many pieces and bytes; a single piece above the limit gets a body of its own.
    pub(crate) fn new(empty: Payload, pieces_max: usize, bytes_max: usize) -> Packer {
        Packer { open: empty.clone(), empty, pieces_max, bytes_max, full: Vec::new() }
    }

    /// Adds the piece that `write` appends.
    pub(crate) fn push(&mut self, points: &[u32], write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.open.bytes.len();
        write(&mut self.open.bytes);
        let grown = self.open.body_bytes() + self.open.separator.len();
        if !self.open.is_empty() && (self.open.len() >= self.pieces_max || grown > self.bytes_max) {
            self.turn(start);
        }
        self.open.close(points);
    }

    /// Begins a new body with the bytes from here on. It has the room that the one before took: mostly they are alike.
    fn turn(&mut self, start: usize) {
        let (full, mut next) = (&mut self.open, self.empty.clone());
        next.bytes.reserve(full.bytes.len());
        next.points.reserve(full.points.len());
        next.ends.reserve(full.ends.len());
        next.bytes.extend_from_slice(&full.bytes[start..]);
        full.bytes.truncate(start);
        self.full.push(std::mem::replace(full, next));
    }

    pub(crate) fn finish(mut self) -> Vec<Payload> {
        if !self.open.is_empty() {
            self.full.push(self.open);
        }
        self.full
    }
}

fn put_length(kept: &mut Vec<u8>, length: usize) {
    kept.extend_from_slice(&u32::try_from(length).expect("a body below 4 GiB").to_le_bytes());
}

fn take_length(rest: &mut &[u8]) -> Option<usize> {
    Some(u32::from_le_bytes(*take(rest, 4)?.first_chunk()?) as usize)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json(pieces: &[(&str, &[u32])]) -> Payload {
        let mut payload = Payload::new(b"[", b",", b"]");
        pieces.iter().for_each(|(bytes, points)| payload.push(bytes.as_bytes(), points));
        payload
    }

    #[test]
    fn a_body_is_head_pieces_tail() {
        assert_eq!(json(&[]).body(), b"[]");
        assert_eq!(json(&[("1", &[0])]).body(), b"[1]");
        assert_eq!(json(&[("1", &[0]), ("23", &[1, 2])]).body(), b"[1,23]");
    }

    #[test]
    fn one_piece_has_no_halves() {
        assert_eq!(json(&[("1", &[0, 1])]).halves(), None);
        let (left, right) = json(&[("1", &[0]), ("2", &[1]), ("3", &[2])]).halves().expect("halves");
        assert_eq!((left.body(), right.body()), (b"[1]".to_vec(), b"[2,3]".to_vec()));
    }

    #[test]
    fn bytes_are_shown_in_lines() {
        assert_eq!(dump(b""), "");
        let shown = dump(b"\x0a0123456789abcde\xff");
        let first = "0000  0a 30 31 32 33 34 35 36 37 38 39 61 62 63 64 65  .0123456789abcde\n";
        assert_eq!(shown, format!("{first}0010  ff{}  .\n", " ".repeat(45)));
    }

    #[test]
    fn packing_closes_a_body_at_either_limit() {
        let pack = |pieces_max, bytes_max| {
            let mut packer = Packer::new(Payload::new(b"[", b",", b"]"), pieces_max, bytes_max);
            ["1", "22", "3", "4444444444"]
                .iter()
                .enumerate()
                .for_each(|(at, piece)| packer.push(&[at as u32], |out| out.extend_from_slice(piece.as_bytes())));
            packer.finish().iter().map(|payload| String::from_utf8(payload.body()).expect("text")).collect::<Vec<_>>()
        };
        assert_eq!(pack(2, 100), ["[1,22]", "[3,4444444444]"]);
        assert_eq!(pack(9, 6), ["[1,22]", "[3]", "[4444444444]"]);
        assert_eq!(pack(9, 5), ["[1]", "[22]", "[3]", "[4444444444]"].map(str::to_owned).to_vec().split_off(0));
    }

    proptest! {
        #[test]
        fn keeping_and_halving_lose_nothing(pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..9), prop::collection::vec(any::<u32>(), 0..4)), 0..12)) {
            let mut payload = Payload::new(b"{", b", ", b"}\n");
            pieces.iter().for_each(|(bytes, points)| payload.push(bytes, points));
            prop_assert_eq!(payload.body().len(), payload.body_bytes());
            prop_assert_eq!(Payload::from_bytes(&payload.to_bytes()), Some(payload.clone()));
            if let Some((left, right)) = payload.halves() {
                let joined: Vec<_> = left.pieces().chain(right.pieces()).collect();
                prop_assert_eq!(joined, payload.pieces().collect::<Vec<_>>());
                prop_assert!(!left.is_empty() && !right.is_empty());
            } else {
                prop_assert!(payload.len() < 2);
            }
        }

        #[test]
        fn damaged_bytes_are_not_read_as_a_payload_of_other_length(kept in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Some(payload) = Payload::from_bytes(&kept) {
                prop_assert_eq!(payload.to_bytes(), kept);
            }
        }

        #[test]
        fn a_cut_form_is_refused(cut in 0usize..40) {
            let kept = json(&[("1", &[0]), ("23", &[1, 2])]).to_bytes();
            prop_assert_eq!(Payload::from_bytes(&kept[..cut.min(kept.len() - 1)]), None);
        }
    }
}
