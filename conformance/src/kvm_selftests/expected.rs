//! Which tests end otherwise than with a pass, and why.

use crate::debian::Suite;
use crate::suite::Verdict;

use super::Test;
use super::verdict::ENDLESS;

/// A vendor's model of a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cpu {
    /// With VMX.
    Intel,
    /// With SVM.
    Amd,
}

impl Cpu {
    /// The model's name.
    pub fn name(self) -> &'static str {
        match self {
            Cpu::Intel => "intel",
            Cpu::Amd => "amd",
        }
    }

    /// Whether a test may be for this vendor, by its name.
    pub(super) fn may_run(self, test: &str) -> bool {
        let others: &[&str] = match self {
            Cpu::Intel => &["svm_", "sev_", "hyperv_svm_"],
            Cpu::Amd => &["vmx_", "evmcs_", "hyperv_evmcs"],
        };
        !others.iter().any(|prefix| test.starts_with(prefix))
    }
}

impl std::str::FromStr for Cpu {
    type Err = String;

    fn from_str(name: &str) -> Result<Cpu, String> {
        [Cpu::Intel, Cpu::Amd].into_iter().find(|cpu| cpu.name() == name).ok_or("intel or amd".into())
    }
}

/// Tests that need another machine: switches of the model, further words for the kernel.
const SETUPS: &[(&str, &str, &str)] = &[
    ("vmx_exception_with_invalid_guest_state", "", " kvm_intel.unrestricted_guest=0"),
    ("vmx_nested_la57_state_test", ",+la57", ""),
];

/// The machine that a test needs.
pub(super) fn setup(test: &str) -> (&'static str, &'static str) {
    SETUPS.iter().find(|(name, ..)| *name == test).map_or(("", ""), |(_, switches, words)| (switches, words))
}

/// How a test ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It skips itself, and says this.
    Skips(&'static str),
    /// It fails, and says this.
    Fails(&'static str),
}

use Cpu::{Amd, Intel};
use End::{Fails, Skips};

/// A test that does not pass.
struct Exception {
    name: &'static str,
    /// On this kernel only.
    kernel: Option<Suite>,
    /// Of this suite only.
    suite: Option<Suite>,
    /// On this processor only.
    cpu: Option<Cpu>,
    end: End,
    why: &'static str,
}

/// Everywhere.
const fn always(name: &'static str, end: End, why: &'static str) -> Exception {
    Exception { name, kernel: None, suite: None, cpu: None, end, why }
}

/// On one processor.
const fn on(cpu: Cpu, name: &'static str, end: End, why: &'static str) -> Exception {
    Exception { cpu: Some(cpu), ..always(name, end, why) }
}

/// Sid's test on trixie's kernel, which has a bug that was mended since: `docs/bugs.md`.
const fn old(name: &'static str, what: &'static str) -> Exception {
    let why = "trixie's kernel had a bug";
    Exception { kernel: Some(Suite::Trixie), suite: Some(Suite::Sid), ..always(name, Fails(what), why) }
}

/// The same, on one processor.
const fn old_on(cpu: Cpu, name: &'static str, what: &'static str) -> Exception {
    Exception { cpu: Some(cpu), ..old(name, what) }
}

/// What stands first counts.
const EXCEPTIONS: &[Exception] = &[
    always("amx_test", Skips("XTILE_DATA"), "no model has AMX"),
    always("dirty_log_page_splitting_test", Skips("HUGETLB"), "the guest reserves no huge pages"),
    always("nx_huge_pages_test", Skips("magic token"), "a script of its own starts it"),
    always(
        "private_mem_conversions_test",
        Skips("SW_PROTECTED_VM"),
        "Debian's kernels are configured without such VMs",
    ),
    always("private_mem_kvm_exits_test", Skips("SW_PROTECTED_VM"), "Debian's kernels are configured without such VMs"),
    always(
        "pmu_event_filter_test",
        Fails("loads: 0"),
        "no model counts loads and stores, which are model-specific events",
    ),
    always("sev_dbg_test", Skips("SEV"), "there is no SEV"),
    always("sev_init2_tests", Skips("sev"), "there is no SEV"),
    always("sev_migrate_tests", Skips("SEV"), "there is no SEV"),
    always("sev_smoke_test", Skips("SEV"), "there is no SEV"),
    on(Intel, "kvm_buslock_test", Skips("BUS_LOCK_EXIT"), "the model has no bus-lock detection"),
    on(Intel, "nested_vmsave_vmload_test", Skips("SVM"), "it is of SVM"),
    on(Amd, "pmu_counters_test", Skips("host_cpu_is_intel"), "it is of Intel's counters"),
    on(Amd, "smaller_maxphyaddr_emulation_test", Skips("SMALLER_MAXPHYADDR"), "KVM does not do it with nested paging"),
    on(Amd, "ucna_injection_test", Skips("MCG_CMCI_P"), "AMD's processors have no CMCI"),
    Exception {
        suite: Some(Suite::Trixie),
        ..always(
            "monitor_mwait_test",
            Fails("testcase '0x6'"),
            "of 6.12: it fails on its own kernel; 7.2's passes there",
        )
    },
    old("apic_bus_clock_test", "APIC_BUS_CYCLES_NS"),
    old("debug_regs", "DR7.GD"),
    old("kvm_pv_test", "Disabling exits after vCPU creation"),
    old("msrs_test", "MSR_IA32_MISC_ENABLE"),
    old("set_sregs_test", "invalid cr4 bit"),
    old_on(Intel, "evmcs_smm_controls_test", "SHUTDOWN"),
    old_on(Intel, "nested_emulation_test", "GUEST_RIP"),
    old_on(Intel, "nested_tdp_fault_test", "EXIT_QUAL '0x181', got '0x1'"),
    old_on(Intel, "vmx_pmu_caps_test", "perf_capabilities_unsupported"),
    old_on(Amd, "nested_emulation_test", "insn_len '2' for 'pause', got '0'"),
    old_on(Amd, "nested_set_state_test", "KVM_SET_NESTED_STATE"),
    old_on(Amd, "nested_tdp_fault_test", "NPF error code"),
    old_on(Amd, "svm_lbr_nested_state", "LASTBRANCHFROMIP"),
    old_on(Amd, "svm_nested_clear_efer_svme", ENDLESS),
    old_on(Amd, "svm_nested_vmcb12_gpa", "vmcb12_gpa."),
    Exception {
        kernel: Some(Suite::Trixie),
        ..on(
            Amd,
            "svm_nested_pat_test",
            Skips("NESTED_SVM_SHARED_PAT"),
            "trixie's kernel has no such quirk to switch off",
        )
    },
];

/// The exception that a test is.
fn exception(test: &Test) -> Option<&'static Exception> {
    EXCEPTIONS.iter().find(|e| {
        e.name == test.name
            && e.kernel.is_none_or(|kernel| kernel == test.kernel)
            && e.suite.is_none_or(|suite| suite == test.suite)
            && e.cpu.is_none_or(|cpu| cpu == test.cpu)
    })
}

