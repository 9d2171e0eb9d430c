//! Modules in WebAssembly as records: cut into parts, each of which is a record of its own.
//!
//! A module may have 16 MiB, and no other record may have more than 2 MiB. If one record could have 16 MiB, every queue,
//! every stream between nodes and every page that the store writes at once would have to be able to hold it. So a module
//! is spread as parts, for which the bounds of the data plane stay as they are, and which are healed one by one. Their
//! names hold the hash of the module: parts of two versions never mix, and an earlier version stays in place until
//! nobody needs it.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

use super::bounds::{MODULE_BYTES_MAX, MODULE_PART_BYTES};

/// Names a module by its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleId {
    /// XXH3-128 of its bytes, as 32 hexadecimal digits.
    pub hash: String,
    /// Length of the module in bytes.
    pub bytes: usize,
}

impl ModuleId {
    /// The id of a module.
    pub fn of(module: &[u8]) -> ModuleId {
        ModuleId { hash: format!("{:032x}", xxh3_128(module)), bytes: module.len() }
    }

    /// Returns an id that a definition tells, if it can be one.
    pub fn told(hash: &str, bytes: u64) -> Option<ModuleId> {
        let bytes = usize::try_from(bytes).ok().filter(|bytes| (1..=MODULE_BYTES_MAX).contains(bytes))?;
        let is_hash = hash.len() == 32 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_hash.then(|| ModuleId { hash: hash.into(), bytes })
    }

    /// Number of the parts.
    pub fn parts(&self) -> usize {
        self.bytes.div_ceil(MODULE_PART_BYTES)
    }

    /// The name of the record with a part; they count from 0.
    pub fn part_name(&self, middleware: &str, part: usize) -> String {
        format!("$middleware/{middleware}/part/{}/{part}", self.hash)
    }

    /// Puts the module together from its parts. `None` if one is missing or damaged.
    pub fn assemble(&self, part: impl FnMut(usize) -> Option<Bytes>) -> Option<Vec<u8>> {
        // Nothing is copied before all parts are there, because this is tried whenever one more has come.
        let parts: Vec<Bytes> = (0..self.parts()).map(part).collect::<Option<_>>()?;
        if parts.iter().map(Bytes::len).sum::<usize>() != self.bytes {
            return None;
        }
        let module = parts.concat();
        (ModuleId::of(&module) == *self).then_some(module)
    }
}

/// The pattern of the records with the parts of all versions of a middleware.
pub fn parts_pattern(middleware: &str) -> String {
    format!("$middleware/{middleware}/part/*/*")
}

/// Cuts a module into its parts.
pub fn cut(module: &[u8]) -> impl Iterator<Item = &[u8]> {
    module.chunks(MODULE_PART_BYTES)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_are_checked() {
        let hash = "0123456789abcdef0123456789abcdef";
        assert!(ModuleId::told(hash, 1).is_some());
        assert!(ModuleId::told(hash, MODULE_BYTES_MAX as u64).is_some());
        for (hash, bytes) in [(hash, 0), (hash, MODULE_BYTES_MAX as u64 + 1), ("0/*", 1), (&hash[1..], 1)] {
            assert_eq!(ModuleId::told(hash, bytes), None, "{hash} {bytes}");
        }
        assert!(ModuleId::told(&hash.to_uppercase(), 1).is_none());
    }

    proptest! {
        #[test]
        fn a_module_is_put_together_from_its_parts_alone(seed: u8, bytes in 1usize..3 * MODULE_PART_BYTES + 2, missing: usize) {
            let module: Vec<u8> = (0..bytes).map(|at| (at / 7) as u8 ^ seed).collect();
            let id = ModuleId::of(&module);
            let parts: Vec<Bytes> = cut(&module).map(Bytes::copy_from_slice).collect();
            prop_assert_eq!(parts.len(), id.parts());
            let missing = missing % parts.len();
            prop_assert_eq!(id.assemble(|part| parts.get(part).cloned()), Some(module));
            prop_assert_eq!(id.assemble(|part| parts.get(part).cloned().filter(|_| part != missing)), None);
            let damaged = |part: usize| {
                let mut bytes = parts.get(part)?.to_vec();
                if part == missing { bytes[0] ^= 1 }
                Some(Bytes::from(bytes))
            };
            prop_assert_eq!(id.assemble(damaged), None);
        }
    }
}
