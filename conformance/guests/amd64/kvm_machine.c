/* A virtual machine of KVM: how it is made and run, and what its guest asks for by ports and memory-mapped I/O. */
#include "kvm_client.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

int kvm;
unsigned patience = 100; /* seconds for one phase */

static volatile sig_atomic_t late;

static void print_registers(struct machine *m)
{
	struct kvm_regs r = { 0 };
	struct kvm_sregs s = { 0 };

	ioctl(m->vcpu, KVM_GET_REGS, &r);
	ioctl(m->vcpu, KVM_GET_SREGS, &s);
	printf("rip=%016llx flg=%016llx rsp=%016llx rbp=%016llx\n", r.rip, r.rflags, r.rsp, r.rbp);
	printf("rax=%016llx rbx=%016llx rcx=%016llx rdx=%016llx\n", r.rax, r.rbx, r.rcx, r.rdx);
	printf("rsi=%016llx rdi=%016llx  r8=%016llx  r9=%016llx\n", r.rsi, r.rdi, r.r8, r.r9);
	printf("r10=%016llx r11=%016llx r12=%016llx r13=%016llx\n", r.r10, r.r11, r.r12, r.r13);
	printf("cr0=%08llx cr2=%016llx cr3=%08llx cr4=%08llx efer=%llx\n", s.cr0, s.cr2, s.cr3, s.cr4, s.efer);
	printf("cs=%04x %08llx %08x l=%d db=%d ss=%04x gs=%04x %08llx tr=%04x %08llx\n", s.cs.selector, s.cs.base, s.cs.limit,
	       s.cs.l, s.cs.db, s.ss.selector, s.gs.selector, s.gs.base, s.tr.selector, s.tr.base);
}

void give_up(struct machine *m, const char *what)
{
	print_registers(m);
	printf("KVM-CLIENT: %s (exit reason %u) FAIL\n", what, m->run->exit_reason);
	exit(1);
}

/* A segment descriptor's eight bytes: type and so on are bits 55:40, with G and D/B or L at their end. */
static uint64_t descriptor(uint32_t base, uint32_t limit, unsigned attributes)
{
	return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)(attributes & 0xff) << 40 |
	       (uint64_t)(limit >> 16 & 0xf) << 48 | (uint64_t)(attributes >> 12 & 0xf) << 52 | (uint64_t)(base >> 24) << 56;
}

static void write_tables(struct machine *m)
{
	uint64_t *gdt = (void *)(m->ram + GDT), *idt = (void *)(m->ram + IDT), *pml4 = (void *)(m->ram + PML4);
	uint32_t *directory = (void *)(m->ram + DIRECTORY32), *tss32 = (void *)(m->ram + TSS32 + 128);
	enum { P = 1, W = 2, U = 4, LARGE = 128 };

	gdt[1] = descriptor(0, 0xfffff, 0xa09b);
	gdt[2] = descriptor(0, 0xfffff, 0xc093);
	gdt[3] = descriptor(0, 0xfffff, 0xc09b);
	gdt[4] = descriptor(BASE, 0xffff, 0x009b);
	gdt[5] = descriptor(0, 0xffff, 0x0093);
	gdt[6] = descriptor(0, 0xfffff, 0xc0f3);
	gdt[7] = descriptor(0, 0xfffff, 0xa0fb);
	gdt[8] = descriptor(TSS, 0x67, 0x008b);
	gdt[10] = descriptor(TSS + 128, 0x67, 0x0089);
	gdt[12] = descriptor(0, 0xfffff, 0xc013);
	gdt[13] = descriptor(TSS32, 0x67, 0x0089);
	gdt[14] = descriptor(TSS32 + 128, 0x67, 0x0089);
	/* RSP0 of the 64-bit TSSs; the task of 32 bits that `modes` calls */
	*(uint64_t *)(m->ram + TSS + 4) = STACK - 0x4000;
	*(uint64_t *)(m->ram + TSS + 128 + 4) = STACK - 0x4000;
	tss32[8] = address_of(task_32);
	tss32[9] = 2;                   /* EFLAGS */
	tss32[14] = STACK;              /* ESP */
	tss32[18] = tss32[20] = tss32[21] = 0x10;
	tss32[19] = 0x18;
	tss32[7] = DIRECTORY32;
	for (unsigned vector = 0; vector < 256; vector++) {
		uint64_t handler = address_of(stubs) + 16 * vector;
		unsigned attributes = vector == 0x80 || vector == 3 ? 0xee : 0x8e;
		idt[2 * vector] = (handler & 0xffff) | 8 << 16 | (uint64_t)attributes << 40 | (handler >> 16) << 48;
		idt[2 * vector + 1] = 0;
	}
	pml4[0] = (PML4 + PAGE) | U | W | P;
	for (unsigned i = 0; i < 4; i++)
		pml4[512 + i] = (PML4 + (2 + i) * PAGE) | U | W | P;
	for (uint64_t i = 0; i < 2048; i++)
		pml4[1024 + i] = i << 21 | LARGE | U | W | P;
	directory[0] = directory[1] = LARGE | W | P;
	uint64_t *pointers = (void *)(m->ram + PDPTES);
	pointers[0] = pointers[1] = (PML4 + 2 * PAGE) | P;
}

