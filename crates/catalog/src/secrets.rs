//! Encryption of stored secrets: XChaCha20-Poly1305 under a key file, each ciphertext bound to the row it belongs to.
//!
//! A ciphertext moved to another row, field or project does not decrypt. The key is made on first start and never overwritten.

use crate::CatalogError;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{Key, KeyInit, XChaCha20Poly1305, XNonce};
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Bytes of nonce before each ciphertext; XChaCha's is long enough to be drawn at random.
const NONCE_BYTES: usize = 24;

pub(crate) struct Cipher(XChaCha20Poly1305);

impl Cipher {
    /// Opens the key file, or makes it where there is none and `may_create` says that nothing was encrypted before.
    pub(crate) fn open(path: &Path, may_create: bool) -> Result<Cipher, CatalogError> {
        let fault = |detail: String| CatalogError::Key { path: path.to_owned(), detail };
        match fs::read_to_string(path) {
            Ok(text) => {
                let mode = fs::metadata(path).map_err(|error| fault(error.to_string()))?.permissions().mode();
                if mode & 0o077 != 0 {
                    return Err(fault(format!("others may read it (mode {:o}); run chmod 600 on it", mode & 0o777)));
                }
                let bytes = hex::decode(text.trim()).map_err(|_| fault("is not hexadecimal".into()))?;
                let key: [u8; 32] = bytes.try_into().map_err(|_| fault("does not hold 32 bytes".into()))?;
                Ok(Cipher::new(key))
            }
            Err(error) if error.kind() == ErrorKind::NotFound && may_create => {
                let key: [u8; 32] = random_bytes();
                let mut file =
                    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|error| fault(error.to_string()))?;
                writeln!(file, "{}", hex::encode(key)).and_then(|()| file.sync_all()).map_err(|error| fault(error.to_string()))?;
                let folder = path.parent().map(fs::File::open).transpose().map_err(|error| fault(error.to_string()))?;
                folder.map_or(Ok(()), |folder| folder.sync_all()).map_err(|error| fault(error.to_string()))?;
                Ok(Cipher::new(key))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(fault("is missing, and the catalog holds secrets encrypted with it; put it back from a backup".into()))
            }
            Err(error) => Err(fault(error.to_string())),
        }
    }

    fn new(key: [u8; 32]) -> Cipher {
        Cipher(XChaCha20Poly1305::new(&Key::from(key)))
    }

    /// Encrypts `text` for the place named by `bound_to`.
    pub(crate) fn encrypt(&self, text: &str, bound_to: &str) -> Vec<u8> {
        let nonce: [u8; NONCE_BYTES] = random_bytes();
        let payload = Payload { msg: text.as_bytes(), aad: bound_to.as_bytes() };
        let ciphertext = self.0.encrypt(&XNonce::from(nonce), payload).expect("a text in memory is never too long to encrypt");
        [nonce.as_slice(), &ciphertext].concat()
    }

    /// Decrypts what `encrypt` made for the same place under the same key; anything else is an error.
    pub(crate) fn decrypt(&self, sealed: &[u8], bound_to: &str) -> Result<String, CatalogError> {
        let fault = || CatalogError::Undecipherable { place: bound_to.to_owned() };
        let (nonce, ciphertext) = sealed.split_at_checked(NONCE_BYTES).ok_or_else(fault)?;
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().map_err(|_| fault())?;
        let payload = Payload { msg: ciphertext, aad: bound_to.as_bytes() };
        let text = self.0.decrypt(&XNonce::from(nonce), payload).map_err(|_| fault())?;
        String::from_utf8(text).map_err(|_| fault())
    }
}

/// Random bytes from the operating system.
///
/// # Panics
/// When the operating system has no randomness to give: nothing secret can then be made.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ciphertext_belongs_to_its_place_and_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("catalog.key");
        let cipher = Cipher::open(&path, true).expect("made");
        let sealed = cipher.encrypt("hunter2", "store 1 api_key");
        assert!(!sealed.windows(7).any(|bytes| bytes == b"hunter2"));
        assert_eq!(Cipher::open(&path, false).expect("read back").decrypt(&sealed, "store 1 api_key").expect("same place"), "hunter2");
        assert!(cipher.decrypt(&sealed, "store 2 api_key").is_err());
        assert!(Cipher::new([7; 32]).decrypt(&sealed, "store 1 api_key").is_err());
        assert!(cipher.decrypt(&sealed[..10], "store 1 api_key").is_err());
    }

    #[test]
    fn a_lost_or_exposed_key_stops_the_start() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("catalog.key");
        assert!(matches!(Cipher::open(&path, false), Err(CatalogError::Key { .. })));
        Cipher::open(&path, true).expect("made");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("chmod");
        assert!(matches!(Cipher::open(&path, true), Err(CatalogError::Key { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
        fs::write(&path, "abcd").expect("written");
        assert!(matches!(Cipher::open(&path, true), Err(CatalogError::Key { .. })));
        assert_eq!(fs::read_to_string(&path).expect("still there"), "abcd");
    }
}
