//! How much one submission may hold. Every bound is checked before the memory it bounds is taken.

/// The bounds of one submission, after decompression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A whole submission in bytes: the limit for the server's body reader and for [`crate::inflate`].
    pub total_bytes: usize,
    /// The report and the form fields together, in bytes: everything in a submission that is not a file.
    pub body_bytes: usize,
    /// One dump or attachment, in bytes.
    pub attachment_bytes: usize,
    /// How deep arrays and objects of a report may nest; its outermost object is the first level.
    pub depth: usize,
    /// Attributes sent with one report: repeats and those without a value count, those the server derives do not.
    pub attributes: usize,
    /// One attribute's value in bytes, as it was sent.
    pub value_bytes: usize,
    /// Parts of one multipart body.
    pub parts: usize,
    /// The name of an attribute or attachment, in bytes.
    pub name_bytes: usize,
    /// How many times larger than its compressed form a body may get, once it is past `inflate_free_bytes`.
    pub inflate_ratio: usize,
    /// Size up to which a body may inflate whatever its ratio, in bytes: short texts of one letter are no attack.
    pub inflate_free_bytes: usize,
}

impl Limits {
    /// What a server starts with: 16 MiB for report and form, 32 MiB for each file, 64 MiB in all. The SDKs that bound
    /// their attachments stop at 10 MiB.
    pub const DEFAULT: Limits = Limits {
        total_bytes: 64 << 20,
        body_bytes: 16 << 20,
        attachment_bytes: 32 << 20,
        depth: 64,
        attributes: 1_000,
        value_bytes: 32 << 10,
        parts: 1_000,
        name_bytes: 256,
        inflate_ratio: 100,
        inflate_free_bytes: 64 << 10,
    };
}