/* The IDT of 32 bits: for `modes` only. */
static void write_idt32(struct machine *m)
{
	uint64_t *idt = (void *)(m->ram + IDT);

	memset(idt, 0, PAGE);
	for (const uint32_t *entry = handlers_32; entry[1]; entry += 2) {
		uint64_t handler = BASE + entry[1];
		idt[entry[0]] = (handler & 0xffff) | 0x18 << 16 | 0x8eull << 40 | (handler >> 16) << 48;
	}
}

void set_memory(struct machine *m, unsigned flags)
{
	struct kvm_userspace_memory_region region = {
		.slot = 0, .flags = flags, .guest_phys_addr = 0, .memory_size = m->size, .userspace_addr = (uint64_t)m->ram,
	};
	call(m->vm, KVM_SET_USER_MEMORY_REGION, &region, "KVM_SET_USER_MEMORY_REGION");
}

static int create_vcpu(struct machine *m, unsigned long id, struct kvm_run **run)
{
	static struct { struct kvm_cpuid2 head; struct kvm_cpuid_entry2 entries[256]; } cpuid;
	int vcpu = call(m->vm, KVM_CREATE_VCPU, (void *)id, "KVM_CREATE_VCPU");
	int size = call(kvm, KVM_GET_VCPU_MMAP_SIZE, NULL, "KVM_GET_VCPU_MMAP_SIZE");

	*run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (*run == MAP_FAILED)
		die("mmap of a vcpu");
	cpuid.head.nent = 256;
	call(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid, "KVM_GET_SUPPORTED_CPUID");
	for (unsigned i = 0; i < cpuid.head.nent; i++) {
		struct kvm_cpuid_entry2 *e = &cpuid.entries[i];
		if (e->function == 1) {
			e->ebx = (e->ebx & 0x00ffffff) | id << 24;
			if (ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0)
				e->ecx |= 1 << 24; /* which needs KVM's local APIC, so that it is not in the list */
		}
		if (e->function == 0xb || e->function == 0x1f)
			e->edx = id;
	}
	call(vcpu, KVM_SET_CPUID2, &cpuid, "KVM_SET_CPUID2");
	return vcpu;
}

void machine_create(struct machine *m, unsigned flags, size_t size)
{
	*m = (struct machine){ .second = -1, .size = size };
	m->vm = call(kvm, KVM_CREATE_VM, NULL, "KVM_CREATE_VM");
	uint64_t identity = 0xfffbc000;
	call(m->vm, KVM_SET_IDENTITY_MAP_ADDR, &identity, "KVM_SET_IDENTITY_MAP_ADDR");
	call(m->vm, KVM_SET_TSS_ADDR, (void *)0xfffbd000, "KVM_SET_TSS_ADDR");
	if (flags & WITH_IRQCHIP) {
		struct kvm_pit_config pit = { 0 };
		call(m->vm, KVM_CREATE_IRQCHIP, NULL, "KVM_CREATE_IRQCHIP");
		call(m->vm, KVM_CREATE_PIT2, &pit, "KVM_CREATE_PIT2");
		/* KVM counts the timer's ticks that are not taken by the ends of their interrupts, of which AVIC does not tell it: not at once, then. */
		struct kvm_reinject_control reinject = { 0 };
		call(m->vm, KVM_REINJECT_CONTROL, &reinject, "KVM_REINJECT_CONTROL");
	}
	m->ram = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m->ram == MAP_FAILED)
		die("mmap of the guest's memory");
	madvise(m->ram, size, MADV_NOHUGEPAGE);
	set_memory(m, 0);
	m->mailbox = (void *)(m->ram + MAILBOXES);
	memcpy(m->ram + BASE, guest_start, guest_end - guest_start);
	write_tables(m);
	m->vcpu = create_vcpu(m, 0, &m->run);
	m->stats = ioctl(m->vcpu, KVM_GET_STATS_FD, NULL);
	if (flags & WITH_SECOND)
		m->second = create_vcpu(m, 1, &m->second_run);
}

