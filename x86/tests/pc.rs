//! The machine: what a bare guest, a kernel and firmware find in it.

use emu_core::bus::{BusCx, Space};
use emu_core::devices::virtio::VirtioDevice;
use emu_core::engine::World;
use emu_core::file::File;
use emu_core::machine::{End, Machine};
use x86::platform::board::Transport;
use x86::platform::loader::Protocol;
use x86::platform::pc::{self, FirmwareShape, Images, PcConfig};
use x86::platform::pci::chipset::Chipset;
use x86::platform::{hpet, ioapic};
use x86::processor::X86;

fn raw(bytes: &[u8]) -> Images {
    Images { kernel: Some(File { name: "raw".into(), bytes: bytes.to_vec() }), ..Images::default() }
}

fn config(chipset: Chipset) -> PcConfig {
    let protocol = Protocol::Raw { bits: 64, at: 0x10_0000 };
    PcConfig { chipset, protocol, memory: 64 << 20, virtio: vec![VirtioDevice::Rng { seed: 1 }], ..PcConfig::default() }
}

struct Ports(Machine<X86>);

impl Ports {
    fn io(&mut self, space: Space, at: u64, size: u8, value: Option<u64>) -> u64 {
        let World { bus, ram, door, .. } = &mut self.0.world;
        let cx = BusCx { now: 0, ram, door };
        match value {
            None => bus.read(space, at, size, cx).unwrap_or(u64::MAX >> (64 - 8 * u32::from(size))),
            Some(v) => bus.write(space, at, size, v, cx).map_or(0, |()| 0),
        }
    }
    fn inp(&mut self, port: u64, size: u8) -> u64 {
        self.io(Space::Port, port, size, None)
    }
    fn out(&mut self, port: u64, size: u8, value: u64) {
        self.io(Space::Port, port, size, Some(value));
    }
    fn config(&mut self, device: u64, at: u64) -> u64 {
        self.out(0xcf8, 4, 1 << 31 | device << 11 | at);
        self.inp(0xcfc, 4)
    }
}

/// Prints at the serial port and powers off by ACPI, as both chipsets have it.
#[test]
fn a_bare_guest_powers_off() {
    for (chipset, soft_off) in [(Chipset::Q35, 0x3c), (Chipset::I440Fx, 0x20)] {
        let code = [0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, soft_off, 0x66, 0xef, 0xf4];
        let mut machine = pc::build(&config(chipset), &raw(&code)).unwrap();
        assert_eq!(machine.run(100), End::PowerOff(0), "{chipset:?}");
    }
}

/// As firmware would have left it: functions have addresses and interrupts, ROM is shadowed, tables are in place.
#[test]
fn the_board_is_set_up() {
    for (chipset, id, slot_irq) in [(Chipset::Q35, 0x29c0_8086, 10), (Chipset::I440Fx, 0x1237_8086, 10)] {
        let mut p = Ports(pc::build(&config(chipset), &raw(&[0xf4])).unwrap());
        assert_eq!(p.config(0, 0), id);
        let virtio = if chipset == Chipset::Q35 { 1 } else { 2 };
        assert_eq!(p.config(virtio, 0), 0x1044_1af4);
        let bar = p.config(virtio, 0x10) & !0xf;
        assert!((0xc000_0000..0xfe00_0000).contains(&bar), "{bar:#x}");
        assert_eq!(p.io(Space::Memory, bar + 0x12, 2, None), 1, "one queue");
        let line = p.config(virtio, 0x3c) & 0xff;
        assert!([10, 11].contains(&line) && slot_irq == 10, "{line}");
        let ram = &p.0.world.ram;
        let bytes = |at: u64| ram.load(at, 8).unwrap().to_le_bytes();
        assert_eq!((&bytes(0xe_0000), &bytes(0xf_0000)[..5]), (b"RSD PTR ", &b"_SM3_"[..]));
        assert_eq!(ram.load(0x40e, 2), Ok(0x9fc0));
        for (port, size, value) in [(0x92, 1, 0), (0xe9, 1, 0xe9), (0x3fd, 1, 0x60), (0x2fd, 1, 0x60), (0x61, 1, 0x20)]
        {
            assert_eq!(
                p.inp(port, size) & if port == 0x61 { 0x0f } else { !0 },
                if port == 0x61 { 0 } else { value },
                "{port:#x}"
            );
        }
        p.out(0x510, 2, 0);
        assert_eq!([0; 4].map(|_| p.inp(0x511, 1) as u8), *b"QEMU");
        assert_eq!(p.io(Space::Memory, hpet::BASE + 4, 4, None), 10_000_000, "femtoseconds of a tick");
        p.io(Space::Memory, ioapic::BASE, 4, Some(1));
        assert_eq!(p.io(Space::Memory, ioapic::BASE + 0x10, 4, None) >> 16, 23);
        let mechanism_2 = p.io(Space::Memory, 0xb000_0000, 4, None);
        assert_eq!(mechanism_2, if chipset == Chipset::Q35 { id } else { 0xffff_ffff });
    }
}

#[test]
fn virtio_by_registers_in_memory() {
    let config = PcConfig { transport: Transport::Mmio, ..config(Chipset::Q35) };
    let mut p = Ports(pc::build(&config, &raw(&[0xf4])).unwrap());
    assert_eq!(p.io(Space::Memory, 0xfeb0_0000, 4, None), u64::from(u32::from_le_bytes(*b"virt")));
    assert_eq!(p.io(Space::Memory, 0xfeb0_0008, 4, None), 4);
    let full = PcConfig { virtio: vec![VirtioDevice::Rng { seed: 1 }; 5], ..config };
    assert!(pc::build(&full, &raw(&[0xf4])).is_err_and(|e| e.to_string().contains("4 slots")));
}

/// Firmware lies below 4 GiB and at the end of the first MiB; there it is ROM until the host bridge says otherwise.
#[test]
fn firmware_is_rom() {
    let mut code: Vec<u8> = vec![0x90; 256 << 10];
    let at = code.len() - 16;
    // jmp short to itself
    code[at..at + 2].copy_from_slice(&[0xeb, 0xfe]);
    let code = File { name: "bios".into(), bytes: code };
    let firmware = Some(FirmwareShape::of(&code, None).unwrap());
    let config = PcConfig { firmware, ..config(Chipset::I440Fx) };
    let mut machine = pc::build(&config, &Images { firmware: Some(code), ..Images::default() }).unwrap();
    assert_eq!(machine.run(10), End::Limit);
    assert_eq!(machine.vcpus[0].core.pc, 0xffff_fff0);
    let ram = &mut machine.world.ram;
    for at in [0xffff_fff0, 0xf_fff0] {
        assert_eq!(ram.load(at, 2), Ok(0xfeeb));
        assert!(ram.store(at, 2, 0).is_err());
    }
    assert_eq!(ram.load(0xc_0000, 1), Ok(0xff));
    // PAM0: RAM, which is still empty.
    let mut p = Ports(machine);
    p.config(0, 0x58);
    p.out(0xcfd, 1, 0x30);
    assert_eq!(p.0.world.ram.load(0xf_fff0, 2), Ok(0));
    assert!(p.0.world.ram.store(0xf_fff0, 2, 0x1234).is_ok());
    // A machine that is restored is the same.
    let image = p.0.save();
    let (mut other, _) = pc::build_empty(&config).unwrap();
    other.restore(&image).unwrap();
    assert!(other.state_hash() == p.0.state_hash());
    assert_eq!((other.world.ram.load(0xf_fff0, 2), other.world.ram.store(0xf_fff0, 1, 0)), (Ok(0x1234), Ok(())));
    assert!(other.world.ram.store(0xe_0000, 1, 0).is_err());
}

/// In real mode behind a boot loader, with this code at 0000:7C00.
fn real_mode(chipset: Chipset, code: &[u8]) -> Machine<X86> {
    // Header with addresses: all of it at 1 MiB, entry behind it.
    let (flags, at) = (1u32 << 16, 0x10_0000u32);
    let header = [0x1bad_b002, flags, 0u32.wrapping_sub(0x1bad_b002 + flags), at, at, 0, 0, at + 32];
    let mut image: Vec<u8> = header.iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
    image.push(0xf4);
    let config = PcConfig { protocol: Protocol::Multiboot, ..config(chipset) };
    let mut machine = pc::build(&config, &raw(&image)).unwrap();
    machine.world.ram.write(0x7c00, code).unwrap();
    let vcpu = &mut machine.vcpus[0];
    let data = X86::reset(0).segments[0];
    vcpu.arch.cr0 = 0x10;
    vcpu.arch.segments = [data; 6];
    vcpu.arch.idtr.limit = 0x3ff;
    vcpu.core.pc = 0x7c00;
    vcpu.core.regs[usize::from(x86::registers::RSP)] = 0x7c00;
    machine
}

/// A selector that is loaded in real mode leaves limit, granularity and default size as they were, so that the segment is one that
/// protected mode could have loaded: a VM entry asks for that.
#[test]
fn real_mode_keeps_limits_with_their_granularity() {
    // jmp 0100:6c05; mov ax, 0200h; mov ds, ax; hlt
    let code = [0xea, 0x05, 0x6c, 0x00, 0x01, 0xb8, 0x00, 0x02, 0x8e, 0xd8, 0xf4];
    let mut machine = real_mode(Chipset::Q35, &code);
    for segment in &mut machine.vcpus[0].arch.segments {
        (segment.limit, segment.attributes.0) = (u32::MAX, 0x8093);
    }
    machine.run(4);
    let segments = &machine.vcpus[0].arch.segments;
    for (i, selector) in [(1, 0x100), (3, 0x200)] {
        let s = segments[i];
        assert_eq!((s.selector, s.base, s.limit), (selector, u64::from(selector) << 4, u32::MAX));
        assert_eq!(s.attributes.0 & 0xf093, 0x8093, "segment {i}");
    }
}

/// "MS-DOS Compatibility Sub-mode": in real mode with CR0.NE clear, an unmasked exception is IRQ 13, whose handler goes by port F0h.
#[test]
fn an_error_of_the_x87_is_irq_13() {
    let code = [
        0xfa, // cli
        // 8259As: vectors 8 and 70h, IRQ 2 and 13 are let through
        0xb0, 0x11, 0xe6, 0x20, 0xe6, 0xa0, 0xb0, 0x08, 0xe6, 0x21, 0xb0, 0x70, 0xe6, 0xa1, // ICW1, ICW2
        0xb0, 0x04, 0xe6, 0x21, 0xb0, 0x02, 0xe6, 0xa1, 0xb0, 0x01, 0xe6, 0x21, 0xe6, 0xa1, // ICW3, ICW4
        0xb0, 0xfb, 0xe6, 0x21, 0xb0, 0xdf, 0xe6, 0xa1, // masks
        0x31, 0xdb, 0x8e, 0xdb, // xor bx, bx; mov ds, bx
        0xc7, 0x06, 0xd4, 0x01, 0x60, 0x7c, 0xc7, 0x06, 0xd6, 0x01, 0x00, 0x00, // vector 75h: 0000:7C60
        0x8e, 0xd3, 0xbc, 0x00, 0x7c, 0xfb, // mov ss, bx; mov sp, 7C00h; sti
        0xdb, 0xe3, 0xc7, 0x06, 0x00, 0x06, 0x7b,
        0x03, // fninit; mov [0600h], 037Bh: division by zero is unmasked
        0xd9, 0x2e, 0x00, 0x06, 0xd9, 0xe8, 0xd9, 0xee, 0xde, 0xf9, // fldcw [0600h]; fld1; fldz; fdivp
        0xbe, 0x01, 0x00, // mov si, 1
        0xd9, 0xe8, // fld1: here it stands still
        0x66, 0x89, 0xf8, 0x66, 0xe7, 0xf4, // mov eax, edi; out F4h, eax
    ];
    // inc di; fnstsw ax; mov dx, ax; out F0h, al; fnclex; mov al, 20h; out A0h, al; out 20h, al; iret
    let handler = [0x47, 0xdf, 0xe0, 0x89, 0xc2, 0xe6, 0xf0, 0xdb, 0xe2, 0xb0, 0x20, 0xe6, 0xa0, 0xe6, 0x20, 0xcf];
    let mut image = code.to_vec();
    assert!(image.len() <= 0x60);
    image.resize(0x60, 0x90);
    image.extend(handler);
    let mut machine = real_mode(Chipset::I440Fx, &image);
    assert_eq!(machine.run(10_000), End::PowerOff(1 << 1 | 1), "one interrupt");
    let regs = &machine.vcpus[0].core.regs;
    assert_eq!((regs[6] & 0xffff, regs[2] & 0x84), (1, 0x84), "the handler has seen ES and ZE");
}

/// Without firmware, INIT brings what was loaded back, and leaves the rest of memory; or goes to 40:67, as the clock's RAM says.
#[test]
fn a_start_with_memory_as_it_was() {
    let config = PcConfig { protocol: Protocol::Raw { bits: 32, at: 0x10_0000 }, ..config(Chipset::Q35) };
    let code = [
        0xfe, 0x05, 0x00, 0x00, 0x10, 0x00, // inc byte [100000h]: the first byte, which is brought back
        0xfe, 0x05, 0x00, 0x20, 0x00, 0x00, // inc byte [2000h]
        0x80, 0x3d, 0x00, 0x20, 0x00, 0x00, 0x03, // cmp byte [2000h], 3
        0x74, 0x05, // je end
        0xb0, 0xfe, 0xe6, 0x64, // out 64h, FEh: INIT by the keyboard controller
        0xf4, // hlt
        0xb0, 0x03, 0xe6, 0xf4, // end: out F4h, 3
    ];
    let mut machine = pc::build(&config, &raw(&code)).unwrap();
    assert_eq!(machine.run(10_000), End::PowerOff(3 << 1 | 1));
    assert_eq!((machine.world.ram.load(0x2000, 1), machine.world.ram.load(0x10_0000, 1)), (Ok(3), Ok(0xff)));
    // Likewise, but that the start before the last goes by way of 40:67, which is a HLT at 0000:3000.
    let mut machine = pc::build(&config, &raw(&code)).unwrap();
    let World { bus, ram, door, .. } = &mut machine.world;
    for (port, value) in [(0x70, 0xf), (0x71, 0xa)] {
        bus.write(Space::Port, port, 1, value, BusCx { now: 0, ram, door }).unwrap();
    }
    ram.write(0x467, &[0, 0x30, 0, 0]).unwrap();
    ram.write(0x3000, &[0xf4]).unwrap();
    assert_eq!(machine.run(10_000), End::Deadlock);
    assert_eq!((machine.vcpus[0].core.pc, machine.world.ram.load(0x2000, 1)), (0x3001, Ok(1)));
}

/// Suspend to RAM, as both chipsets have it: the clock's alarm wakes the PC, which goes where the FACS says with memory as it was.
#[test]
fn suspend_and_wake() {
    for (chipset, suspend) in [(Chipset::Q35, 0x34), (Chipset::I440Fx, 0x24)] {
        let config = PcConfig { protocol: Protocol::Raw { bits: 32, at: 0x10_0000 }, vcpus: 2, ..config(chipset) };
        let mut code = vec![0xc7, 0x05, 0x4c, 0x00, 0x0e, 0x00, 0x05, 0x30, 0x00, 0x00]; // the waking vector: 3005h
        for (index, value) in [(1, 0xc0), (3, 0xc0), (5, 0xc0), (0xb, 0x22)] {
            code.extend([0xb0, index, 0xe6, 0x70, 0xb0, value, 0xe6, 0x71]); // an alarm each second
        }
        code.extend([0x66, 0xba, 0x02, 0x06, 0x66, 0xb8, 0x00, 0x04, 0x66, 0xef]); // RTC_EN
        code.extend([0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, suspend, 0x66, 0xef]); // SLP_EN
        code.extend([0xb0, 0x7f, 0xe6, 0xf4]); // it must not come here
        let mut machine = pc::build(&config, &raw(&code)).unwrap();
        // mov dx, 600h; in ax, dx; mov al, ah; out F4h, al, of CS 300h and IP 5
        machine.world.ram.write(0x3005, &[0xba, 0x00, 0x06, 0xed, 0x88, 0xe0, 0xe6, 0xf4]).unwrap();
        assert_eq!(machine.run(10_000), End::PowerOff(0x84 << 1 | 1), "{chipset:?}: WAK_STS and RTC_STS");
        assert!((500_000_000..2_100_000_000).contains(&machine.now()), "{}", machine.now());
        assert_eq!(machine.vcpus[0].arch.segments[1].selector, 0x300);
    }
}

/// A program in real mode behind a boot loader: BIOS services that are not there say so, the timer ticks and wakes it.
#[test]
fn real_mode_behind_multiboot() {
    // int 15h; mov cx, ax; sbb bl, bl; sti; hlt; cli; mov eax, [046ch]; out 0f4h, eax
    let code = [0xcd, 0x15, 0x89, 0xc1, 0x18, 0xdb, 0xfb, 0xf4, 0xfa, 0x66, 0xa1, 0x6c, 0x04, 0x66, 0xe7, 0xf4];
    let mut machine = real_mode(Chipset::Q35, &code);
    assert_eq!(machine.run(1000), End::PowerOff(1 << 1 | 1), "one tick");
    let regs = &machine.vcpus[0].core.regs;
    let (carry, ah) =
        (regs[usize::from(x86::registers::RBX)] as u8, (regs[usize::from(x86::registers::RCX)] >> 8) as u8);
    assert_eq!((carry, ah), (0xff, 0x86));
    assert!(machine.now() > 54_000_000, "a period of 18.2 Hz has gone by");
}
