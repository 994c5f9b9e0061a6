//! Ids under which a change is asked for, so that asking twice changes nothing twice.

use crate::label::DedupId;

const SIZE: usize = 16;

/// An id that nobody has used. Without a source of chance there is none, and the request cannot be
/// repeated.
pub(super) fn fresh() -> Option<DedupId> {
    let mut bytes = [0; SIZE];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    format!("{:032x}", u128::from_be_bytes(bytes)).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_ids_are_the_same() {
        let (first, second) = (fresh().unwrap(), fresh().unwrap());
        assert_ne!(first, second);
        assert_eq!(first.as_str().len(), 2 * SIZE);
    }
}
