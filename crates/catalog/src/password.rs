//! Passwords: hashed with argon2id, compared at the same cost whether there is such a user or not.
//!
//! Both take some 30 ms of one core and 19 MiB: the caller sees to it that few run at one time.

use crate::CatalogError;
use crate::secrets::random_bytes;
use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use model::Secret;
use std::ops::RangeInclusive;

/// Bytes of a password. The least goes with the rates of `guess`; the most bounds what is kept while one waits to be hashed.
const PASSWORD_BYTES: RangeInclusive<usize> = 10..=1_024;

/// 19 MiB, two passes, one lane: the first choice of OWASP's Password Storage Cheat Sheet for argon2id.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const SALT_BYTES: usize = 16;

/// A hash like any other, of 32 random bytes that nobody has kept: what is compared when there is no such user.
const NOBODYS: &str = "$argon2id$v=19$m=19456,t=2,p=1$Zc/YkNxcN3U6RBW26qK0JA$fiB7A2VHvGETdpZcVE2enN0I/y3beSsiwQ660FcM9Gg";

/// Whether a text may be a password; the answer says what would mend it.
pub fn check_password(password: &Secret) -> Result<(), String> {
    if PASSWORD_BYTES.contains(&password.reveal().len()) {
        return Ok(());
    }
    Err(format!("a password has {} to {} bytes", PASSWORD_BYTES.start(), PASSWORD_BYTES.end()))
}

/// The hash to keep, in PHC form, with a salt of its own.
pub(crate) fn hash(password: &Secret) -> String {
    let salt: [u8; SALT_BYTES] = random_bytes();
    let hash = argon2().hash_password_with_salt(password.reveal().as_bytes(), &salt).expect("these parameters and this salt are legal");
    hash.to_string()
}

/// Whether the password is the one that was hashed. No hash at all costs the same; it is for the caller to let nobody in then.
pub(crate) fn is_right(password: &Secret, hash: Option<&str>) -> Result<bool, CatalogError> {
    let kept = PasswordHash::new(hash.unwrap_or(NOBODYS)).map_err(|_| CatalogError::Damaged("password hash"))?;
    Ok(argon2().verify_password(password.reveal().as_bytes(), &kept).is_ok())
}

fn argon2() -> Argon2<'static> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).expect("legal parameters");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_right_for_its_own_hash_alone() {
        let (right, wrong) = (Secret::new("correct horse"), Secret::new("correct horsf"));
        let kept = hash(&right);
        assert!(!kept.contains("correct"));
        assert!(is_right(&right, Some(&kept)).expect("a hash"));
        assert!(!is_right(&wrong, Some(&kept)).expect("a hash"));
        assert_ne!(hash(&right), kept, "each has a salt of its own");
        assert!(matches!(is_right(&right, Some("plain")), Err(CatalogError::Damaged(_))));
    }

    #[test]
    fn nobodys_hash_costs_what_others_cost_and_no_password_is_right_for_it() {
        let head = |hash: &str| hash.split('$').take(4).map(str::to_owned).collect::<Vec<_>>();
        let fresh = hash(&Secret::new("correct horse"));
        assert_eq!(head(NOBODYS), head(&fresh));
        assert_eq!(head(NOBODYS)[3], format!("m={MEMORY_KIB},t={PASSES},p={LANES}"));
        assert_eq!(NOBODYS.len(), fresh.len());
        for text in ["", "correct horse", NOBODYS] {
            assert!(!is_right(&Secret::new(text), None).expect("a hash"), "{text:?}");
        }
    }

    #[test]
    fn a_password_has_10_to_1024_bytes() {
        let fits = |length: usize| check_password(&Secret::new("x".repeat(length))).is_ok();
        assert_eq!([0, 9, 10, 1_024, 1_025].map(fits), [false, false, true, true, false]);
        assert!(check_password(&Secret::new("ééééé")).is_ok(), "bytes, not letters");
    }
}
