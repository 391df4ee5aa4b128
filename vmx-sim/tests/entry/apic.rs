//! The cases of virtual APICs.

use vmx_sim::control::{exit, pin, primary, secondary, tertiary};
use vmx_sim::field::*;
use vmx_sim::vmcs::Vmcs;

use crate::base::{Base, PAGE, off, on};
use crate::cases::{Case, case};

/// A TPR shadow, virtual-interrupt delivery and posted interrupts: it enters.
fn with_posted_interrupts(v: &mut Vmcs) {
    for c in [
        pin::EXTERNAL_INTERRUPT_EXITING,
        pin::PROCESS_POSTED_INTERRUPTS,
        primary::USE_TPR_SHADOW,
        primary::ACTIVATE_SECONDARY_CONTROLS,
        secondary::VIRTUAL_INTERRUPT_DELIVERY,
        exit::ACKNOWLEDGE_INTERRUPT_ON_EXIT,
    ] {
        on(v, c);
    }
    v[VIRTUAL_APIC_ADDRESS] = PAGE;
    v[POSTED_INTERRUPT_DESCRIPTOR_ADDRESS] = PAGE + 0x1000;
}

pub const CASES: &[Case] = &[
    case(Base::Long, TERTIARY_CONTROLS, "reserved bits as IA32_VMX_PROCBASED_CTLS3 says", |v| {
        on(v, primary::ACTIVATE_TERTIARY_CONTROLS);
        v[TERTIARY_CONTROLS] = 1 << 63;
    }),
    case(Base::Long, VIRTUAL_APIC_ADDRESS, "the address of a page", |v| {
        on(v, primary::USE_TPR_SHADOW);
        v[VIRTUAL_APIC_ADDRESS] = PAGE + 8;
    }),
    case(Base::Long, TPR_THRESHOLD, "bits 31 to 4 are 0", |v| {
        on(v, primary::USE_TPR_SHADOW);
        v[TPR_THRESHOLD] = 0x10;
    }),
    case(
        Base::Long,
        TPR_THRESHOLD,
        "bits 3 to 0 are not above bits 7 to 4 of VTPR, unless APIC accesses are virtualized",
        |v| {
            on(v, primary::USE_TPR_SHADOW);
            v[VIRTUAL_APIC_ADDRESS] = PAGE;
            v[TPR_THRESHOLD] = 1;
        },
    ),
    case(Base::Long, SECONDARY_CONTROLS, "APIC virtualization only with a TPR shadow", |v| {
        on(v, primary::ACTIVATE_SECONDARY_CONTROLS);
        on(v, secondary::APIC_REGISTER_VIRTUALIZATION);
    }),
    case(Base::Long, TERTIARY_CONTROLS, "IPI virtualization only with a TPR shadow", |v| {
        on(v, primary::ACTIVATE_TERTIARY_CONTROLS);
        on(v, tertiary::IPI_VIRTUALIZATION);
    }),
    case(Base::Long, APIC_ACCESS_ADDRESS, "the address of a page", |v| {
        on(v, primary::ACTIVATE_SECONDARY_CONTROLS);
        on(v, secondary::VIRTUALIZE_APIC_ACCESSES);
        v[APIC_ACCESS_ADDRESS] = 1 << 52;
    }),
    case(Base::Long, SECONDARY_CONTROLS, "x2APIC mode and APIC accesses are not virtualized together", |v| {
        with_posted_interrupts(v);
        on(v, secondary::VIRTUALIZE_APIC_ACCESSES);
        on(v, secondary::VIRTUALIZE_X2APIC_MODE);
    }),
    case(Base::Long, SECONDARY_CONTROLS, "virtual-interrupt delivery only with external-interrupt exiting", |v| {
        with_posted_interrupts(v);
        off(v, pin::EXTERNAL_INTERRUPT_EXITING);
    }),
    case(Base::Long, PIN_CONTROLS, "posted interrupts only with virtual-interrupt delivery", |v| {
        with_posted_interrupts(v);
        off(v, secondary::VIRTUAL_INTERRUPT_DELIVERY);
    }),
    case(Base::Long, EXIT_CONTROLS, "posted interrupts only where exits acknowledge interrupts", |v| {
        with_posted_interrupts(v);
        off(v, exit::ACKNOWLEDGE_INTERRUPT_ON_EXIT);
    }),
    case(Base::Long, POSTED_INTERRUPT_NOTIFICATION_VECTOR, "a vector of 8 bits", |v| {
        with_posted_interrupts(v);
        v[POSTED_INTERRUPT_NOTIFICATION_VECTOR] = 0x100;
    }),
    case(Base::Long, POSTED_INTERRUPT_DESCRIPTOR_ADDRESS, "the address of 64 bytes", |v| {
        with_posted_interrupts(v);
        v[POSTED_INTERRUPT_DESCRIPTOR_ADDRESS] = PAGE + 0x20;
    }),
    case(Base::Long, PID_POINTER_TABLE_ADDRESS, "the address of a table of 8-byte entries", |v| {
        with_posted_interrupts(v);
        on(v, primary::ACTIVATE_TERTIARY_CONTROLS);
        on(v, tertiary::IPI_VIRTUALIZATION);
        v[PID_POINTER_TABLE_ADDRESS] = PAGE + 4;
    }),
];
