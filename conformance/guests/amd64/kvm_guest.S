# The guest of kvm_client.c: position-independent code at guest physical 0x1_0000.
#
# In long mode it takes commands from user space through a mailbox (`struct mailbox` in kvm_client.c), to which the GS base
# points: it reads a command and four arguments, calls that phase, leaves two results, and says so by a byte to port DONE.
# User space builds the GDT, the IDT, the TSSs and the page tables.
#
# The same image has what another processor does after SIPI, and `modes`, which starts in real-address mode and goes through
# every mode of a processor and back.

        .equ    BASE, 0x10000           # where guest_start is; as a segment of real-address mode, 0x1000
        .equ    MMIO, 0xd0000000
        .equ    WINDOW, 0x200000
        .equ    GDT, 0x3000
        .equ    IDT, 0x4000
        .equ    PML4, 0x40000
        .equ    PAGE_DIRECTORY, 0x46000 # of 4-MByte pages, for 32-bit paging
        .equ    PAE_POINTERS, 0x47000   # the four PDPTEs, for PAE paging

        .equ    DONE,    0xe0           # ports
        .equ    STAGE,   0xe1
        .equ    ECHO,    0xe4
        .equ    CONSOLE, 0xe8
        .equ    FORMS,   0xec
        .equ    RAISE,   0xf8
        .equ    LOWER,   0xfc

        .equ    COMMAND,    0x00        # of the mailbox
        .equ    ARGS,       0x08
        .equ    RESULTS,    0x28
        .equ    VECTOR,     0x38
        .equ    ERROR,      0x40
        .equ    FAULT_CR2,  0x48
        .equ    FAULT_RIP,  0x50
        .equ    RESUME,     0x58
        .equ    RESUME_RSP, 0x60
        .equ    EOI,        0x68
        .equ    LEVEL,      0x70
        .equ    SUM,        0x78
        .equ    COUNT,      0x80

        .equ    EOI_XAPIC, 1
        .equ    EOI_X2APIC, 2
        .equ    EOI_PIC, 3

        .equ    CODE64, 0x08            # selectors
        .equ    DATA,   0x10
        .equ    CODE32, 0x18
        .equ    CODE16, 0x20
        .equ    DATA16, 0x28            # base 0, limit FFFFH
        .equ    USER_DATA, 0x33
        .equ    USER_CODE, 0x3b
        .equ    TSS1,   0x50
        .equ    NOT_PRESENT, 0x60
        .equ    TSS32_FROM, 0x68
        .equ    TSS32_TO, 0x70

        .equ    APIC, 0xfee00000

        .section .text.guest, "ax", @progbits
        .balign 4096
        .globl  guest_start
guest_start:
# Where SIPI starts a processor: real-address mode, CS:IP = 1000H:0.
        .code16
        cli
        mov     %cs, %ax
        mov     %ax, %ds
        lgdtl   gdt_pointer - guest_start
        mov     $0x620, %eax            # PAE, OSFXSR, OSXMMEXCPT
        mov     %eax, %cr4
        mov     $PML4, %eax
        mov     %eax, %cr3
        mov     $0xc0000080, %ecx       # IA32_EFER
        rdmsr
        or      $0x901, %eax            # NXE, LME, SCE
        wrmsr
        mov     $0x80050033, %eax       # PG, AM, WP, NE, ET, MP, PE
        mov     %eax, %cr0
        ljmpl   $CODE64, $BASE + (second64 - guest_start)

        .balign 8
gdt_pointer:
        .word   0x7f
        .long   GDT
idt_pointer:
        .word   0xfff
        .quad   IDT

        .code64
        .globl  guest64
guest64:
        mov     %gs:COMMAND, %eax
        mov     %gs:ARGS, %rdi
        mov     %gs:ARGS + 8, %rsi
        mov     %gs:ARGS + 16, %rdx
        mov     %gs:ARGS + 24, %rcx
        lea     phases(%rip), %rbx
        movslq  (%rbx, %rax, 4), %rax
        add     %rbx, %rax
        call    *%rax
        mov     %rax, %gs:RESULTS
        mov     %rdx, %gs:RESULTS + 8
        out     %al, $DONE
        jmp     guest64

        # In the order of `enum phase` in kvm_client.c.
        .balign 4
phases: .long   hello - phases
        .long   forms - phases
        .long   echo_port - phases
        .long   echo_mmio - phases
        .long   cpuid - phases
        .long   msr - phases
        .long   hypercall - phases
        .long   touch - phases
        .long   set_cr3 - phases
        .long   access - phases
        .long   exception - phases
        .long   user - phases
        .long   apic - phases
        .long   timer - phases
        .long   pit - phases
        .long   external - phases
        .long   ipi - phases
        .long   floating - phases
        .long   step - phases
        .long   two_processors - phases
        .long   time_stamps - phases
        .long   triple_fault - phases

# Interrupts and exceptions: gate n goes to stub n, 16 bytes each. Every one counts.
        .balign 16
        .globl  stubs
