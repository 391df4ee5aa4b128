# The guest of kvm_client.c: position-independent code that runs in VS-mode at guest physical 0x8000_0000.
#
# It takes commands from user space through one page of MMIO (the offsets are those of `enum mmio` in kvm_client.c):
# it reads COMMAND and four arguments, calls that phase, and writes RESULT1 and then RESULT0. Everything that a phase
# needs to say fits in two registers; user space knows what they must be.
#
# Registers that outlive a phase:
#   s0   the MMIO page
#   s7   scratch of the trap handler
#   s8   scause of the last trap
#   s9   stval of the last exception
#   s10  number of traps taken

        .equ    CONSOLE, 0x00
        .equ    COMMAND, 0x08
        .equ    ARG0,    0x10
        .equ    RESULT0, 0x30
        .equ    RESULT1, 0x38
        .equ    ECHO,    0x40
        .equ    RAISE,   0x48
        .equ    LOWER,   0x50
        .equ    FORMS,   0x80

        .equ    stimecmp, 0x14d
        .equ    siselect, 0x150
        .equ    sireg,    0x151
        .equ    stopei,   0x15c
        .equ    EIDELIVERY,  0x70
        .equ    EITHRESHOLD, 0x72
        .equ    EIE0,        0xc0

        .equ    SSTATUS_SIE, 1 << 1
        .equ    SSTATUS_FS,  3 << 13
        .equ    SOFTWARE, 1
        .equ    TIMER,    5
        .equ    EXTERNAL, 9

        .section .text.guest, "ax", @progbits
        .option norvc
        .option norelax                 # else the linker moves what .balign has aligned
        .balign 4096
        .globl  guest_start
guest_start:
        li      s0, 0x10000000
        li      s10, 0
        lla     t0, trap
        csrw    stvec, t0
        csrci   sstatus, SSTATUS_SIE
        li      t0, SSTATUS_FS
        csrs    sstatus, t0

command:
        ld      t0, COMMAND(s0)
        ld      a0, ARG0(s0)
        ld      a1, ARG0 + 8(s0)
        ld      a2, ARG0 + 16(s0)
        ld      a3, ARG0 + 24(s0)
        lla     t1, phases
        slli    t0, t0, 2
        add     t0, t0, t1
        lw      t0, 0(t0)
        add     t0, t0, t1
        jalr    t0
        sd      a1, RESULT1(s0)
        sd      a0, RESULT0(s0)
        j       command

        # In the order of `enum phase` in kvm_client.c.
phases: .word   hello - phases
        .word   forms - phases
        .word   echo - phases
        .word   call_sbi - phases
        .word   touch - phases
        .word   set_satp - phases
        .word   fault - phases
        .word   timer - phases
        .word   external - phases
        .word   floating - phases
        .word   two_harts - phases
        .word   shutdown - phases

# An exception skips its instruction; an interrupt masks itself in sie, and the phase enables it again.
        .balign 4
trap:   csrr    s8, scause
        addi    s10, s10, 1
        bltz    s8, 1f
        csrr    s9, stval
        csrr    s7, sepc
        addi    s7, s7, 4
        csrw    sepc, s7
        sret
1:      li      s7, 1
        sll     s7, s7, s8              # the low six bits of scause are the interrupt's number
        csrc    sie, s7
        sret

# A line of text, a byte an exit.
hello:  lla     t0, text
1:      lbu     t1, 0(t0)
        beqz    t1, 2f
        sb      t1, CONSOLE(s0)
        addi    t0, t0, 1
        j       1b
2:      li      a0, 0
        ret

# Every form of load and store that KVM emulates; each load of FORMS finds 0x8182838485868788.
# => a0: one bit for each load that was wrong
        .macro  expect register, value
        li      t1, \value
        xor     t1, t1, \register
        snez    t1, t1
        slli    a0, a0, 1
        or      a0, a0, t1
        .endm

forms:  mv      t6, sp
        li      a0, 0
        addi    a3, s0, FORMS
        lb      t0, FORMS(s0)
        expect  t0, 0xffffffffffffff88
        lbu     t0, FORMS(s0)
        expect  t0, 0x88
        lh      t0, FORMS(s0)
        expect  t0, 0xffffffffffff8788
        lhu     t0, FORMS(s0)
        expect  t0, 0x8788
        lw      t0, FORMS(s0)
        expect  t0, 0xffffffff85868788
        lwu     t0, FORMS(s0)
        expect  t0, 0x85868788
        ld      t0, FORMS(s0)
        expect  t0, 0x8182838485868788
        .option push
        .option rvc
        .balign 4
        c.lw    a4, 0(a3)
        c.ld    a5, 0(a3)
        c.mv    sp, a3
        c.lwsp  t3, 0(sp)
        c.ldsp  t4, 0(sp)
        .balign 4
        .option pop
        expect  a4, 0xffffffff85868788
        expect  a5, 0x8182838485868788
        expect  t3, 0xffffffff85868788
        expect  t4, 0x8182838485868788
        li      a4, 0x1122334455667788
        sb      a4, FORMS(s0)
        sh      a4, FORMS(s0)
        sw      a4, FORMS(s0)
        sd      a4, FORMS(s0)
        .option push
        .option rvc
        .balign 4
        c.sw    a4, 0(a3)
        c.sd    a4, 0(a3)
        c.swsp  a4, 0(sp)
        c.sdsp  a4, 0(sp)
        .balign 4
        .option pop
        mv      sp, t6
        ret

