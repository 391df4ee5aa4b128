// What the guests run, linked to the addresses that it has in them: from real-address mode to 64-bit mode, with one of everything that makes an
// exit. What it finds it reports by hypercalls; the VMM's answer is in `arrived` where it is an interrupt.

    .set CONSOLE, 0x3f8
    .set NUMBERS, 0x5000                // a device by ports
    .set POWER, 0x604
    .set REPORT, 1                      // hypercall: a name at EDI and a value in RSI
    .set INTERRUPT, 2                   // hypercall: interrupt EDI, now
    .set INTERRUPT_LATER, 3             // hypercall: interrupt EDI, after ESI turns
    .set APIC, 0xfee00000
    .set DEVICE, 0xd0000000             // a device in memory

    // VMCALL, which the VMM makes VMMCALL where that is the instruction.
    .macro hypercall number
    mov eax, \number
call_\@:
    vmcall
    .pushsection .guest.calls, "a"
    .word call_\@
    .popsection
    .endm

    .macro report name, value
    .pushsection .guest.names, "aw"
name_\@: .asciz "\name"
    .popsection
    mov esi, \value
    mov edi, offset name_\@
    hypercall REPORT
    .endm

    .macro print text
    mov esi, offset \text
    mov ecx, offset \text\()_end
    sub ecx, esi
    mov edx, CONSOLE
    rep outsb
    .endm

    .macro gate vector, handler
    .org idt + 16 * \vector
    .word \handler, CODE, 0x8e00, 0
    .quad 0
    .endm

    .section .guest.names, "aw"
text_real: .ascii "in real-address mode\n"
text_real_end:
text_long: .ascii "in 64-bit mode\n"
text_long_end:

    .section .guest, "awx"
    .code16
    .globl guest_start
guest_start:
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov sp, 0x7000
    cld
    print text_real

    mov eax, 0x40000000
    cpuid
    report "hypervisor", ebx

    mov word ptr [4 * 0x30], offset arrival
    mov word ptr [4 * 0x30 + 2], 0

    mov ecx, 0x1b                       // IA32_APIC_BASE
    rdmsr
    report "apic_base", eax

    mov edi, 0x30
    hypercall INTERRUPT
    sti
    hlt
    nop                                 // the crate moves RIP and leaves STI's blocking: one instruction comes before the interrupt
    cli
    movzx eax, byte ptr [arrived]
    report "real_interrupt", eax

    mov eax, offset tables
    mov cr3, eax
    mov eax, cr4
    report "cr4", eax
    mov eax, cr4
    or eax, 1 << 5                      // PAE
    mov cr4, eax
    mov ecx, 0xc0000080                 // IA32_EFER
    rdmsr
    or eax, 1 << 8                      // LME
    wrmsr
    mov eax, cr0
    and eax, ~(3 << 29)                 // CD, NW
    or eax, 1 << 31 | 1                 // PG, PE
    mov cr0, eax
    lgdt [gdt_pointer]
    .byte 0xea
    .word long_mode, 8

arrival:                                // of an interrupt in real-address mode
    mov byte ptr [arrived], 0x30
    push eax
    push ecx
    push edx
    mov ecx, 0x80b                      // EOI, by its MSR
    xor eax, eax
    xor edx, edx
    wrmsr
    pop edx
    pop ecx
    pop eax
    iret

// Paging with two levels, for which CR0.CD is cleared in the same breath.
    .globl guest_legacy
guest_legacy:
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov sp, 0x7000
    cld
    mov eax, offset directory
    mov cr3, eax
    mov eax, cr4
    or eax, 1 << 4                      // PSE
    mov cr4, eax
    mov eax, cr0
    and eax, ~(3 << 29)
    or eax, 1 << 31 | 1
    mov cr0, eax
    report "legacy_paging", eax
    mov dx, POWER
    mov ax, 0x2000
    out dx, ax

    .code64
