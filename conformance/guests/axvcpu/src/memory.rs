//! Memory: frames and Rust's heap are taken from one region, and heaps never given back; C's functions on bytes, which compilers call.

use core::alloc::{GlobalAlloc, Layout};
use core::arch::asm;
use core::cell::UnsafeCell;
use core::ptr::null_mut;

/// Size of a page and of a frame in bytes.
pub const PAGE: usize = 0x1000;
const SIZE: usize = 16 << 20;

/// What the one processor has for itself: nothing that is lent is lent again before it is given back.
pub struct Own<T>(UnsafeCell<T>);

// SAFETY: there is one processor, and its interrupts come only where it waits for them.
unsafe impl<T> Sync for Own<T> {}

impl<T> Own<T> {
    /// It.
    pub const fn new(value: T) -> Self {
        Own(UnsafeCell::new(value))
    }

    /// Lends it for one use.
    pub fn with<R>(&self, use_it: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: uses do not nest.
        use_it(unsafe { &mut *self.0.get() })
    }
}

#[repr(align(4096))]
struct Region(#[expect(dead_code, reason = "it is memory")] [u8; SIZE]);

struct Heap {
    region: UnsafeCell<Region>,
    taken: Own<usize>,
    /// A frame that was given back, or 0: each has the address of the next.
    free: Own<usize>,
}

// SAFETY: as of `Own`.
unsafe impl Sync for Heap {}

#[global_allocator]
static HEAP: Heap = Heap { region: UnsafeCell::new(Region([0; SIZE])), taken: Own::new(0), free: Own::new(0) };

impl Heap {
    fn take(&self, size: usize, align: usize) -> Option<usize> {
        self.taken.with(|taken| {
            let at = taken.next_multiple_of(align);
            *taken = at.checked_add(size).filter(|end| *end <= SIZE)?;
            Some(self.region.get() as usize + at)
        })
    }
}

// SAFETY: what it gives is aligned as asked, within the region, and given once.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.take(layout.size(), layout.align()).map_or(null_mut(), |at| at as *mut u8)
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

/// So many frames that follow one another, at a multiple of so many bytes.
pub fn frames(count: usize, align: usize) -> Option<usize> {
    HEAP.take(count * PAGE, align.max(PAGE))
}

/// A frame.
pub fn frame() -> Option<usize> {
    let again = HEAP.free.with(|free| {
        // SAFETY: it was given back, with the next one's address in it.
        (*free != 0).then(|| core::mem::replace(free, unsafe { *(*free as *const usize) }))
    });
    again.or_else(|| frames(1, PAGE))
}

/// A frame of zeroes.
pub fn zeroed_frame() -> Option<usize> {
    let at = frame()?;
    // SAFETY: it is nobody else's.
    unsafe { core::ptr::write_bytes(at as *mut u8, 0, PAGE) };
    Some(at)
}

/// Gives a frame back.
pub fn free_frame(at: usize) {
    // SAFETY: nobody uses it any more.
    HEAP.free.with(|free| unsafe { *(at as *mut usize) = core::mem::replace(free, at) });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    unsafe { asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _) };
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= count {
        return unsafe { memcpy(to, from, count) };
    }
    let (last_to, last_from) = (to.wrapping_add(count).wrapping_sub(1), from.wrapping_add(count).wrapping_sub(1));
    unsafe {
        asm!("std", "rep movsb", "cld", inout("rcx") count => _, inout("rdi") last_to => _, inout("rsi") last_from => _)
    };
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
    unsafe { asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _, in("al") byte as u8) };
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, count: usize) -> i32 {
    for i in 0..count {
        let (a, b) = unsafe { (a.add(i).read_volatile(), b.add(i).read_volatile()) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, count: usize) -> i32 {
    unsafe { memcmp(a, b, count) }
}
