//! Passwords: hashing a new one, and whether one is right.
//!
//! Both are slow by design, some tens of milliseconds and 19 MiB: never call them on a thread that
//! serves others.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::rand;
use zeroize::{Zeroize as _, Zeroizing};

use super::credential::{Cost, PasswordHash};

/// What OWASP's cheat sheet on password storage asks for at least.
const COST: Cost = Cost {
    memory_kib: 19_456,
    passes: 2,
    lanes: 1,
};

/// Why a password could not be hashed; nothing is known about it then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HashFailed {
    /// The memory that a hash needs is not there.
    #[error("{0} KiB of memory are needed to hash a password, and there is less")]
    Memory(u32),
    /// The operating system has no random numbers.
    #[error("the operating system gives no random numbers")]
    Random,
    /// The parameters are none of argon2's. A parsed hash has no such ones.
    #[error("argon2 refused its parameters")]
    Parameters,
}

/// The hash of a new password, with a salt of its own.
///
/// # Errors
/// When memory or random numbers are lacking.
pub fn hash(password: &[u8]) -> Result<PasswordHash, HashFailed> {
    hash_at(COST, password)
}

pub(super) fn hash_at(cost: Cost, password: &[u8]) -> Result<PasswordHash, HashFailed> {
    let mut salt = [0; 16];
    rand::fill(&mut salt).map_err(|_| HashFailed::Random)?;
    let hash = compute(cost, &salt, password, 32)?;
    Ok(PasswordHash {
        cost,
        salt: Box::new(salt),
        hash: hash.as_slice().into(),
    })
}

/// Whether `stored` is the hash of this password. Takes as long whether it is or not.
pub(super) fn matches(stored: &PasswordHash, password: &[u8]) -> Result<bool, HashFailed> {
    let hash = compute(stored.cost, &stored.salt, password, stored.hash.len())?;
    Ok(verify_slices_are_equal(&hash, &stored.hash).is_ok())
}

fn compute(
    cost: Cost,
    salt: &[u8],
    password: &[u8],
    length: usize,
) -> Result<Zeroizing<Vec<u8>>, HashFailed> {
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(length))
        .map_err(|_| HashFailed::Parameters)?;
    let blocks = params.block_count();
    let mut memory: Vec<Block> = Vec::new();
    memory
        .try_reserve_exact(blocks)
        .map_err(|_| HashFailed::Memory(cost.memory_kib))?;
    memory.resize(blocks, Block::new());
    let mut hash = Zeroizing::new(vec![0; length]);
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hashed =
        argon2.hash_password_into_with_memory(password, salt, &mut hash, memory.as_mut_slice());
    memory.zeroize();
    hashed.map_err(|_| HashFailed::Parameters)?;
    Ok(hash)
}

/// Cheap enough for thousands of them in a test.
#[cfg(test)]
pub(super) const CHEAP: Cost = Cost {
    memory_kib: 8,
    passes: 1,
    lanes: 1,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_password_matches_and_no_other() {
        let stored = hash("correct horse".as_bytes()).unwrap();
        assert!(
            stored
                .to_phc()
                .starts_with("$argon2id$v=19$m=19456,t=2,p=1$")
        );
        assert!(matches(&stored, b"correct horse").unwrap());
        assert!(!matches(&stored, b"correct horse ").unwrap());
        assert!(!matches(&stored, b"").unwrap());
    }

    /// Made with the reference implementation's test vector for argon2id, v=19, m=256, t=2, p=1.
    #[test]
    fn hashes_of_other_implementations_are_understood() {
        let text =
            "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        let stored = PasswordHash::parse(text).unwrap();
        assert!(matches(&stored, b"password").unwrap());
        assert!(!matches(&stored, b"differentpassword").unwrap());
    }

    #[test]
    fn two_hashes_of_one_password_differ() {
        let (one, two) = (
            hash_at(CHEAP, b"same").unwrap(),
            hash_at(CHEAP, b"same").unwrap(),
        );
        assert!(one != two);
        assert!(one.fingerprint() != two.fingerprint());
    }
}