stubs:  vector = 0
        .rept   256
        .balign 16
        .if     !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21)
        push    $0
        .endif
        push    $vector
        .if     vector < 32 && vector != 2
        jmp     fault
        .else
        jmp     interrupt
        .endif
        vector = vector + 1
        .endr

# An exception says what it is, and goes on where the phase wants to.
fault:  push    %rax
        mov     8(%rsp), %rax
        mov     %rax, %gs:VECTOR
        incq    %gs:COUNT(, %rax, 8)
        mov     16(%rsp), %rax
        mov     %rax, %gs:ERROR
        mov     %cr2, %rax
        mov     %rax, %gs:FAULT_CR2
        mov     24(%rsp), %rax
        mov     %rax, %gs:FAULT_RIP
        mov     %gs:RESUME, %rax
        test    %rax, %rax
        jz      1f
        mov     %rax, 24(%rsp)
        movq    $CODE64, 32(%rsp)
        movq    $2, 40(%rsp)
        mov     %gs:RESUME_RSP, %rax
        mov     %rax, 48(%rsp)
        movq    $DATA, 56(%rsp)
1:      pop     %rax
        add     $16, %rsp
        iretq

interrupt:
        push    %rax
        push    %rcx
        push    %rdx
        mov     24(%rsp), %rax
        mov     %rax, %gs:VECTOR
        incq    %gs:COUNT(, %rax, 8)
        cmp     $2, %eax                # an NMI knows no EOI
        je      9f
        cmpl    $0, %gs:LEVEL
        je      1f
        out     %al, $LOWER             # the line must be down before EOI
1:      mov     %gs:EOI, %ecx
        cmp     $EOI_XAPIC, %ecx
        je      2f
        cmp     $EOI_X2APIC, %ecx
        je      3f
        cmp     $EOI_PIC, %ecx
        jne     9f
        mov     $0x20, %al
        out     %al, $0x20
        jmp     9f
2:      mov     $APIC + 0xb0, %edx
        movl    $0, (%rdx)
        jmp     9f
3:      mov     $0x80b, %ecx            # IA32_X2APIC_EOI
        xor     %eax, %eax
        xor     %edx, %edx
        wrmsr
9:      pop     %rdx
        pop     %rcx
        pop     %rax
        add     $16, %rsp
        iretq

# A line of text by one instruction.
hello:  lea     text(%rip), %rsi
        mov     $text_end - text, %ecx
        mov     $CONSOLE, %edx
        cld
        rep outsb
        xor     %eax, %eax
        ret

# Instructions that KVM must take apart. Each load of MMIO's FORMS finds 8182_8384_8586_8788H, the port all or part of
# 8586_8788H. => rax: one bit for each that was wrong
        .macro  expect register, value
        mov     $\value, %r9
        add     %r8, %r8
        cmp     %r9, \register
        setne   %r9b
        movzbl  %r9b, %r9d
        or      %r9, %r8
        .endm

forms:  xor     %r8, %r8
        mov     $MMIO + 0x80, %ebx
        mov     $-1, %rax
        mov     (%rbx), %al
        expect  %rax, 0xffffffffffffff88
        mov     $-1, %rax
        mov     (%rbx), %ax
        expect  %rax, 0xffffffffffff8788
        mov     $-1, %rax
        mov     (%rbx), %eax
        expect  %rax, 0x85868788
        mov     (%rbx), %rax
        expect  %rax, 0x8182838485868788
        movzbl  (%rbx), %eax
        expect  %rax, 0x88
        movzwl  (%rbx), %eax
        expect  %rax, 0x8788
        movsbq  (%rbx), %rax
        expect  %rax, 0xffffffffffffff88
        movswq  (%rbx), %rax
        expect  %rax, 0xffffffffffff8788
        movslq  (%rbx), %rax
        expect  %rax, 0xffffffff85868788
        mov     $0x1000, %eax
        add     (%rbx), %eax
        expect  %rax, 0x85869788
        mov     $0xff, %eax
        and     (%rbx), %rax
        expect  %rax, 0x88
        pushq   (%rbx)
        pop     %rax
        expect  %rax, 0x8182838485868788
        xor     %eax, %eax
        testb   $0x80, (%rbx)
        setnz   %al
        expect  %rax, 1
        xor     %eax, %eax
        cmpl    $0x85868788, (%rbx)
        sete    %al
        expect  %rax, 1
        # stores: `stored` in user space has their lengths and values
        mov     $0x1122334455667788, %rax
        mov     %al, (%rbx)
        mov     %ax, (%rbx)
        mov     %eax, (%rbx)
        mov     %rax, (%rbx)
        movb    $0x5a, (%rbx)
        movl    $0x12345678, (%rbx)
        orl     $0x70000000, (%rbx)     # a load and a store
        incq    (%rbx)                  # with LOCK, KVM would say in the kernel's log what it thinks of that
        mov     %rbx, %rdi
        mov     $0x77, %eax
        cld
        stosw
        # strings between MMIO and memory
        mov     %rbx, %rsi
        mov     $WINDOW, %edi
        mov     $2, %ecx
        rep movsl
        mov     WINDOW, %rax
        expect  %rax, 0x8586878885868788
        # ports of all sizes
        mov     $FORMS, %edx
        mov     $-1, %rax
        in      $FORMS, %al
        expect  %rax, 0xffffffffffffff88
        mov     $-1, %rax
        in      %dx, %ax
        expect  %rax, 0xffffffffffff8788
        mov     $-1, %rax
        in      %dx, %eax
        expect  %rax, 0x85868788
        mov     $0x11223344, %eax
        out     %al, $FORMS
        out     %ax, %dx
        out     %eax, %dx
        mov     $WINDOW, %edi
        mov     $3, %ecx
        rep insl
        mov     WINDOW + 4, %rax
        expect  %rax, 0x8586878885868788
        mov     $WINDOW + 10, %edi
        mov     $2, %ecx
        std
        rep insw
        cld
        mov     WINDOW + 8, %eax
        expect  %rax, 0x87888788
        expect  %rdi, WINDOW + 6
        mov     $WINDOW + 4, %esi
        mov     $2, %ecx
        rep outsl
        expect  %rsi, WINDOW + 12
        mov     %r8, %rax
        ret

# rdi: how many pairs of OUT and IN => rax: the sum of what was read
echo_port:
        xor     %ecx, %ecx
        xor     %ebx, %ebx
1:      cmp     %rdi, %rcx
        je      2f
        mov     %ecx, %eax
        out     %eax, $ECHO
        in      $ECHO, %eax
        add     %rax, %rbx
        inc     %rcx
        jmp     1b
2:      mov     %rbx, %rax
        ret

# rdi: how many pairs of a store and a load => rax: the sum of what was loaded
echo_mmio:
        mov     $MMIO + 0x40, %esi
        xor     %ecx, %ecx
        xor     %ebx, %ebx
1:      cmp     %rdi, %rcx
        je      2f
        mov     %rcx, (%rsi)
        mov     (%rsi), %rax
        add     %rax, %rbx
        inc     %rcx
        jmp     1b
2:      mov     %rbx, %rax
        ret

# rdi: how often, rsi: leaf => rax: the sum of EAX, rdx: that of EBX, ECX and EDX
cpuid:  xor     %r8, %r8
        xor     %r9, %r9
1:      test    %rdi, %rdi
        jz      2f
        mov     %esi, %eax
        xor     %ecx, %ecx
        cpuid
        add     %rax, %r8
        add     %rbx, %r9
        add     %rcx, %r9
        add     %rdx, %r9
        dec     %rdi
        jmp     1b
2:      mov     %r8, %rax
        mov     %r9, %rdx
        ret

# rdi: how many pairs of WRMSR and RDMSR, rsi: the MSR => rax: the sum of what was read
msr:    xor     %r8, %r8
        mov     %esi, %ecx
1:      test    %rdi, %rdi
        jz      2f
        mov     %edi, %eax
        xor     %edx, %edx
        wrmsr
        rdmsr
        shl     $32, %rdx
        or      %rdx, %rax
        add     %rax, %r8
        dec     %rdi
        jmp     1b
2:      mov     %r8, %rax
        ret

# rdi: how often, rsi: the call's number, rdx: 1 for AMD's instruction => rax: the sum of what the calls return
hypercall:
        xor     %r8, %r8
        mov     %rdx, %r9
1:      test    %rdi, %rdi
        jz      4f
        mov     %rsi, %rax
        xor     %ebx, %ebx
        test    %r9, %r9
        jnz     2f
        vmcall
        jmp     3f
2:      vmmcall
3:      add     %rax, %r8
        dec     %rdi
        jmp     1b
4:      mov     %r8, %rax
        ret

# rdi: address, rsi: how many quadwords, rdx: stride, rcx: value of the first store (the next is one more)
# => rax: the sum of what stood there before
touch:  xor     %eax, %eax
1:      test    %rsi, %rsi
        jz      2f
        add     (%rdi), %rax
        mov     %rcx, (%rdi)
        add     %rdx, %rdi
        inc     %rcx
        dec     %rsi
        jmp     1b
2:      ret

# rdi: CR3, rsi: CR4 => rax: CR3 as it reads, rdx: CR4
set_cr3:
        mov     %cr3, %rax
        test    $0xfff, %eax            # PCIDE may change with PCID 0 only
        jz      1f
        and     $~0xfff, %rax
        mov     %rax, %cr3
1:      test    $0xfff, %edi
        jnz     2f
        mov     %rdi, %cr3
        mov     %rsi, %cr4
        jmp     3f
2:      mov     %rsi, %cr4
        mov     %rdi, %cr3
3:      mov     %cr3, %rax
        mov     %cr4, %rdx
        ret

        .macro  resume_at label
        movq    $-1, %gs:VECTOR
        movq    $-1, %gs:ERROR
        lea     \label(%rip), %rax
        mov     %rax, %gs:RESUME
        mov     %rsp, %gs:RESUME_RSP
        .endm