/// For how many virtual seconds a test may run: twice what any takes, but for one. One that is known to run for ever takes a hundredth where it does not.
pub(super) fn seconds(test: &Test) -> u32 {
    match exception(test) {
        Some(Exception { end: Fails(ENDLESS), .. }) => 1,
        None if test.name == "pmu_counters_test" => 90,
        _ => 20,
    }
}

/// What is made of how a test ended: what is expected to fail passes by failing so.
pub(super) fn judge(test: &Test, verdict: Verdict) -> Verdict {
    match (exception(test).map(|e| (e.end, e.why)), verdict) {
        (None, Verdict::Skip(said)) => Verdict::Fail(format!("it skips itself: {said}")),
        (Some((Skips(what), why)), Verdict::Skip(said)) if said.contains(what) => {
            Verdict::Skip(format!("{said}: {why}"))
        }
        (Some((Fails(what), _)), Verdict::Fail(said)) if said.contains(what) => Verdict::Pass,
        (Some((_, why)), Verdict::Pass) => Verdict::Fail(format!("it passes, and was not to: {why}")),
        (Some(_), Verdict::Skip(said)) => Verdict::Fail(format!("it skips itself, otherwise than it was to: {said}")),
        (_, verdict) => verdict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_to_fail_passes_by_that_alone() {
        let test = |kernel, name: &str| Test { kernel, suite: Suite::Sid, cpu: Amd, name: name.into() };
        let fails = |what: &str| Verdict::Fail(what.into());
        let old = test(Suite::Trixie, "debug_regs");
        assert_eq!(judge(&old, fails("x: DR7.GD: exit 4")), Verdict::Pass);
        assert!(matches!(judge(&old, fails("something else")), Verdict::Fail(_)));
        assert!(matches!(judge(&old, Verdict::Pass), Verdict::Fail(_)));
        assert!(matches!(judge(&old, Verdict::Skip(String::new())), Verdict::Fail(_)));
        let new = test(Suite::Sid, "debug_regs");
        assert!(matches!(judge(&new, fails("x: DR7.GD: exit 4")), Verdict::Fail(_)));
        assert_eq!(judge(&new, Verdict::Pass), Verdict::Pass);
        assert!(matches!(judge(&new, Verdict::Skip("no SVM".into())), Verdict::Fail(_)));
        let skipped = test(Suite::Sid, "amx_test");
        assert!(matches!(judge(&skipped, Verdict::Skip("no XTILE_DATA".into())), Verdict::Skip(_)));
        assert!(matches!(judge(&skipped, Verdict::Pass), Verdict::Fail(_)));
    }

    #[test]
    fn a_setup_is_of_a_machine_of_its_own() {
        assert_eq!(setup("state_test"), ("", ""));
        assert_eq!(setup("vmx_nested_la57_state_test").0, ",+la57");
    }
}
