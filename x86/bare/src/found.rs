//! What handlers find.

/// What a handler has found on its stack, and in CR2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The vector.
    pub vector: u64,
    /// The error code; 0 if there is none.
    pub error: u64,
    /// The instruction pointer.
    pub rip: u64,
    /// CS.
    pub cs: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// RSP.
    pub rsp: u64,
    /// SS.
    pub ss: u64,
    /// CR2.
    pub cr2: u64,
}

impl Found {
    /// From the words at [`FOUND`](crate::FOUND).
    pub(crate) fn of([vector, error, rip, cs, rflags, rsp, ss, cr2]: [u64; 8]) -> Found {
        Found { vector, error, rip, cs, rflags, rsp, ss, cr2 }
    }
}
