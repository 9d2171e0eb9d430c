//! What all fuzzing targets share: the call of a door's check, and the bound on the memory that it takes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use anode::fuzzing::{DOORS, Door, MEMORY_BYTES_PER_BYTE};

pub use libfuzzer_sys::fuzz_target;

/// Makes the target of the door of this name.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        static DOOR: std::sync::LazyLock<&::anode_fuzz::FuzzedDoor> =
            std::sync::LazyLock::new(|| ::anode_fuzz::door($name));
        ::anode_fuzz::fuzz_target!(|input: &[u8]| ::anode_fuzz::run(&DOOR, input));
    };
}

/// A door, under the name that the targets call it by.
pub type FuzzedDoor = Door;

/// Returns the door of this name.
pub fn door(name: &str) -> &'static Door {
    DOORS.iter().find(|door| door.name == name).unwrap_or_else(|| panic!("there is no door {name:?}"))
}

/// Runs the check of a door, and fails if it takes more memory than it may.
pub fn run(door: &Door, input: &[u8]) {
    let before = HELD_BYTES.load(Ordering::Relaxed);
    PEAK_BYTES.store(before, Ordering::Relaxed);
    (door.check)(input);
    let taken = PEAK_BYTES.load(Ordering::Relaxed).saturating_sub(before);
    let allowed = door.memory_bytes + MEMORY_BYTES_PER_BYTE * input.len();
    assert!(
        taken <= allowed,
        "{taken} bytes of memory for an input of {} bytes; {allowed} are allowed",
        input.len()
    );
}

/// Memory that is allocated now, in bytes.
static HELD_BYTES: AtomicUsize = AtomicUsize::new(0);
/// The most of it since the check began, in bytes.
static PEAK_BYTES: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, which also counts.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: usize) {
    let held = HELD_BYTES.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK_BYTES.fetch_max(held, Ordering::Relaxed);
}

// SAFETY: every call is handed to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        HELD_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        count(size);
        unsafe { System.realloc(pointer, layout, size) }
    }
}