void machine_destroy(struct machine *m)
{
	int size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, NULL);

	munmap(m->run, size);
	close(m->stats);
	close(m->vcpu);
	close(m->vm);
	munmap(m->ram, m->size);
}

void start_long_mode(struct machine *m)
{
	struct kvm_sregs s;
	struct kvm_regs regs = { .rip = address_of(guest64), .rsp = STACK, .rflags = 2 };
	struct kvm_segment data = { .limit = 0xffffffff, .selector = 0x10, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1 };

	call(m->vcpu, KVM_GET_SREGS, &s, "KVM_GET_SREGS");
	s.ds = s.es = s.fs = s.ss = s.gs = data;
	s.cs = (struct kvm_segment){ .limit = 0xffffffff, .selector = 8, .type = 11, .present = 1, .l = 1, .s = 1, .g = 1 };
	s.gs.base = MAILBOXES;
	s.tr = (struct kvm_segment){ .base = TSS, .limit = 0x67, .selector = 0x40, .type = 11, .present = 1 };
	s.ldt = (struct kvm_segment){ .unusable = 1 };
	s.gdt.base = GDT, s.gdt.limit = 0x7f;
	s.idt.base = IDT, s.idt.limit = 0xfff;
	s.cr3 = PML4;
	s.cr4 = 0x620;                  /* PAE, OSFXSR, OSXMMEXCPT */
	s.efer = 0xd01;                 /* NXE, LMA, LME, SCE */
	s.cr0 = 0x80050033;             /* PG, AM, WP, NE, ET, MP, PE */
	call(m->vcpu, KVM_SET_SREGS, &s, "KVM_SET_SREGS");
	call(m->vcpu, KVM_SET_REGS, &regs, "KVM_SET_REGS");
}

void start_real_mode(struct machine *m)
{
	struct kvm_sregs s;
	struct kvm_regs regs = { .rip = address_of(modes) - BASE, .rflags = 2 };

	write_idt32(m);
	call(m->vcpu, KVM_GET_SREGS, &s, "KVM_GET_SREGS");
	s.cs.selector = BASE >> 4, s.cs.base = BASE;
	call(m->vcpu, KVM_SET_SREGS, &s, "KVM_SET_SREGS");
	call(m->vcpu, KVM_SET_REGS, &regs, "KVM_SET_REGS");
}

void raise_line(struct machine *m, bool up)
{
	struct kvm_irq_level level = { .irq = m->number, .level = up };
	struct kvm_msi msi = { .address_lo = 0xfee00000, .data = m->number };

	switch (m->kind) {
	case LINE:
		call(m->vm, KVM_IRQ_LINE, &level, "KVM_IRQ_LINE");
		break;
	case MESSAGE:
		if (up)
			call(m->vm, KVM_SIGNAL_MSI, &msi, "KVM_SIGNAL_MSI");
		break;
	case NMI:
		if (up)
			call(m->vcpu, KVM_NMI, NULL, "KVM_NMI");
		break;
	case USER_INTERRUPT:
		m->pending |= up;
		break;
	case NOTHING:
		break;
	}
}

/* An interrupt for a guest without KVM's own interrupt controllers goes in when KVM says that it may. */
static void inject_pending(struct machine *m)
{
	struct kvm_interrupt interrupt = { m->number };

	m->run->request_interrupt_window = m->pending && !m->run->ready_for_interrupt_injection;
	if (!m->pending || !m->run->ready_for_interrupt_injection)
		return;
	call(m->vcpu, KVM_INTERRUPT, &interrupt, "KVM_INTERRUPT");
	m->pending = false;
}

static void store(struct machine *m, unsigned len, const void *data)
{
	if (m->stores == sizeof m->stored / sizeof *m->stored)
		return;
	m->stored[m->stores].len = len;
	m->stored[m->stores].value = 0;
	memcpy(&m->stored[m->stores++].value, data, len);
}

static void port_out(struct machine *m, unsigned port, unsigned len, const void *data)
{
	uint32_t value = 0;

	memcpy(&value, data, len);
	switch (port) {
	case DONE:
		m->stopped = true;
		return;
	case STAGE:
		if (m->stage_count < sizeof m->stages / sizeof *m->stages)
			m->stages[m->stage_count++] = value;
		return;
	case ECHO:
		m->echoed = value;
		return;
	case CONSOLE:
		if (m->line_len < sizeof m->line - 1)
			m->line[m->line_len++] = value;
		return;
	case FORMS:
		store(m, len, data);
		return;
	case RAISE:
		raise_line(m, true);
		return;
	case LOWER:
		raise_line(m, false);
		return;
	}
	give_up(m, "OUT to a port that nobody has");
}

static void port_in(struct machine *m, unsigned port, unsigned len, void *data)
{
	uint32_t value = 0x85868788;

	if (port == ECHO)
		value = m->echoed * 3 + 1;
	else if (port != FORMS)
		give_up(m, "IN from a port that nobody has");
	memcpy(data, &value, len);
}

static void mmio(struct machine *m)
{
	uint64_t offset = m->run->mmio.phys_addr - MMIO, value = 0x8182838485868788;
	unsigned len = m->run->mmio.len;

	if (offset != MMIO_ECHO && offset != MMIO_FORMS && offset != MMIO_FORMS + 4)
		give_up(m, "an access where nothing is");
	if (m->run->mmio.is_write && offset == MMIO_ECHO) {
		m->echoed = 0;
		memcpy(&m->echoed, m->run->mmio.data, len);
	} else if (m->run->mmio.is_write) {
		store(m, len, m->run->mmio.data);
	} else {
		if (offset == MMIO_ECHO)
			value = m->echoed * 3 + 1;
		memcpy(m->run->mmio.data, &value, len);
	}
}

static void on_alarm(int signal)
{
	(void)signal;
	late = 1;
}

unsigned run_guest(struct machine *m)
{
	sigaction(SIGALRM, &(struct sigaction){ .sa_handler = on_alarm }, NULL);
	m->stopped = false;
	late = 0;
	alarm(patience);
	while (!m->stopped) {
		if (m->pending)
			inject_pending(m);
		if (ioctl(m->vcpu, KVM_RUN, 0) < 0) {
			if (late)
				give_up(m, "the guest does not answer");
			if (errno == EINTR || errno == EAGAIN)
				continue;
			print_registers(m);
			die("KVM_RUN");
		}
		switch (m->run->exit_reason) {
		case KVM_EXIT_IO: {
			unsigned char *data = (unsigned char *)m->run + m->run->io.data_offset;
			for (unsigned i = 0; i < m->run->io.count; i++, data += m->run->io.size)
				if (m->run->io.direction == KVM_EXIT_IO_OUT)
					port_out(m, m->run->io.port, m->run->io.size, data);
				else
					port_in(m, m->run->io.port, m->run->io.size, data);
			break;
		}
		case KVM_EXIT_MMIO:
			mmio(m);
			break;
		case KVM_EXIT_IRQ_WINDOW_OPEN:
			break;
		case KVM_EXIT_HLT:
			if (!m->pending)
				return KVM_EXIT_HLT;
			break;
		default:
			return m->run->exit_reason;
		}
	}
	return 0;
}

uint64_t order(struct machine *m, enum phase phase, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3)
{
	const uint64_t args[4] = { a0, a1, a2, a3 };

	m->mailbox->command = phase;
	memcpy(m->mailbox->args, args, sizeof args);
	if (run_guest(m))
		give_up(m, "nobody expects that");
	return m->mailbox->results[0];
}