# rdi: address, rsi: 0 for a load, 1 for a store, 2 for a fetch, 3 for INVLPG => rax: vector, rdx: error code, -1 where nothing happened
access: resume_at raised
        cmp     $1, %esi
        jb      1f
        je      2f
        cmp     $2, %esi
        je      3f
        invlpg  (%rdi)
        jmp     raised
1:      mov     (%rdi), %rcx
        jmp     raised
2:      mov     %rdi, (%rdi)
        jmp     raised
3:      call    *%rdi                   # a RET stands there
raised: mov     %gs:VECTOR, %rax
        mov     %gs:ERROR, %rdx
        movq    $0, %gs:RESUME
        ret

# rdi: which => as above
exception:
        resume_at raised
        lea     kinds(%rip), %rbx
        movslq  (%rbx, %rdi, 4), %rax
        add     %rbx, %rax
        mov     $0x8000000000000000, %rdx
        jmp     *%rax
        .balign 4
kinds:  .long   divide - kinds
        .long   breakpoint - kinds
        .long   undefined - kinds
        .long   not_canonical - kinds
        .long   beyond_gdt - kinds
        .long   not_present - kinds
        .long   stack - kinds
        .long   icebp - kinds
        .long   software - kinds
        .long   no_device - kinds
        .long   simd - kinds
        .long   single_step - kinds
        .long   hardware_breakpoint - kinds
        .long   no_such_msr - kinds
        .long   reserved_cr4 - kinds
divide: xor     %ecx, %ecx
        xor     %edx, %edx
        div     %ecx
breakpoint:
        int3
undefined:
        ud2
not_canonical:
        mov     (%rdx), %rax
beyond_gdt:
        mov     $0x88, %eax
        mov     %eax, %es
not_present:
        mov     $NOT_PRESENT, %eax
        mov     %eax, %es
stack:  mov     %rdx, %rbp
        mov     (%rbp), %rax
icebp:  .byte   0xf1
software:
        int     $0x77
        jmp     raised                  # an interrupt goes on behind it
no_device:
        mov     %cr0, %rax
        or      $8, %rax                # TS
        mov     %rax, %cr0
        lea     1f(%rip), %rax
        mov     %rax, %gs:RESUME
        movaps  %xmm0, %xmm1
1:      clts
        movaps  %xmm0, %xmm1
        jmp     raised
simd:   push    $0x1d00                 # division by zero is not masked
        ldmxcsr (%rsp)
        xorps   %xmm0, %xmm0
        mov     $1, %eax
        cvtsi2ss %eax, %xmm1
        lea     1f(%rip), %rax
        mov     %rax, %gs:RESUME
        mov     %rsp, %gs:RESUME_RSP
        divss   %xmm0, %xmm1
1:      movl    $0x1f80, (%rsp)
        ldmxcsr (%rsp)
        add     $8, %rsp
        jmp     raised
single_step:
        pushfq
        orl     $0x100, (%rsp)
        popfq
        nop
        nop
hardware_breakpoint:
        lea     2f(%rip), %rax
        mov     %rax, %dr0
        mov     $0x401, %eax            # DR0 on execution
        mov     %rax, %dr7
        lea     1f(%rip), %rax
        mov     %rax, %gs:RESUME
        nop
2:      nop
1:      mov     %dr6, %rcx
        mov     %rcx, %gs:SUM
        mov     $0x400, %eax
        mov     %rax, %dr7
        jmp     raised
no_such_msr:
        mov     $0xdead0000, %ecx
        rdmsr
reserved_cr4:
        mov     %cr4, %rax
        bts     $63, %rax
        mov     %rax, %cr4

# rdi: how many SYSCALLs of CPL 3, which ends by CLI => as `access`; the sum of what they return is in the mailbox
user:   resume_at raised
        mov     $0xc0000081, %ecx       # IA32_STAR
        xor     %eax, %eax
        mov     $(USER_DATA - 8) << 16 | CODE64, %edx
        wrmsr
        lea     on_syscall(%rip), %rax
        mov     %rax, %rdx
        shr     $32, %rdx
        mov     $0xc0000082, %ecx       # IA32_LSTAR
        wrmsr
        mov     $0xc0000084, %ecx       # IA32_FMASK
        mov     $0x200, %eax
        xor     %edx, %edx
        wrmsr
        mov     %rsp, %rax
        pushq   $USER_DATA
        sub     $0x1000, %rax
        push    %rax
        pushq   $2
        pushq   $USER_CODE
        lea     1f(%rip), %rax
        push    %rax
        iretq
1:      xor     %ebp, %ebp
        mov     %rdi, %rbx
2:      mov     %rbx, %rax
        syscall
        add     %rax, %rbp
        dec     %rbx
        jnz     2b
        mov     %rbp, %gs:SUM
        int     $0x80
        cli
on_syscall:
        lea     1(%rax, %rax, 2), %rax
        sysretq

# The local APIC. rdi: 1 for xAPIC mode, 2 for x2APIC mode; rsi: 1 if LINT0 takes the 8259s' interrupts => rax: its version
apic:   mov     $0x1b, %ecx             # IA32_APIC_BASE
        rdmsr
        and     $~0xc00, %eax
        wrmsr
        or      $0x800, %eax
        wrmsr
        mov     %rdi, %gs:EOI
        cmp     $1, %edi
        je      1f
        or      $0x400, %eax
        wrmsr
        mov     $0x80f, %ecx            # IA32_X2APIC_SIVR
        mov     $0x1ff, %eax
        xor     %edx, %edx
        wrmsr
        mov     $0x803, %ecx
        rdmsr
        ret
1:      mov     $APIC, %ebx
        movl    $0x1ff, 0xf0(%rbx)      # the spurious-interrupt vector, and on
        movl    $0x10000, 0x350(%rbx)
        test    %rsi, %rsi
        jz      2f
        movl    $0x700, 0x350(%rbx)     # LINT0 is ExtINT
        movq    $EOI_PIC, %gs:EOI
        lea     pic_commands(%rip), %rsi
3:      movzbl  (%rsi), %edx
        mov     1(%rsi), %al
        add     $2, %rsi
        test    %edx, %edx
        jz      2f
        out     %al, %dx
        jmp     3b
2:      mov     0x30(%rbx), %eax
        ret
        # Interrupts 20H and up of the first, 28H and up of the second; only the first's lines 0 and 5 are let in.
pic_commands:
        .byte   0x20, 0x11, 0x21, 0x20, 0x21, 4, 0x21, 1, 0x21, 0xde
        .byte   0xa0, 0x11, 0xa1, 0x28, 0xa1, 2, 0xa1, 1, 0xa1, 0xff, 0, 0

# Waits until the count of interrupts r10 is no longer r11. r9: 1 by HLT, else by spinning.
wait_for_interrupt:
        cmp     %r11, %gs:COUNT(, %r10, 8)
        jne     2f
        test    %r9, %r9
        jz      1f
        sti
        hlt
        cli
        jmp     wait_for_interrupt
1:      sti
        pause
        cli
        jmp     wait_for_interrupt
2:      ret

        .macro  time_stamp register
        rdtsc
        shl     $32, %rdx
        lea     (%rax, %rdx), \register
        .endm

# The local APIC's timer. rdi: how often, rsi: ticks to each, rdx bit 0: wait by HLT, bit 1: TSC deadline, bit 2: x2APIC mode
# => rax: 0, or 1 where one came early, rdx: the sum of the TSC from start to end
timer:  mov     %rdx, %r9
        mov     %rdx, %r8
        and     $1, %r9
        mov     $0x40, %r10d
        mov     $APIC, %ebx
        xor     %r12d, %r12d
        mov     $0x40, %eax             # vector; one-shot
        test    $2, %r8d
        jz      1f
        or      $0x40000, %eax
1:      test    $4, %r8d
        jnz     2f
        movl    $0xb, 0x3e0(%rbx)       # divide by 1
        mov     %eax, 0x320(%rbx)
        jmp     3f
2:      xor     %edx, %edx
        mov     $0x832, %ecx
        wrmsr
        mov     $0xb, %eax
        mov     $0x83e, %ecx
        wrmsr
3:      mfence
        cli
4:      test    %rdi, %rdi
        jz      9f
        mov     %gs:COUNT + 0x40 * 8, %r11
        time_stamp %r13
        test    $2, %r8d
        jnz     5f
        test    $4, %r8d
        jnz     6f
        mov     %esi, 0x380(%rbx)
        jmp     7f
6:      mov     %esi, %eax
        xor     %edx, %edx
        mov     $0x838, %ecx
        wrmsr
        jmp     7f
5:      lea     (%r13, %rsi), %rax
        mov     %rax, %rdx
        shr     $32, %rdx
        mov     $0x6e0, %ecx            # IA32_TSC_DEADLINE
        wrmsr
7:      call    wait_for_interrupt
        time_stamp %r14
        sub     %r13, %r14
        add     %r14, %r12
        test    $2, %r8d
        jz      8f
        cmp     %rsi, %r14
        jb      early
8:      dec     %rdi
        jmp     4b
9:      xor     %eax, %eax
        mov     %r12, %rdx
        ret
early:  mov     $1, %eax
        mov     %r14, %rdx
        ret

# The 8254's channel 0 as a rate generator. rdi: how many interrupts, rsi: their vector, rdx: the divisor => rax: 0
pit:    cli
        mov     %rsi, %r10
        mov     $1, %r9d
        mov     $0x34, %al
        out     %al, $0x43
        mov     %edx, %eax
        out     %al, $0x40
        mov     %ah, %al
        out     %al, $0x40
1:      test    %rdi, %rdi
        jz      2f
        mov     %gs:COUNT(, %r10, 8), %r11
        call    wait_for_interrupt
        dec     %rdi
        jmp     1b