# a0: how many pairs of a store and a load of ECHO => a0: the sum of what was loaded
echo:   li      t0, 0
        li      t1, 0
1:      beq     t0, a0, 2f
        sd      t0, ECHO(s0)
        ld      t2, ECHO(s0)
        add     t1, t1, t2
        addi    t0, t0, 1
        j       1b
2:      mv      a0, t1
        ret

# a0: how many calls, a1: SBI extension, a2: function; each call's own argument is its number
# => a0: all errors or'ed, a1: the sum of the values
call_sbi:
        mv      t0, a0
        mv      a7, a1
        mv      a6, a2
        li      t1, 0                   # number
        li      t2, 0                   # errors
        li      t3, 0                   # sum
1:      beq     t1, t0, 2f
        mv      a0, t1
        li      a1, 0
        ecall
        or      t2, t2, a0
        add     t3, t3, a1
        addi    t1, t1, 1
        j       1b
2:      mv      a0, t2
        mv      a1, t3
        ret

# a0: address, a1: how many doublewords, a2: stride, a3: value of the first store (the next is one more)
# => a0: the sum of what stood there before
touch:  li      t1, 0
1:      beqz    a1, 2f
        ld      t0, 0(a0)
        add     t1, t1, t0
        sd      a3, 0(a0)
        add     a0, a0, a2
        addi    a3, a3, 1
        addi    a1, a1, -1
        j       1b
2:      mv      a0, t1
        ret

# a0: satp => a0: satp as it reads
set_satp:
        csrw    satp, a0
        sfence.vma
        csrr    a0, satp
        ret

# a0: address, a1: 0 for a load, 1 for a store, 2 for an AMO => a0: scause, a1: stval, or both -1 where nothing happened
fault:  li      s8, -1
        li      s9, -1
        li      t0, 1
        beq     a1, t0, 1f
        bgtu    a1, t0, 2f
        ld      t0, 0(a0)
        j       3f
1:      sd      t0, 0(a0)
        j       3f
2:      amoadd.d t0, t0, (a0)
3:      mv      a0, s8
        mv      a1, s9
        ret

# Waits for one trap. t5: s10 as it was before the interrupt could come; a2 bit 1: by WFI, else by spinning.
        .macro  wait_for_trap
        andi    t2, a2, 2
        beqz    t2, 2f
1:      wfi                             # wakes with SIE clear too, so that the interrupt cannot slip in before it
        csrsi   sstatus, SSTATUS_SIE
        nop
        csrci   sstatus, SSTATUS_SIE
        beq     t5, s10, 1b
        j       3f
2:      csrsi   sstatus, SSTATUS_SIE
        beq     t5, s10, 2b
        csrci   sstatus, SSTATUS_SIE
3:
        .endm

        .macro  fail_unless_cause number
        li      t2, (1 << 63) | \number
        bne     s8, t2, failed
        .endm

failed: mv      a0, s8
        li      a1, -1
        ret

# a0: how many interrupts, a1: ticks to each, a2 bit 0: by stimecmp, else by SBI set_timer
# => a0: 0, a1: the sum of the ticks that they came late
timer:  li      t6, 0
        li      a4, 0
        mv      a3, a0
        mv      a5, a1
4:      beq     t6, a3, 8f
        csrci   sstatus, SSTATUS_SIE
        mv      t5, s10
        rdtime  t1
        add     t1, t1, a5
        andi    t2, a2, 1
        beqz    t2, 5f
        csrw    stimecmp, t1
        j       6f
5:      mv      t3, a2
        mv      a0, t1
        li      a7, 0x54494d45          # "TIME"
        li      a6, 0
        ecall
        mv      a2, t3
        bnez    a0, failed
6:      li      t2, 1 << TIMER
        csrs    sie, t2
        wait_for_trap
        fail_unless_cause TIMER
        rdtime  t2
        bltu    t2, t1, failed          # never early
        sub     t2, t2, t1
        add     a4, a4, t2
        addi    t6, t6, 1
        j       4b
8:      li      a0, 0
        mv      a1, a4
        ret

# a0: how many interrupts, a1: address of our own IMSIC page,
# a2 bit 0: through the IMSIC, else a line that user space raises and lowers; a2 bit 2: the MSI is our own store
# => a0: 0, a1: the sum of the interrupt identities
external:
        li      t6, 0
        li      a4, 0
        mv      a3, a0
        andi    t2, a2, 1
        beqz    t2, 4f
        li      t2, EIDELIVERY
        csrw    siselect, t2
        csrwi   sireg, 1
        li      t2, EITHRESHOLD
        csrw    siselect, t2
        csrwi   sireg, 0
        li      t2, EIE0
        csrw    siselect, t2
        li      t2, -1
        csrw    sireg, t2
