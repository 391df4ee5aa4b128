//! Basic exit reasons (SDM vol. 3D, appendix "VMX Basic Exit Reasons").

macro_rules! reasons {
    ($($name:ident = $number:literal $text:literal,)*) => {
        /// Why a guest was left.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        #[allow(missing_docs, reason = "the manual's names")]
        pub enum Reason { $($name = $number,)* }

        impl Reason {
            /// Its name.
            pub const fn name(self) -> &'static str {
                match self { $(Reason::$name => $text,)* }
            }

            /// The reason with this number.
            pub fn of(number: u64) -> Option<Reason> {
                match number { $($number => Some(Reason::$name),)* _ => None }
            }
        }
    };
}

reasons! {
    ExceptionOrNmi = 0 "exception or NMI",
    ExternalInterrupt = 1 "external interrupt",
    TripleFault = 2 "triple fault",
    InitSignal = 3 "INIT signal",
    StartUpIpi = 4 "start-up IPI",
    InterruptWindow = 7 "interrupt window",
    NmiWindow = 8 "NMI window",
    TaskSwitch = 9 "task switch",
    Cpuid = 10 "CPUID",
    Getsec = 11 "GETSEC",
    Hlt = 12 "HLT",
    Invd = 13 "INVD",
    Invlpg = 14 "INVLPG",
    Rdpmc = 15 "RDPMC",
    Rdtsc = 16 "RDTSC",
    Rsm = 17 "RSM",
    Vmcall = 18 "VMCALL",
    Vmclear = 19 "VMCLEAR",
    Vmlaunch = 20 "VMLAUNCH",
    Vmptrld = 21 "VMPTRLD",
    Vmptrst = 22 "VMPTRST",
    Vmread = 23 "VMREAD",
    Vmresume = 24 "VMRESUME",
    Vmwrite = 25 "VMWRITE",
    Vmxoff = 26 "VMXOFF",
    Vmxon = 27 "VMXON",
    ControlRegister = 28 "control-register access",
    MovDr = 29 "MOV DR",
    Io = 30 "I/O instruction",
    Rdmsr = 31 "RDMSR",
    Wrmsr = 32 "WRMSR",
    EntryGuestState = 33 "VM-entry failure: guest state",
    EntryMsrLoading = 34 "VM-entry failure: MSR loading",
    Mwait = 36 "MWAIT",
    MonitorTrapFlag = 37 "monitor trap flag",
    Monitor = 39 "MONITOR",
    Pause = 40 "PAUSE",
    EntryMachineCheck = 41 "VM-entry failure: machine check",
    TprBelowThreshold = 43 "TPR below threshold",
    ApicAccess = 44 "APIC access",
    VirtualizedEoi = 45 "virtualized EOI",
    GdtrOrIdtr = 46 "GDTR or IDTR access",
    LdtrOrTr = 47 "LDTR or TR access",
    EptViolation = 48 "EPT violation",
    EptMisconfiguration = 49 "EPT misconfiguration",
    Invept = 50 "INVEPT",
    Rdtscp = 51 "RDTSCP",
    PreemptionTimer = 52 "VMX-preemption timer",
    Invvpid = 53 "INVVPID",
    Wbinvd = 54 "WBINVD or WBNOINVD",
    Xsetbv = 55 "XSETBV",
    ApicWrite = 56 "APIC write",
    Rdrand = 57 "RDRAND",
    Invpcid = 58 "INVPCID",
    Vmfunc = 59 "VMFUNC",
    Rdseed = 61 "RDSEED",
    PageModificationLogFull = 62 "page-modification log full",
    Xsaves = 63 "XSAVES",
    Xrstors = 64 "XRSTORS",
    SubPagePermission = 66 "SPP-related event",
    Umwait = 67 "UMWAIT",
    Tpause = 68 "TPAUSE",
    InstructionTimeout = 75 "instruction timeout",
    Rdmsrlist = 78 "RDMSRLIST",
    Wrmsrlist = 79 "WRMSRLIST",
    Urdmsr = 80 "URDMSR",
    Uwrmsr = 81 "UWRMSR",
    RdmsrImmediate = 84 "RDMSR with an immediate",
    WrmsrnsImmediate = 85 "WRMSRNS with an immediate",
}