2:      mov     $0xff, %al              # nothing is let in
        out     %al, $0x21
        mov     $0x30, %al              # one-shot, and as late as it can be
        out     %al, $0x43
        mov     $0xff, %al
        out     %al, $0x40
        out     %al, $0x40
        xor     %eax, %eax
        ret

# Interrupts that user space raises. rdi: how many, rsi: vector, rdx: 1 by HLT, rcx: 1 if each is asked for
# => rax: how many there were
external:
        cli
        mov     %rsi, %r10
        mov     %rdx, %r9
        xor     %ebx, %ebx
1:      test    %rdi, %rdi
        jz      3f
        mov     %gs:COUNT(, %r10, 8), %r11
        test    %rcx, %rcx
        jz      2f
        out     %al, $RAISE
2:      call    wait_for_interrupt
        mov     %gs:COUNT(, %r10, 8), %rax
        sub     %r11, %rax
        add     %rax, %rbx
        dec     %rdi
        jmp     1b
3:      mov     %rbx, %rax
        ret

# Writes r13 to the interrupt command register (bits 63:32 are what x2APIC mode has there). Changes rax, rcx, rdx.
send_ipi:
        mov     %r13, %rax
        mov     %r13, %rdx
        shr     $32, %rdx
        cmpl    $EOI_X2APIC, %gs:EOI
        je      1f
        shl     $24, %edx
        mov     $APIC, %ecx
        mov     %edx, 0x310(%rcx)
        mov     %eax, 0x300(%rcx)
        ret
1:      mov     $0x830, %ecx            # IA32_X2APIC_ICR
        wrmsr
        ret

# rdi: how many, rsi: vector, rdx: the interrupt command, rcx: 1 to wait by HLT => rax: how many came
ipi:    cli
        mov     %rsi, %r10
        mov     %rdx, %r13
        mov     %rcx, %r9
        xor     %ebx, %ebx
1:      test    %rdi, %rdi
        jz      2f
        mov     %gs:COUNT(, %r10, 8), %r11
        call    send_ipi
        call    wait_for_interrupt
        inc     %rbx
        dec     %rdi
        jmp     1b
2:      mov     %rbx, %rax
        ret

# rdi: where the registers' values stand, rsi: where they go, rdx: how many exits in between, rcx: XCR0, or 0 for none
# => rax: XCR0 as it reads
floating:
        mov     %rcx, %r8
        mov     %rdx, %r9
        test    %r8, %r8
        jz      1f
        mov     %cr4, %rax
        or      $0x40000, %rax          # OSXSAVE
        mov     %rax, %cr4
        xor     %ecx, %ecx
        mov     %r8d, %eax
        xor     %edx, %edx
        xsetbv
1:      fninit
        fldl    (%rdi)
        fldl    8(%rdi)
        test    $4, %r8d
        jnz     2f
        .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
        movups  \n * 32(%rdi), %xmm\n
        .endr
        jmp     3f
2:      .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
        vmovups \n * 32(%rdi), %ymm\n
        .endr
3:      mov     %r9d, %eax
        out     %eax, $ECHO
        mov     $MMIO + 0x40, %ebx
        mov     (%rbx), %eax
        mov     $0x40000000, %eax
        cpuid
        dec     %r9
        jnz     3b
        test    $4, %r8d
        jnz     4f
        .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
        movups  %xmm\n, \n * 32(%rsi)
        .endr
        jmp     5f
4:      .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
        vmovups %ymm\n, \n * 32(%rsi)
        .endr
        vzeroupper
5:      faddp
        fstpl   512(%rsi)
        xor     %eax, %eax
        test    %r8, %r8
        jz      6f
        xor     %ecx, %ecx
        xgetbv
6:      ret

# Ten instructions of one byte, for a debugger.
        .globl  step_begin, step_end, breakpoint_here
step:   xor     %eax, %eax
step_begin:
        nop
        clc
        cmc
        push    %rdx
        pop     %rdx
        cld
        stc
        nop
        nop
        nop
step_end:
        int3                            # user space's
breakpoint_here:
        nop
        ret

# rdi: how many => rax: how often the TSC went backwards, rdx: the last
time_stamps:
        xor     %r8d, %r8d
        time_stamp %r9
1:      test    %rdi, %rdi
        jz      3f
        time_stamp %r10
        cmp     %r9, %r10
        jae     2f
        inc     %r8
2:      mov     %r10, %r9
        dec     %rdi
        jmp     1b
3:      mov     %r8, %rax
        mov     %r9, %rdx
        ret

# Ping-pong by IPIs with processor 1, which is started here by INIT and SIPI, and put back by INIT.
# rdi: how often, rsi: two quadwords (ping, pong), rdx: how often all that => rax: 0, or what was wrong, rdx: the last pong
        .equ    READY, 0x5245414459
        .equ    IPI_VECTOR, 0x41
