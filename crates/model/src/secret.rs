//! Text that must not be seen: keys, passwords, secret URLs.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A secret text. `Debug` hides it and there is no `Display`; `reveal` is the one way to the content, so that uses can be found.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The content. Call it only where the secret goes onto the wire or into the encrypted catalog.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}
