//! Files that a machine is loaded with.

/// A file's name, for errors, and its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// As the user knows it.
    pub name: String,
    /// Its contents.
    pub bytes: Vec<u8>,
}
