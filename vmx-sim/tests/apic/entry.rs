//! "Checks on VMX Controls", as far as they are about virtual APICs: each case spoils one field of a VMCS that enters.

use vmx_sim::control::{Control, exit, pin, primary, secondary, tertiary};
use vmx_sim::exit::Reason;
use vmx_sim::field::*;

use crate::rig::*;

#[test]
fn each_rule() {
    const POSTED: [Control; 5] = [
        primary::USE_TPR_SHADOW,
        secondary::VIRTUALIZE_X2APIC_MODE,
        secondary::VIRTUAL_INTERRUPT_DELIVERY,
        pin::PROCESS_POSTED_INTERRUPTS,
        tertiary::IPI_VIRTUALIZATION,
    ];
    const SHADOW: [Control; 1] = [primary::USE_TPR_SHADOW];
    const REGISTERS: [Control; 2] = [primary::USE_TPR_SHADOW, secondary::APIC_REGISTER_VIRTUALIZATION];
    const IPI: [Control; 2] = [primary::USE_TPR_SHADOW, tertiary::IPI_VIRTUALIZATION];
    let without = |c: Control| move |v: u64| v & !(1 << c.bit);
    type Spoil = Box<dyn Fn(u64) -> u64>;
    let cases: Vec<(&[Control], Field, Spoil)> = vec![
        (&SHADOW, VIRTUAL_APIC_ADDRESS, Box::new(|v| v | 0x800)),
        (&SHADOW, VIRTUAL_APIC_ADDRESS, Box::new(|v| v | 1 << 52)),
        (&SHADOW, TPR_THRESHOLD, Box::new(|_| 0x10)),
        (&SHADOW, TPR_THRESHOLD, Box::new(|_| 1)),
        (&X2APIC, PRIMARY_CONTROLS, Box::new(without(primary::USE_TPR_SHADOW))),
        (&REGISTERS, PRIMARY_CONTROLS, Box::new(without(primary::USE_TPR_SHADOW))),
        (&IPI, PRIMARY_CONTROLS, Box::new(without(primary::USE_TPR_SHADOW))),
        (&ALL, SECONDARY_CONTROLS, Box::new(|v| v | 1 << secondary::VIRTUALIZE_X2APIC_MODE.bit)),
        (&ALL, APIC_ACCESS_ADDRESS, Box::new(|v| v | 1)),
        (&ALL, APIC_ACCESS_ADDRESS, Box::new(|v| v | 1 << 52)),
        (&ALL, PIN_CONTROLS, Box::new(without(pin::EXTERNAL_INTERRUPT_EXITING))),
        (&POSTED, SECONDARY_CONTROLS, Box::new(without(secondary::VIRTUAL_INTERRUPT_DELIVERY))),
        (&POSTED, EXIT_CONTROLS, Box::new(without(exit::ACKNOWLEDGE_INTERRUPT_ON_EXIT))),
        (&POSTED, POSTED_INTERRUPT_NOTIFICATION_VECTOR, Box::new(|_| 0x100)),
        (&POSTED, POSTED_INTERRUPT_DESCRIPTOR_ADDRESS, Box::new(|v| v | 0x20)),
        (&POSTED, POSTED_INTERRUPT_DESCRIPTOR_ADDRESS, Box::new(|v| v | 1 << 52)),
        (&POSTED, PID_POINTER_TABLE_ADDRESS, Box::new(|v| v | 4)),
        (&POSTED, PID_POINTER_TABLE_ADDRESS, Box::new(|v| v | 1 << 52)),
    ];
    for (i, (controls, field, spoil)) in cases.into_iter().enumerate() {
        let mut g = Rig::new(controls, &|_| Ok(()));
        let (error, good) = (g.entry_error_of(field, &spoil), g.enter().0);
        assert_eq!((error, good), (7, Reason::Vmcall), "{i}: {field:?}");
    }
}

impl Rig {
    /// The error of an entry with a field spoilt, which is put right again.
    fn entry_error_of(&mut self, field: Field, spoil: &dyn Fn(u64) -> u64) -> u64 {
        let value = self.field(field);
        self.set_field(field, spoil(value));
        let error = self.entry_error();
        self.set_field(field, value);
        error
    }
}