long_mode:
    mov eax, 16
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov esp, 0x7000
    lidt [idt_pointer]
    print text_long
    mov ecx, 0xc0000080
    rdmsr
    report "efer", eax
    mov eax, 1
    cpuid
    shr ecx, 31
    report "is_guest", ecx

    // An exception of its own: #PF.
    mov ebx, 0x40000000
    mov eax, [rbx]
    mov rax, cr2
    report "page_fault", eax

    // Guest-physical addresses that are mapped when they are needed: for a write, a read, a fetch.
    mov ebx, 0x200000
    mov dword ptr [rbx + 8], 0x1234567
    report "written", [rbx + 8]
    mov ebx, 0x400000
    report "read", [rbx]
    mov ebx, 0x600010
    call rbx
    report "fetched", [rbx]

    // A page that may be read alone: a read, a write, which is let; a fetch.
    mov ebx, 0x800000
    report "read_only", [rbx]
    mov dword ptr [rbx], 0xc3
    call rbx
    report "writable", [rbx]

    // A device in memory.
    mov ebx, DEVICE
    mov dword ptr [rbx], 0x600d0000
    mov eax, 0xcafe
    mov [rbx + 4], ax
    mov ecx, [rbx]
    xor eax, eax
    mov ah, [rbx + 4]
    or ecx, eax
    report "device", ecx

    // One by ports.
    mov edx, NUMBERS
    in eax, dx
    report "number", eax
    mov edi, offset buffer
    mov ecx, 3
    rep insd
    mov eax, [buffer]
    add eax, [buffer + 4]
    add eax, [buffer + 8]
    report "numbers", eax

    // Extended states.
    mov rax, cr4
    or eax, 1 << 18                     // OSXSAVE
    mov cr4, rax
    xor ecx, ecx
    mov eax, 7
    xor edx, edx
    xsetbv
    xgetbv
    report "xcr0", eax

    // An MSR that the VMM may refuse, and one that no control switches.
    mov ecx, 0xe1                       // IA32_UMWAIT_CONTROL
    xor eax, eax
    rdmsr
    report "umwait_control", eax
    mov ecx, 0xc0000082                 // IA32_LSTAR
    mov eax, 0x10ca1
    xor edx, edx
    wrmsr
    mov ecx, 0x802                      // local APIC ID, by its MSR
    rdmsr
    report "x2apic_id", eax
    mov ecx, 0xc0000082
    rdmsr
    report "lstar", eax

    // The local APIC's registers in memory.
    mov ebx, APIC
    mov eax, [rbx + 0x30]
    report "apic_version", eax
    mov dword ptr [rbx + 0x80], 0x30    // TPR
    mov eax, [rbx + 0x80]
    report "tpr", eax
    mov dword ptr [rbx + 0x80], 0
    mov dword ptr [rbx + 0xf0], 0x1ff   // spurious interrupt, enabled

    // An interrupt that comes before it may.
    mov edi, 0x31
    hypercall INTERRUPT
    report "too_early", [arrived]
    sti
1:  cmp byte ptr [arrived], 0x31
    jne 1b
    report "window", [arrived]

    // Its own, of the local APIC: to itself, and of the timer.
    mov dword ptr [rbx + 0x310], 0
    mov dword ptr [rbx + 0x300], 0x40032
2:  cmp byte ptr [arrived], 0x32
    jne 2b
    report "self", [arrived]
    mov dword ptr [rbx + 0x320], 0x33
    mov dword ptr [rbx + 0x3e0], 0xb
    mov dword ptr [rbx + 0x380], 200000
3:  cmp byte ptr [arrived], 0x33
    jne 3b
    report "timer", [arrived]

    // One that wakes it, and one that comes while it does not ask for anything.
    mov dword ptr [rbx + 0x380], 200000
    mov byte ptr [arrived], 0
4:  hlt
    cmp byte ptr [arrived], 0x33
    jne 4b
    report "woken", [arrived]
    mov edi, 0x34
    mov esi, 3
    hypercall INTERRUPT_LATER
5:  cmp byte ptr [arrived], 0x34
    jne 5b
    report "busy", [arrived]

    mov edx, POWER
    mov eax, 0x2000
    out dx, ax
6:  hlt
    jmp 6b

    .macro handler vector
handler_\vector:
    mov byte ptr [arrived], \vector
    push rax
    mov eax, APIC
    mov dword ptr [rax + 0xb0], 0       // EOI
    pop rax
    iretq
    .endm
    handler 0x31
    handler 0x32
    handler 0x33
    handler 0x34
general_protection:
    mov eax, 0xffffffff
page_fault:                             // the instruction has two bytes, as has the other's
    add rsp, 8
    add qword ptr [rsp], 2
    iretq

    .balign 8
    .set CODE, 8
gdt:
    .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
gdt_pointer:
    .word 23
    .long gdt
idt_pointer:
    .word 16 * 0x40 - 1
    .quad idt
arrived: .long 0
buffer: .skip 12

    .balign 16
idt:
    gate 13, general_protection
    gate 14, page_fault
    gate 0x31, handler_0x31
    gate 0x32, handler_0x32
    gate 0x33, handler_0x33
    gate 0x34, handler_0x34
    .org idt + 16 * 0x40

// The first 1 GiB, and the last of the first 4, in pages of 2 MiB.
    .balign 4096
tables:
    .quad pointers_of_guest + 3
    .org tables + 4096
pointers_of_guest:
    .quad low + 3, 0, 0, high + 3
    .org tables + 2 * 4096
low:
    .set page, 0
    .rept 512
    .quad page + 0x83
    .set page, page + 0x200000
    .endr
high:
    .set page, 0xc0000000
    .rept 512
    .quad page + 0x83
    .set page, page + 0x200000
    .endr
directory:
    .set page, 0
    .rept 1024
    .long page + 0x83
    .set page, page + 0x400000
    .endr