two_processors:
        mov     %rsi, %rbx
        mov     %rdx, %r15
        mov     $IPI_VECTOR, %r10d
        mov     $1, %r9d
        cli
0:      movq    $0, 8(%rbx)
        mov     $1 << 32 | 0x4500, %r13 # INIT
        call    send_ipi
        mov     $1 << 32 | 0x4600 | BASE >> 12, %r13
        call    send_ipi                # SIPI
        mov     $READY, %rcx
1:      pause
        cmp     %rcx, 8(%rbx)
        jne     1b
        xor     %esi, %esi
        mov     $1 << 32 | 0x4000 | IPI_VECTOR, %r13
2:      cmp     %rdi, %rsi
        je      3f
        inc     %rsi
        mov     %rsi, (%rbx)
        mov     %gs:COUNT + IPI_VECTOR * 8, %r11
        call    send_ipi
        call    wait_for_interrupt
        cmp     %rsi, 8(%rbx)
        jne     4f
        jmp     2b
3:      dec     %r15
        jnz     0b
        mov     $1 << 32 | 0x4500, %r13 # INIT
        call    send_ipi
        mov     %rsi, %rdx
        xor     %eax, %eax
        ret
4:      mov     8(%rbx), %rax
        mov     %rsi, %rdx
        ret

second64:
        mov     $DATA, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        mov     $0x2f000, %esp
        mov     $0xc0000101, %ecx       # IA32_GS_BASE: the second mailbox
        mov     $0x2000, %eax
        xor     %edx, %edx
        wrmsr
        lidt    idt_pointer(%rip)
        lea     GDT + TSS1 + 5, %rax
        andb    $~2, (%rax)             # it may have been busy before INIT
        mov     $TSS1, %eax
        ltr     %ax
        mov     $1, %edi
        xor     %esi, %esi
        call    apic
        mov     $WINDOW, %ebx
        mov     $IPI_VECTOR, %r10d
        mov     $1, %r9d
        mov     $0x4000 | IPI_VECTOR, %r13d
        mov     $READY, %rcx
        mov     %gs:COUNT + IPI_VECTOR * 8, %r11
        mov     %rcx, 8(%rbx)
1:      call    wait_for_interrupt
        inc     %r11
        mov     (%rbx), %rax
        mov     %rax, 8(%rbx)
        call    send_ipi
        jmp     1b

# Nobody can take an exception any more.
triple_fault:
        push    $0
        push    $0
        lidt    (%rsp)
        ud2

text:   .ascii  "KVM-GUEST: hello from long mode\n"
text_end:

# From real-address mode through all others and back. What it finds goes to the port STAGE.
        .macro  report
        out     %eax, $STAGE
        .endm
        .macro  load_segments selector
        mov     $\selector, %ax
        mov     %ax, %ds
        mov     %ax, %es
        mov     %ax, %ss
        .endm
        .macro  set_bit bit, register
        mov     %\register, %eax
        bts     $\bit, %eax
        mov     %eax, %\register
        .endm
        .macro  clear_bit bit, register
        mov     %\register, %eax
        btr     $\bit, %eax
        mov     %eax, %\register
        .endm
        .equ    REAL, BASE >> 4

        .code16
        .globl  modes
modes:  cli
        mov     $REAL, %ax
        mov     %ax, %ds
        xor     %ax, %ax
        mov     %ax, %es
        mov     %ax, %ss
        mov     $0x2000, %sp
        mov     $0x16000001, %eax
        report
        # Interrupts through the table at 0, software's and an exception.
        movw    $real_interrupt - guest_start, %es:0x21 * 4
        movw    $REAL, %es:0x21 * 4 + 2
        movw    $real_divide - guest_start, %es:0
        movw    $REAL, %es:2
        mov     $5, %eax
        int     $0x21
        report
        xor     %dx, %dx
        mov     $7, %ax
        xor     %cx, %cx
1:      div     %cx
        movzwl  %ax, %eax
        report
        # A segment's base is its selector's; a wrap at 64 KBytes does not happen with limits of 16 bits.
        mov     $0x3000, %ax
        mov     %ax, %fs
        mov     $0xcafe, %ax
        mov     %ax, %fs:0x10
        mov     $0x3001, %ax
        mov     %ax, %fs
        movzwl  %fs:0, %eax
        report
        # Strings and a call with a segment.
        push    %es
        mov     $0x3000, %ax
        mov     %ax, %es
        mov     $text - guest_start, %si
        xor     %di, %di
        mov     $text_end - text, %cx
        cld
        rep movsb
        mov     %es:0, %eax
        pop     %es
        report
        lcall   $REAL, $real_far - guest_start
        report
        mov     $text - guest_start, %si
        mov     $4, %cx
        mov     $CONSOLE, %dx
        rep outsb
        # Protected mode just long enough for a segment with another limit.
        lgdtl   gdt_pointer - guest_start
        set_bit 0, cr0
        mov     $DATA, %bx
        mov     %bx, %gs
        clear_bit 0, cr0
        mov     $0x300000, %ebx
        movl    $0x600d600d, %gs:(%ebx)
        mov     %gs:(%ebx), %eax
        report
        # 16-bit protected mode.
        set_bit 0, cr0
        ljmp    $CODE16, $2f - guest_start
