// PVH ("x86/HVM direct boot ABI"): protected mode without paging. From there to 64-bit mode, with the first 4 GiB mapped as they are.

    .section .note.pvh, "a", @note
    .long 4, 4, 18                      // XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long pvh_entry

    .section .boot, "ax"
    .code32
    .globl pvh_entry
pvh_entry:
    cli
    cld
    mov esp, offset stack_top
    mov edi, offset directories         // 2048 pages of 2 MiB
    mov eax, 0x83                       // present, writable, a page
1:  mov [edi], eax
    add edi, 8
    add eax, 0x200000
    jnc 1b
    mov edi, offset pointers
    mov eax, offset directories + 3
    mov ecx, 4
2:  mov [edi], eax
    add edi, 8
    add eax, 4096
    loop 2b
    mov dword ptr [top], offset pointers + 3

    mov eax, offset top
    mov cr3, eax
    mov eax, cr4
    or eax, 1 << 5 | 3 << 9             // PAE, OSFXSR, OSXMMEXCPT
    mov cr4, eax
    mov ecx, 0xc0000080                 // IA32_EFER
    rdmsr
    or eax, 1 << 11 | 1 << 8            // NXE, LME
    wrmsr
    mov eax, 1 << 31 | 1 << 16 | 1 << 5 | 1 << 4 | 1 << 1 | 1 // PG, WP, NE, ET, MP, PE
    mov cr0, eax
    lgdt [boot_gdt_pointer]
    push 8
    mov eax, offset in_64_bit_mode
    push eax
    retf

    .code64
in_64_bit_mode:
    mov eax, 16
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    call main
    ud2

// What comes by each vector: it is pushed for `interrupted`. Interrupts come where Rust expects them alone, and exceptions end all.
    .balign 16
    .globl vectors
vectors:
    .set vector, 0
    .rept 256
    .balign 16
    push vector
    jmp 4f
    .set vector, vector + 1
    .endr
4:  pop rdi
    mov rsi, [rsp]
    cld
    push rbp                            // RSP is at a multiple of 16 minus 8, as at a function's start
    mov rbp, rsp
    and rsp, -16
    call interrupted
    mov rsp, rbp
    pop rbp
    iretq

    .section .rodata.boot, "a"
    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff            // 64-bit code
    .quad 0x00cf93000000ffff            // data
boot_gdt_pointer:
    .word 23
    .long boot_gdt

    .section .bss.boot, "aw", @nobits
    .balign 4096
top: .skip 4096
pointers: .skip 4096
directories: .skip 4 * 4096
    .skip 64 * 1024
stack_top:
