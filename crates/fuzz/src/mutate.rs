//! Makes new inputs out of old ones: flips, inserts, cuts, splices, words of the formats. The same seed makes the same inputs; nothing
//! here knows what an input means.

/// Longest input made, in bytes.
const INPUT_BYTES_MAX: usize = 8 << 10;
/// Most changes on the way from one input to the next.
const CHANGES_MAX: u64 = 6;

/// What the formats are made of, and what is known to break those who read them.
const WORDS: &[&[u8]] = &[
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\t",
    b"\0",
    b"\x01",
    b"\x02",
    b"\x1d",
    b"\x1e",
    b"\x1f",
    b"\x7f",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\\",
    b"\\\\",
    b"\\\"",
    b"\\n",
    b"\\u0000",
    b"\\ud800",
    b"\\ud83d\\ude00",
    b"\"",
    b"'",
    b"`",
    b"\"}",
    b"\" 1\nx 2\n",
    b",",
    b", ",
    b"=",
    b":",
    b";",
    b"&",
    b"%",
    b"%0a",
    b"+",
    b"#",
    b"# EOF\n",
    b"~",
    b"^",
    b"!",
    b"..",
    b".",
    b"_",
    b"__",
    b"-",
    b"--",
    b"|ST[",
    b"[",
    b"]",
    b"{",
    b"}",
    b"[[",
    b"{}",
    b"[]",
    b"null",
    b"true",
    b"false",
    b"0",
    b"-0",
    b"-0.0",
    b"1",
    b"1.",
    b"1e400",
    b"1e-400",
    b"5e-324",
    b"1e308",
    b"nan",
    b"inf",
    b"-inf",
    b"0x1f",
    b"9007199254740993",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"18446744073709551615",
    b"18446744073709551616",
    b"170141183460469231731687303715884105727",
    b"-170141183460469231731687303715884105728",
    b"1800000000",
    b"\xc2\xa0",
    b"\xc2\x85",
    b"\xc3\x9f",
    b"\xc3\xa4",
    b"\xc4\xb0",
    b"\xcc\x87",
    b"\xe2\x80\xa8",
    b"\xe2\x80\x8b",
    b"\xe2\x80\xae",
    b"\xef\xbf\xbd",
    b"\xf0\x9f\x98\x80",
    b"none",
    b"__other__",
    b"__empty__",
    b"_other",
    b"name",
    b"time",
    b"host",
    b"device",
    b"le",
    b"quantile",
    b"series",
    b"__name__",
    b"_x0a1b2c3d",
    b"_total",
    b"_window",
    b"_created",
    b"label_",
    b"value_",
    b"count",
    b"_tx",
    b"timestamp",
    b"application.version",
    b"version",
    b"\"equal\"",
    b"\"not-equal\"",
    b"\"at-least\"",
    b"\"less-than\"",
    b"\"contains\"",
    b"\"regular-expression\"",
    b"\"inverse-regular-expression\"",
    b"\"is-set\"",
    b"\"is-not-set\"",
    b"[[\"unique\"]]",
    b"[[\"count\"]]",
    b"{\"case_insensitive\":true}",
    b"\"filter\":",
    b"\"group\":",
    b"\"fold\":",
    b"\"attributes\":",
    b"\"body\":",
    b"\"uuid\":",
    b"upload_file",
    b"attachment_",
    b"MDMP",
    b"Content-Disposition: form-data; name=",
    b"filename*=UTF-8''%e4",
    b"unable to parse '",
    b"dropped=",
    b"partial write",
    b"\"line_number\":",
    b"\"error\":",
];

/// A source of choices that a seed decides (xorshift64*, Vigna 2016).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The seed is the text's.
    pub(crate) fn of(text: &str) -> Random {
        Random(text.bytes().fold(0x9e37_79b9_7f4a_7c15, |seed, byte| (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)) | 1)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    fn place(&mut self, length: usize) -> usize {
        self.below(length as u64 + 1) as usize
    }

    /// A range within a length, mostly a short one.
    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.place(length);
        let most = if self.below(4) == 0 { length - start } else { (length - start).min(12) };
        start..start + self.place(most)
    }

    pub(crate) fn of_list<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len() as u64) as usize]
    }
}

/// A new input made of one or two of those in the pool, which is not empty.
pub(crate) fn mutated(pool: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let one = |random: &mut Random| &pool[random.below(pool.len() as u64) as usize];
    let mut input = one(random).clone();
    for _ in 0..=random.below(CHANGES_MAX) {
        let at = random.place(input.len());
        match random.below(12) {
            0 | 1 if at < input.len() => input[at] ^= 1 << random.below(8),
            2 if at < input.len() => input[at] = random.below(256) as u8,
            3 => input.insert(at, random.below(256) as u8),
            4 => drop(input.drain(random.range(input.len()))),
            5 => {
                let again = input[random.range(input.len())].to_vec();
                input.splice(at..at, again);
            }
            6 => {
                let other = one(random);
                let from = random.place(other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            7 => {
                let other = one(random);
                let piece = other[random.range(other.len())].to_vec();
                input.splice(random.range(input.len()), piece);
            }
            8 => {
                let word = random.of_list(WORDS);
                input.splice(random.range(input.len()), word.iter().copied());
            }
            _ => {
                let word = random.of_list(WORDS);
                input.splice(at..at, word.iter().copied());
            }
        }
        input.truncate(INPUT_BYTES_MAX);
    }
    input
}
