//! The bounds of an instance's memory and tables.

use wasmtime::ResourceLimiter;

use super::super::bounds::WASM_MEMORY_BYTES_MAX;

/// Most entries of all tables of an instance together. The largest programs have some ten thousand functions.
const TABLE_ENTRIES_MAX: usize = 100_000;
/// Most core modules of which a component consists.
const CORE_MODULES_MAX: usize = 64;
/// Most tables, and most memories, of an instance.
const PIECES_MAX: usize = 64;

/// Counts what an instance holds. It is refused what exceeds the bounds, and sees that as memory that is used up.
#[derive(Debug, Default)]
pub struct InstanceLimiter {
    memory_bytes: usize,
    table_entries: usize,
}

impl InstanceLimiter {
    /// Bytes of memory that the instance has taken.
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }
}

impl ResourceLimiter for InstanceLimiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = self.memory_bytes.saturating_add(desired.saturating_sub(current));
        let is_allowed = total <= WASM_MEMORY_BYTES_MAX && maximum.is_none_or(|most| desired <= most);
        if is_allowed {
            self.memory_bytes = total;
        }
        Ok(is_allowed)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = self.table_entries.saturating_add(desired.saturating_sub(current));
        let is_allowed = total <= TABLE_ENTRIES_MAX && maximum.is_none_or(|most| desired <= most);
        if is_allowed {
            self.table_entries = total;
        }
        Ok(is_allowed)
    }

    fn instances(&self) -> usize {
        CORE_MODULES_MAX
    }

    fn tables(&self) -> usize {
        PIECES_MAX
    }

    fn memories(&self) -> usize {
        PIECES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory grows by pages of 64 KiB, also in several memories of one instance.
    #[test]
    fn an_instance_has_sixteen_mebibytes_of_memory_and_no_more() {
        const PAGE_BYTES: usize = 64 * 1024;
        const MOST_BYTES: usize = 16 * 1024 * 1024;
        let mut limiter = InstanceLimiter::default();
        let mut grows = |from, to| limiter.memory_growing(from, to, None).is_ok_and(|is_allowed| is_allowed);
        assert!(grows(0, PAGE_BYTES) && grows(0, MOST_BYTES - 2 * PAGE_BYTES));
        assert!(!grows(PAGE_BYTES, 3 * PAGE_BYTES), "two pages more are one too many");
        assert!(grows(PAGE_BYTES, 2 * PAGE_BYTES));
        assert!(!grows(0, PAGE_BYTES) && !grows(2 * PAGE_BYTES, usize::MAX));
        assert_eq!(limiter.memory_bytes(), MOST_BYTES);
    }
}
