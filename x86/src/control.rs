//! Control registers and EFER (SDM vol. 3A, "Control Registers", "Extended Feature Enable Register").

/// Declares the bits of a register: name and place.
macro_rules! bits {
    ($(#[$m:meta])* $module:ident { $($(#[$n:meta])* $name:ident = $bit:literal,)* }) => {
        $(#[$m])*
        #[allow(missing_docs, reason = "the manual's names")]
        pub mod $module {
            $($(#[$n])* pub const $name: u64 = 1 << $bit;)*
            /// All of them, by name.
            pub const ALL: &[(&str, u64)] = &[$((stringify!($name), $name),)*];
        }
    };
}

bits! {
    /// CR0.
    cr0 {
        PE = 0, MP = 1, EM = 2, TS = 3, ET = 4, NE = 5, WP = 16, AM = 18, NW = 29, CD = 30, PG = 31,
    }
}
bits! {
    /// CR3, but for the address, PCD, PWT and PCID.
    cr3 {
        LAM_U57 = 61, LAM_U48 = 62,
    }
}
bits! {
    /// CR4.
    cr4 {
        VME = 0, PVI = 1, TSD = 2, DE = 3, PSE = 4, PAE = 5, MCE = 6, PGE = 7, PCE = 8, OSFXSR = 9, OSXMMEXCPT = 10,
        UMIP = 11, LA57 = 12, VMXE = 13, SMXE = 14, FSGSBASE = 16, PCIDE = 17, OSXSAVE = 18, KL = 19, SMEP = 20,
        SMAP = 21, PKE = 22, CET = 23, PKS = 24, UINTR = 25, LAM_SUP = 28,
    }
}
bits! {
    /// IA32_EFER.
    efer {
        SCE = 0, LME = 8, LMA = 10, NXE = 11, SVME = 12, LMSLE = 13, FFXSR = 14, TCE = 15, MCOMMIT = 17, INTWB = 18, UAIE = 20,
        AIBRSE = 21,
    }
}
bits! {
    /// RFLAGS, but for the arithmetic flags.
    rflags {
        TF = 8, IF = 9, DF = 10, NT = 14, RF = 16, VM = 17, AC = 18, VIF = 19, VIP = 20, ID = 21,
    }
}
bits! {
    /// IA32_U_CET and IA32_S_CET, but for the address of the legacy code page bitmap.
    user_cet {
        SH_STK_EN = 0, WR_SHSTK_EN = 1, ENDBR_EN = 2, LEG_IW_EN = 3, NO_TRACK_EN = 4, SUPPRESS_DIS = 5, SUPPRESS = 10, TRACKER = 11,
    }
}
bits! {
    /// DR6.
    dr6 {
        B0 = 0, B1 = 1, B2 = 2, B3 = 3, BLD = 11, BD = 13, BS = 14, BT = 15, RTM = 16,
    }
}
bits! {
    /// DR7, but for the fields of each breakpoint.
    dr7 {
        LE = 8, GE = 9, RTM = 11, GD = 13,
    }
}

/// L0, G0 to L3, G3 of DR7: a breakpoint is enabled.
pub const DR7_ENABLES: u64 = 0xff;