2:      load_segments DATA16
        mov     %ax, %fs
        mov     %ax, %gs
        mov     $0x2000, %sp
        smsw    %ax
        movzwl  %ax, %eax
        and     $1, %eax
        or      $0x16100000, %eax
        report
        mov     $CODE16, %ax
        lsl     %ax, %eax
        report
        pushl   $0x16161616
        pop     %ax
        pop     %ax
        movzwl  %ax, %eax
        report
        ljmpl   $CODE32, $BASE + (protected - guest_start)

real_interrupt:
        add     %ax, %ax
        or      $0x16000000, %eax
        iret
real_divide:
        push    %bp
        mov     %sp, %bp
        addw    $2, 2(%bp)              # behind the DIV
        pop     %bp
        mov     $0xd0, %ax
        iret
real_far:
        mov     $0x16000fa7, %eax
        lret

        .code32
protected:
        load_segments DATA
        mov     $0x2000, %esp
        mov     $0x32000001, %eax
        report
        lidtl   BASE + (idt32_pointer - guest_start)
        xor     %eax, %eax
        int     $0x30
        report
        ud2
        report
        mov     $0x1234, %ax
        mov     %ax, %fs                # #GP with this selector
        report
        # 32-bit paging with pages of 4 MBytes.
        set_bit 4, cr4                  # PSE
        mov     $PAGE_DIRECTORY, %eax
        mov     %eax, %cr3
        set_bit 31, cr0
        mov     0x00400000 + BASE + (text - guest_start), %eax # it is mapped twice
        report
        mov     0xfff00000, %eax        # #PF
        report
        mov     %cr2, %eax
        report
        clear_bit 31, cr0
        # A task, and back by IRET.
        mov     $TSS32_FROM, %eax
        ltr     %ax
        lcall   $TSS32_TO, $0
        report
        mov     %edi, %eax
        report
        # PAE paging.
        clear_bit 4, cr4
        set_bit 5, cr4
        mov     $PAE_POINTERS, %eax
        mov     %eax, %cr3
        set_bit 31, cr0
        mov     0x40000000 + BASE + (text - guest_start), %eax # the second GByte is the first one
        report
        clear_bit 31, cr0
        # Long mode: compatibility mode, then 64-bit mode.
        mov     $PML4, %eax
        mov     %eax, %cr3
        mov     $0xc0000080, %ecx
        rdmsr
        bts     $8, %eax                # LME
        wrmsr
        set_bit 31, cr0
        rdmsr
        report
        ljmp    $CODE64, $BASE + (long_mode - guest_start)
        .code64
long_mode:
        mov     $0x6464646400000000, %rax
        shr     $32, %rax
        report
        lea     text(%rip), %rbx
        mov     (%rbx), %eax
        report
        pushq   $CODE32
        lea     compatibility(%rip), %rbx
        push    %rbx
        lretq
        .code32
compatibility:
        mov     $-1, %eax
        inc     %eax                    # in 64-bit mode it would be a prefix
        report
        clear_bit 31, cr0
        mov     $0xc0000080, %ecx
        rdmsr
        report
        btr     $8, %eax
        wrmsr
        ljmp    $CODE16, $3f - guest_start
        .code16
3:      load_segments DATA16
        clear_bit 0, cr0
        ljmp    $REAL, $4f - guest_start
4:      xor     %ax, %ax
        mov     %ax, %ss
        mov     $0x2000, %sp
        mov     $REAL, %ax
        mov     %ax, %ds
        lidtl   real_idt - guest_start
        mov     $6, %eax
        int     $0x21
        report
        hlt

        .code32
        # Each leaves its own number, and skips what did it.
interrupt_30:
        mov     $0x32000030, %eax
        iret
undefined_32:
        addl    $2, (%esp)
        mov     $0x32000006, %eax
        iret
protection_32:
        pop     %eax
        addl    $2, (%esp)
        or      $0x320d0000, %eax
        iret
page_fault_32:
        pop     %eax
        addl    $5, (%esp)              # MOV EAX from an absolute address
        or      $0x320e0000, %eax
        iret
        .globl  task_32
task_32:
        mov     $0x32007a5c, %edi       # in this task only
        str     %ax
        movzwl  %ax, %eax
        out     %eax, $STAGE
        iret

        .globl  handlers_32
        .balign 4
handlers_32:
        .long   0x30, interrupt_30 - guest_start, 6, undefined_32 - guest_start
        .long   13, protection_32 - guest_start, 14, page_fault_32 - guest_start, 0, 0
idt32_pointer:
        .word   0x7ff
        .long   IDT
real_idt:
        .word   0x3ff
        .long   0
        .code64
        .globl  guest_end
guest_end:
        .section .note.GNU-stack, "", @progbits