4:      beq     t6, a3, 8f
        csrci   sstatus, SSTATUS_SIE
        mv      t5, s10
        li      t2, 1 << EXTERNAL
        csrs    sie, t2
        andi    t3, t6, 15
        addi    t3, t3, 1               # identities 1 to 16: KVM's own IMSIC enables none above 31 (it writes words)
        andi    t2, a2, 4
        beqz    t2, 5f
        sw      t3, 0(a1)               # seteipnum_le
        j       6f
5:      sd      t3, RAISE(s0)
6:      wait_for_trap
        fail_unless_cause EXTERNAL
        andi    t2, a2, 1
        beqz    t2, 7f
        csrrw   t3, stopei, zero        # claims it
        srli    t2, t3, 16
        xor     t3, t3, t2              # identity in bits 26:16 and priority in bits 10:0 are the same number
        slli    t3, t3, 48
        bnez    t3, failed
        add     a4, a4, t2
        addi    t6, t6, 1
        j       4b
7:      sd      t3, LOWER(s0)
        add     a4, a4, t3
        addi    t6, t6, 1
        j       4b
8:      li      a0, 0
        mv      a1, a4
        ret

# a0, a1: two doubles, kept in registers across exits => a0: their sum
floating:
        fmv.d.x fs0, a0
        fmv.d.x fs11, a1
        sd      a0, ECHO(s0)
        ld      t0, ECHO(s0)
        fadd.d  fa0, fs0, fs11
        fmv.x.d a0, fa0
        ret

        .macro  sbi extension, function
        li      a7, \extension
        li      a6, \function
        ecall
        .endm
        .equ    HSM, 0x48534d
        .equ    IPI, 0x735049
        .equ    RFENCE, 0x52464e43

        # Waits for an IPI by WFI, and takes it away.
        .macro  wait_for_ipi
        csrsi   sie, 1 << SOFTWARE
1:      wfi
        csrsi   sstatus, SSTATUS_SIE
        nop
        csrci   sstatus, SSTATUS_SIE
        beq     t5, s10, 1b
        csrci   sip, 1 << SOFTWARE
        .endm

# Ping-pong by IPIs with hart 1, which is started and stopped here; each time, both harts are told to forget translations.
# a0: how often, a1: a mailbox of two doublewords (ping, pong) => a0: 0, or what went wrong, a1: the last pong
        .equ    READY, 0x5245414459
two_harts:
        mv      s2, a0
        mv      s1, a1
        li      s3, 0
        li      a0, 1                   # hart
        lla     a1, second_hart
        mv      a2, s1
        sbi     HSM, 0                  # hart_start
        bnez    a0, 9f
        li      t0, READY
3:      ld      t1, 8(s1)
        bne     t1, t0, 3b
4:      beq     s3, s2, 6f
        addi    s3, s3, 1
        sd      s3, 0(s1)
        fence   rw, rw
        li      a0, 3                   # harts 0 and 1
        li      a1, 0
        li      a2, 0
        li      a3, -1                  # all addresses
        sbi     RFENCE, 1               # remote_sfence_vma
        bnez    a0, 9f
        mv      t5, s10
        li      a0, 2
        li      a1, 0
        sbi     IPI, 0                  # send_ipi
        bnez    a0, 9f
        wait_for_ipi
        li      a0, -1
        ld      t1, 8(s1)
        bne     t1, s3, 9f
        j       4b
6:      li      t0, -1
        sd      t0, 0(s1)
        fence   rw, rw
        li      a0, 2
        li      a1, 0
        sbi     IPI, 0
        bnez    a0, 9f
7:      li      a0, 1
        sbi     HSM, 2                  # hart_get_status
        bnez    a0, 9f
        li      t0, 1                   # stopped
        bne     a1, t0, 7b
        mv      a1, s3
9:      ret

# a0: hart, a1: the mailbox
second_hart:
        mv      s1, a1
        li      s10, 0
        lla     t0, trap
        csrw    stvec, t0
        csrci   sstatus, SSTATUS_SIE
        li      t0, READY
        sd      t0, 8(s1)
5:      mv      t5, s10
        wait_for_ipi
        fence   rw, rw
        ld      t0, 0(s1)
        li      t1, -1
        beq     t0, t1, 6f
        sd      t0, 8(s1)
        fence   rw, rw
        li      a0, 1
        li      a1, 0
        sbi     IPI, 0
        j       5b
6:      sbi     HSM, 1                  # hart_stop

shutdown:
        li      a7, 0x53525354          # "SRST"
        li      a6, 0
        li      a0, 0
        li      a1, 0
        ecall
        ret

text:   .asciz  "KVM-GUEST: hello from VS-mode\n"    # last: without C, the assembler takes all code for aligned
        .globl  guest_end
guest_end:
