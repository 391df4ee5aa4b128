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
        .long   device - phases

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

#include "kvm_instructions.inc"
#include "kvm_interrupts.inc"
#include "kvm_device.inc"

# Nobody can take an exception any more.
triple_fault:
        push    $0
        push    $0
        lidt    (%rsp)
        ud2

text:   .ascii  "KVM-GUEST: hello from long mode\n"
text_end:

#include "kvm_modes.inc"

        .globl  guest_end
guest_end:
        .section .note.GNU-stack, "", @progbits
