//! The oracle.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kvm_bindings::{kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use memmap2::MmapMut;
use x86::control::{DR7_ENABLES, cr0, cr4};
use x86::processor::X86;
use x86::segment::Segment;

/// No run lasts longer.
pub const LIMIT: Duration = Duration::from_millis(300);
/// Bytes of RAM, from address 0.
pub const RAM: usize = 0x20_0000;

/// What there is underneath.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A processor's virtualization.
    Hardware,
    /// Ring 0 is emulated: POPCNT there ends the run.
    Software,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Halted,
    Shutdown,
    /// It cannot do this.
    Refused,
    TimedOut,
}

pub struct Oracle {
    vcpu: VcpuFd,
    vm: VmFd,
    pub ram: MmapMut,
    pub kind: Kind,
    cr4: u64,
}

fn segment(s: &Segment) -> kvm_segment {
    let a = s.attributes.0;
    let bit = |n: u32| (a >> n & 1) as u8;
    kvm_segment {
        base: s.base,
        limit: s.limit,
        selector: s.selector,
        type_: (a & 15) as u8,
        s: bit(4),
        dpl: (a >> 5 & 3) as u8,
        present: bit(7),
        avl: bit(12),
        l: bit(13),
        db: bit(14),
        g: bit(15),
        unusable: u8::from(s.attributes.is_unusable()),
        padding: 0,
    }
}

/// Lends so many bytes of RAM to a machine; with 0, takes them back.
fn lend(vm: &VmFd, ram: &mut MmapMut, bytes: usize) -> Option<()> {
    let region = kvm_userspace_memory_region {
        slot: 0,
        guest_phys_addr: 0,
        memory_size: bytes as u64,
        userspace_addr: ram.as_mut_ptr() as u64,
        flags: 0,
    };
    // SAFETY: the mapping lives as long as the machine does.
    #[expect(unsafe_code, reason = "guest RAM is lent to KVM for the life of the oracle")]
    unsafe {
        vm.set_user_memory_region(region).ok()
    }
}

extern "C" fn nothing(_: libc::c_int) {}

impl Oracle {
    /// `None` if there is no KVM that opens.
    pub fn open() -> Option<Oracle> {
        let kvm = Kvm::new().ok()?;
        let vm = kvm.create_vm().ok()?;
        let mut ram = MmapMut::map_anon(RAM).ok()?;
        lend(&vm, &mut ram, RAM)?;
        let vcpu = vm.create_vcpu(0).ok()?;
        let cpuid = kvm.get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES).ok()?;
        vcpu.set_cpuid2(&cpuid).ok()?;
        let extended = cpuid.as_slice().iter().find(|e| e.function == 7 && e.index == 0).map_or(0, |e| e.ebx);
        let bit = |n: u32, bit: u64| if extended >> n & 1 != 0 { bit } else { 0 };
        let cr4 = cr4::PSE | cr4::PGE | bit(7, cr4::SMEP) | bit(20, cr4::SMAP);
        let mut oracle = Oracle { vcpu, vm, ram, kind: Kind::Hardware, cr4 };
        // POPCNT EAX, EAX; HLT.
        oracle.ram[0x1000..0x1005].copy_from_slice(&[0xf3, 0x0f, 0xb8, 0xc0, 0xf4]);
        let mut state = X86::flat_64();
        state.efer = 0;
        state.cr4 = 0;
        state.segments[1].attributes.0 = 0xc09b;
        if oracle.run(&state, &[0; 16], 0x1000) != End::Halted {
            oracle.kind = Kind::Software;
        }
        Some(oracle)
    }

    /// Runs from a state until HLT.
    pub fn run(&mut self, cpu: &X86, regs: &[u64; 16], pc: u64) -> End {
        assert_eq!(cpu.dr7 & DR7_ENABLES, 0);
        if cpu.cr0 & cr0::PG != 0 {
            // Page tables have changed behind its back: it forgets what it has made of them.
            lend(&self.vm, &mut self.ram, 0).expect("RAM can be taken back");
            lend(&self.vm, &mut self.ram, RAM).expect("and lent again");
        }
        let mut s = self.vcpu.get_sregs().unwrap();
        let [es, cs, ss, ds, fs, gs] = cpu.segments.each_ref().map(segment);
        (s.es, s.cs, s.ss, s.ds, s.fs, s.gs) = (es, cs, ss, ds, fs, gs);
        (s.tr, s.ldt) = (segment(&cpu.tr), segment(&cpu.ldtr));
        (s.gdt.base, s.gdt.limit) = (cpu.gdtr.base, cpu.gdtr.limit);
        (s.idt.base, s.idt.limit) = (cpu.idtr.base, cpu.idtr.limit);
        (s.cr0, s.cr2, s.cr3, s.cr4, s.efer) = (cpu.cr0, cpu.cr2, cpu.cr3, cpu.cr4, cpu.efer);
        if self.vcpu.set_sregs(&s).is_err() {
            return End::Refused;
        }
        let mut r = self.vcpu.get_regs().unwrap();
        for (i, place) in [
            &mut r.rax, &mut r.rcx, &mut r.rdx, &mut r.rbx, &mut r.rsp, &mut r.rbp, &mut r.rsi, &mut r.rdi, &mut r.r8,
            &mut r.r9, &mut r.r10, &mut r.r11, &mut r.r12, &mut r.r13, &mut r.r14, &mut r.r15,
        ]
        .into_iter()
        .enumerate()
        {
            *place = regs[i];
        }
        (r.rip, r.rflags) = (pc - cpu.segments[1].base, cpu.rflags);
        self.vcpu.set_regs(&r).unwrap();
        self.go()
    }

    /// KVM_RUN, with a signal that ends it.
    fn go(&mut self) -> End {
        #[expect(unsafe_code, reason = "a signal handler that does nothing, and the thread's own number")]
        // SAFETY: the handler does nothing.
        let (me, process) = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = nothing as *const () as usize;
            libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut());
            (libc::syscall(libc::SYS_gettid), libc::getpid())
        };
        let (done, late) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let timer = scope.spawn(|| {
                std::thread::park_timeout(LIMIT);
                // Until it has been heard: the first may come before KVM_RUN has begun.
                while !done.load(Ordering::SeqCst) {
                    late.store(true, Ordering::SeqCst);
                    #[expect(unsafe_code, reason = "a signal to a thread that is waited for")]
                    // SAFETY: the thread lives, for it waits for this one.
                    unsafe {
                        libc::syscall(libc::SYS_tgkill, process, me, libc::SIGUSR1)
                    };
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            let end = loop {
                match self.vcpu.run() {
                    Ok(VcpuExit::Hlt) => break End::Halted,
                    Ok(VcpuExit::Shutdown) => break End::Shutdown,
                    Err(e) if e.errno() == libc::EINTR || e.errno() == libc::EAGAIN => {
                        if late.load(Ordering::SeqCst) {
                            break End::TimedOut;
                        }
                    }
                    _ => break End::Refused,
                }
            };
            done.store(true, Ordering::SeqCst);
            timer.thread().unpark();
            end
        })
    }

    /// General registers, instruction pointer, flags.
    pub fn registers(&self) -> ([u64; 16], u64, u64) {
        let r = self.vcpu.get_regs().unwrap();
        let general = [
            r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14,
            r.r15,
        ];
        (general, r.rip, r.rflags)
    }

    /// CR0, CR2, CR3, CR4.
    pub fn control(&self) -> [u64; 4] {
        let s = self.vcpu.get_sregs().unwrap();
        [s.cr0, s.cr2, s.cr3, s.cr4]
    }

    /// Selectors of ES, CS, SS, DS, FS, GS, LDTR, TR, and their bases, limits and attributes where they are usable.
    pub fn segments(&self) -> [(u16, u64, u32, u32); 8] {
        let s = self.vcpu.get_sregs().unwrap();
        [s.es, s.cs, s.ss, s.ds, s.fs, s.gs, s.ldt, s.tr].map(|s| {
            let bits =
                [(s.type_, 0), (s.s, 4), (s.dpl, 5), (s.present, 7), (s.avl, 12), (s.l, 13), (s.db, 14), (s.g, 15)];
            let attributes = bits.iter().fold(0, |all, (value, at)| all | u32::from(*value) << at);
            if s.unusable != 0 { (s.selector, 0, 0, 0) } else { (s.selector, s.base, s.limit, attributes) }
        })
    }

    /// Bits of CR4 that its CPUID lets one set, of those that cases do.
    pub fn cr4(&self) -> u64 {
        self.cr4
    }
}
