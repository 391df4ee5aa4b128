//! CSRs.

use serde::{Deserialize, Serialize};

/// All CSRs but fcsr.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Csrs {
    /// mstatus.
    pub mstatus: u64,
}
