/*
 * A small client of /dev/kvm on amd64, for processors of Intel and AMD. It needs neither a library nor another file:
 * kvm_guest.S is linked in.
 *
 *     kvm_client [word[,word...]] ...
 *
 * A word is `phase=count` (0 skips the phase; `phases` below names them; `vfio` needs the device `edu` and modules, and is off), `none` (all counts 0 from here on), `ticks` (prints
 * the time that each phase took, in ticks of the TSC), `patience=seconds` (how long a phase may take, 100).
 *
 * One line a phase, `KVM-CLIENT: <phase> count=<n> exits=<n> PASS`, and `KVM-CLIENT: OK` at the end.
 */
#include "kvm_client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cpuid.h>

struct machine m;
static long pages; /* of the window */
static bool amd;

void begin(void)
{
	begin_phase(m.stats);
}

void end(const char *name, long count, bool pass)
{
	end_phase(m.stats, name, count, pass, m.mailbox->results);
}

/* What the guest finds of a feature in its CPUID. */
bool guest_has(unsigned leaf, int reg, unsigned bit)
{
	static struct { struct kvm_cpuid2 head; struct kvm_cpuid_entry2 entries[256]; } cpuid;

	cpuid.head.nent = 256;
	call(m.vcpu, KVM_GET_CPUID2, &cpuid, "KVM_GET_CPUID2");
	for (unsigned i = 0; i < cpuid.head.nent; i++) {
		const struct kvm_cpuid_entry2 *e = &cpuid.entries[i];
		if (e->function == leaf && e->index == 0)
			return (reg == 'b' ? e->ebx : reg == 'c' ? e->ecx : e->edx) >> bit & 1;
	}
	return false;
}

static void phase_hello(long n)
{
	begin();
	order(&m, HELLO, 0, 0, 0, 0);
	end("hello", n, !strcmp(m.line, "KVM-GUEST: hello from long mode\n"));
	fputs(m.line, stdout);
}

static void phase_forms(long n)
{
	static const struct { unsigned len; uint64_t value; } expected[] = {
		{ 1, 0x88 }, { 2, 0x7788 }, { 4, 0x55667788 }, { 8, 0x1122334455667788 }, { 1, 0x5a }, { 4, 0x12345678 },
		{ 4, 0xf5868788 }, { 8, 0x8182838485868789 }, { 2, 0x77 }, { 1, 0x44 }, { 2, 0x3344 }, { 4, 0x11223344 },
		{ 4, 0x85868788 }, { 4, 0x87888788 },
	};
	unsigned count = sizeof expected / sizeof *expected;

	begin();
	bool pass = order(&m, FORM, 0, 0, 0, 0) == 0 && m.stores == count;
	for (unsigned i = 0; i < count; i++)
		if (m.stored[i].len != expected[i].len || m.stored[i].value != expected[i].value) {
			printf("KVM-CLIENT: store %u was of %u bytes, %#lx\n", i, m.stored[i].len, m.stored[i].value);
			pass = false;
		}
	end("forms", n, pass);
}

/* OUT and IN, each an exit to user space. */
static void phase_port(long n)
{
	begin();
	order(&m, ECHO_PORT, n / 2, 0, 0, 0);
	end("port", n, m.mailbox->results[0] == series(0, n / 2) * 3 + n / 2);
}

static void phase_mmio(long n)
{
	begin();
	order(&m, ECHO_MMIO, n / 2, 0, 0, 0);
	end("mmio", n, m.mailbox->results[0] == series(0, n / 2) * 3 + n / 2);
}

/* The leaf with KVM's signature: an exit that the kernel answers. */
static void phase_cpuid(long n)
{
	const uint64_t signature = 0x4b4d564bul + 0x564b4d56ul + 0x4dul;

	begin();
	order(&m, CPUID, n, 0x40000000, 0, 0);
	end("cpuid", n, m.mailbox->results[0] % n == 0 && m.mailbox->results[1] == signature * n);
}

/* IA32_MCG_STATUS, which KVM keeps in memory. */
static void phase_msr(long n)
{
	begin();
	order(&m, MSR, n / 2, 0x17a, 0, 0);
	bool pass = m.mailbox->results[0] == series(1, n / 2);
	/* MSRs that are the guest's own while it runs: what is left there is what user space finds. */
	static const unsigned own[] = { 0x174, 0x175, 0x176, 0xc0000081, 0xc0000082, 0xc0000084, 0xc0000102, 0xc0000103 };
	struct { struct kvm_msrs head; struct kvm_msr_entry entry; } get = { .head = { .nmsrs = 1 } };
	for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
		if (own[i] == 0xc0000103 && !guest_has(0x80000001, 'd', 27))
			continue;
		order(&m, MSR, 7, own[i], 0, 0);
		get.entry.index = own[i];
		pass &= ioctl(m.vcpu, KVM_GET_MSRS, &get) == 1 && get.entry.data == 1 && m.mailbox->results[0] == 28;
	}
	end("msr", n, pass);
}

/* A call that no KVM has. */
static void phase_hypercall(long n)
{
	begin();
	order(&m, HYPERCALL, n, 0xffff, amd, 0);
	end("hypercall", n, m.mailbox->results[0] == -1000ul * n);
}

/* The TSC never goes back, and user space sets it. */
static void phase_tsc(long n)
{
	const uint64_t start = 1ul << 60;
	struct { struct kvm_msrs head; struct kvm_msr_entry entry; } set = {
		.head = { .nmsrs = 1 }, .entry = { .index = 0x10, .data = start },
	};

	begin();
	bool pass = order(&m, TIME_STAMPS, n, 0, 0, 0) == 0 && m.mailbox->results[1] < start;
	call(m.vcpu, KVM_SET_MSRS, &set, "KVM_SET_MSRS");
	uint64_t before = __builtin_ia32_rdtsc();
	pass &= order(&m, TIME_STAMPS, n, 0, 0, 0) == 0;
	uint64_t elapsed = m.mailbox->results[1] - start;
	pass &= elapsed < 2 * (__builtin_ia32_rdtsc() - before) + 10000000;
	set.entry.data = 0;
	call(m.vcpu, KVM_SET_MSRS, &set, "KVM_SET_MSRS");
	end("tsc", n, pass);
}

uint64_t *window(long page)
{
	return (uint64_t *)(m.ram + WINDOW + page * PAGE);
}

/* x87, SSE and AVX registers, while user space and the kernel use their own. */
static void phase_fp(long n)
{
	bool avx = guest_has(1, 'c', 28);
	double *from = (double *)window(0), *to = (double *)window(1);
	bool pass = true;

	for (int i = 0; i < 64; i++)
		from[i] = 1.5 + i * 0.1, to[i] = 0;
	begin();
	order(&m, FLOATING, WINDOW, WINDOW + PAGE, n, avx ? 7 : 0);
	for (int i = 0; i < 64; i++)
		pass &= to[i] == (i % 4 < 2 || avx ? from[i] : 0);
	end(avx ? "fp-avx" : "fp", n, pass && to[64] == from[0] + from[1] && m.mailbox->results[0] == (avx ? 7 : 0));
}

/* The window must hold key, key + 1, ... */
static bool window_holds(uint64_t key, bool reversed)
{
	for (long i = 0; i < pages; i++)
		if (*window(reversed ? pages - 1 - i : i) != key + i)
			return false;
	return true;
}

static void phase_pages(long n)
{
	if (madvise(window(0), pages * PAGE, MADV_DONTNEED))
		die("madvise");
	begin();
	order(&m, TOUCH, WINDOW, pages, PAGE, 1000);
	end("pages", n, m.mailbox->results[0] == 0 && window_holds(1000, false));
}

/* User space takes the pages away: the guest must find new ones, full of zeros. */
static void phase_unmap(long n)
{
	order(&m, TOUCH, WINDOW, pages, PAGE, 2000);
	begin();
	if (madvise(window(0), pages * PAGE, MADV_DONTNEED))
		die("madvise");
	order(&m, TOUCH, WINDOW, pages, PAGE, 3000);
	end("unmap", n * pages, m.mailbox->results[0] == 0 && window_holds(3000, false));
}

/* Every second page is written while the dirty log is on: it must name these and no others of the window. */
static void phase_dirty(long n)
{
	uint64_t *bitmap = calloc((m.size / PAGE + 63) / 64, 8);
	struct kvm_dirty_log log = { .slot = 0, .dirty_bitmap = bitmap };
	bool pass = true;

	begin();
	set_memory(&m, KVM_MEM_LOG_DIRTY_PAGES);
	for (long round = 0; round < n; round++) {
		order(&m, TOUCH, WINDOW, pages / 2, 2 * PAGE, 4000);
		call(m.vm, KVM_GET_DIRTY_LOG, &log, "KVM_GET_DIRTY_LOG");
		for (long i = 0; i < pages; i++) {
			size_t page = WINDOW / PAGE + i;
			bool dirty = bitmap[page / 64] >> page % 64 & 1;
			pass &= dirty == (i % 2 == 0 && i / 2 < pages / 2);
		}
	}
	set_memory(&m, 0);
	free(bitmap);
	end("dirty", n * (pages / 2), pass);
}

enum { P = 1, W = 2, U = 4, A = 32, D = 64, PCIDE = 1 << 17, CR4 = 0x620 };
#define NX (1ul << 63)

static bool faults(uint64_t address, unsigned kind, uint64_t vector, uint64_t error)
{
	order(&m, ACCESS, address, kind, 0, 0);
	bool as_expected = m.mailbox->results[0] == vector && m.mailbox->results[1] == error;
	if (vector == 14)
		as_expected &= m.mailbox->cr2 == address;
	if (!as_expected)
		printf("KVM-CLIENT: access %u of %#lx: vector %ld error %#lx cr2 %#lx\n", kind, address, m.mailbox->results[0],
		       m.mailbox->results[1], m.mailbox->cr2);
	return as_expected;
}

/* The guest changes an entry of its page tables: where KVM shadows them, it does not see what user space writes there. */
static void set_entry(uint64_t *entry, uint64_t value)
{
	order(&m, TOUCH, (unsigned char *)entry - m.ram, 1, 8, value);
}

/* The window mapped once more, page by page in reverse; faults that stay in the guest; accessed and dirty flags. */
static void phase_paging(long n)
{
	enum { LOAD, STORE, FETCH, INVLPG };
	uint64_t *pml4 = (void *)(m.ram + PML4), *pdpt = (void *)(m.ram + TABLES), *middle = pdpt + 512, *leaf = pdpt + 1024;
	bool pass;

	pml4[MAPPED >> 39] = TABLES | U | W | P;
	pdpt[0] = (TABLES + PAGE) | U | W | P;
	for (long i = 0; i < pages / 512 + 1; i++)
		middle[i] = (TABLES + (2 + i) * PAGE) | U | W | P;
	for (long i = 0; i < pages; i++)
		leaf[i] = (WINDOW + (pages - 1 - i) * PAGE) | W | P;

	begin();
	order(&m, SET_CR3, PML4, CR4, 0, 0);
	pass = m.mailbox->results[0] == PML4 && m.mailbox->results[1] == CR4;
	order(&m, TOUCH, WINDOW, pages, PAGE, 5000);
	order(&m, TOUCH, MAPPED, pages, PAGE, 6000);
	pass &= m.mailbox->results[0] == series(5000, pages) && window_holds(6000, true);
	for (long i = 0; i < pages; i++)
		pass &= (leaf[i] & (A | D)) == (A | D);
	/* Not present; then present, which needs no INVLPG. */
	uint64_t beyond = MAPPED + pages * PAGE;
	pass &= faults(beyond, LOAD, 14, 0) && faults(beyond + 8, STORE, 14, 2) && faults(beyond + 16, FETCH, 14, 0x10);
	set_entry(&leaf[pages], WINDOW | P);
	pass &= faults(beyond, LOAD, -1, -1) && (leaf[pages] & (A | D)) == A;
	/* Read only, and no longer so. */
	pass &= faults(beyond, STORE, 14, 3);
	set_entry(&leaf[pages], leaf[pages] | W);
	pass &= faults(beyond, INVLPG, -1, -1) && faults(beyond, STORE, -1, -1) && (leaf[pages] & (A | D)) == (A | D);
	/* Writable, and no longer so. */
	set_entry(&leaf[pages], leaf[pages] & ~(uint64_t)W);
	pass &= faults(beyond, INVLPG, -1, -1) && faults(beyond, STORE, 14, 3);
	/* A RET to call, and not to call. */
	*(unsigned char *)window(0) = 0xc3;
	pass &= faults(beyond, FETCH, -1, -1);
	set_entry(&leaf[pages], leaf[pages] | NX);
	pass &= faults(beyond, INVLPG, -1, -1) && faults(beyond, FETCH, 14, 0x11);
	/* A reserved bit: a page of 1 GByte whose address is not a multiple of that. */
	set_entry(&pdpt[1], 1ul << 13 | 128 | P);
	pass &= faults(MAPPED + (1ul << 30), LOAD, 14, 9);
	set_entry(&pdpt[1], 0);
	/* Another CR3 without the mapping, and back. */
	uint64_t *other = (void *)(m.ram + DIRECTORY32 + 2 * PAGE);
	memcpy(other, pml4, PAGE);
	other[MAPPED >> 39] = 0;
	order(&m, SET_CR3, DIRECTORY32 + 2 * PAGE, CR4, 0, 0);
	pass &= faults(MAPPED, LOAD, 14, 0) && faults(WINDOW, LOAD, -1, -1);
	order(&m, SET_CR3, PML4, CR4, 0, 0);
	pass &= faults(MAPPED, LOAD, -1, -1);
	end("paging", n, pass);
}

/* Two address spaces with identifiers: each keeps its own translations. */
static void phase_pcid(long n)
{
	uint64_t *one = (void *)(m.ram + PML4), *other = (void *)(m.ram + DIRECTORY32 + 2 * PAGE);
	bool has = guest_has(1, 'c', 17), pass = true;

	begin();
	memcpy(other, one, PAGE);
	other[MAPPED >> 39] = 0;
	for (int i = 0; has && i < 10; i++) {
		order(&m, SET_CR3, PML4 | 1, CR4 | PCIDE, 0, 0);
		pass &= m.mailbox->results[0] == (PML4 | 1) && faults(MAPPED, 0, -1, -1);
		order(&m, SET_CR3, (DIRECTORY32 + 2 * PAGE) | 2, CR4 | PCIDE, 0, 0);
		pass &= faults(MAPPED, 0, 14, 0);
	}
	order(&m, SET_CR3, PML4, CR4, 0, 0);
	end(has ? "pcid" : "pcid-absent", n, pass);
}

static void phase_exceptions(long n)
{
	static const struct { const char *name; uint64_t vector, error; } kinds[] = {
		{ "#DE", 0, 0 }, { "#BP", 3, 0 }, { "#UD", 6, 0 }, { "#GP", 13, 0 }, { "#GP(selector)", 13, 0x88 },
		{ "#NP", 11, 0x60 }, { "#SS", 12, 0 }, { "INT1", 1, 0 }, { "INT n", 0x77, -1 }, { "#NM", 7, 0 }, { "#XM", 19, 0 },
		{ "TF", 1, 0 }, { "DR0", 1, 0 }, { "RDMSR", 13, 0 }, { "CR4", 13, 0 },
	};
	bool pass = true;

	begin();
	for (long round = 0; round < n; round++)
		for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
			order(&m, EXCEPTION, i, 0, 0, 0);
			if (m.mailbox->results[0] != kinds[i].vector || m.mailbox->results[1] != kinds[i].error) {
				printf("KVM-CLIENT: %s: vector %ld, error code %#lx\n", kinds[i].name, m.mailbox->results[0],
				       m.mailbox->results[1]);
				pass = false;
			}
		}
	end("exceptions", n, pass && (m.mailbox->sum & 1));
}

static void phase_user(long n)
{
	uint64_t before = m.mailbox->count[0x80];

	begin();
	order(&m, USER, n, 0, 0, 0);
	end("user", n, m.mailbox->results[0] == 13 && m.mailbox->results[1] == 0 && m.mailbox->sum == series(1, n) * 3 + n &&
		       m.mailbox->count[0x80] == before + 1);
}

static uint64_t run_debug(struct kvm_guest_debug debug)
{
	call(m.vcpu, KVM_SET_GUEST_DEBUG, &debug, "KVM_SET_GUEST_DEBUG");
	return run_guest(&m) == KVM_EXIT_DEBUG ? m.run->debug.arch.pc : 0;
}

/* A debugger in user space: a hardware breakpoint, ten single steps, a software breakpoint. */
static void phase_debug(long n)
{
	struct kvm_guest_debug hardware = { .control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP };
	bool pass = true;

	begin();
	hardware.arch.debugreg[0] = address_of(step_begin);
	hardware.arch.debugreg[7] = 0x401;
	m.mailbox->command = STEP;
	uint64_t at = run_debug(hardware);
	pass &= at == address_of(step_begin);
	for (int i = 0; i < 10 && pass; i++) {
		at = run_debug((struct kvm_guest_debug){ .control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP });
		pass &= at == address_of(step_begin) + i + 1;
	}
	if (pass) {
		at = run_debug((struct kvm_guest_debug){ .control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP });
		pass &= at == address_of(step_end);
		struct kvm_regs regs;
		call(m.vcpu, KVM_GET_REGS, &regs, "KVM_GET_REGS");
		regs.rip = address_of(breakpoint_here);
		call(m.vcpu, KVM_SET_REGS, &regs, "KVM_SET_REGS");
	}
	struct kvm_guest_debug off = { 0 };
	call(m.vcpu, KVM_SET_GUEST_DEBUG, &off, "KVM_SET_GUEST_DEBUG");
	if (!pass)
		printf("KVM-CLIENT: stopped at %#lx, the steps begin at %#lx\n", at, address_of(step_begin));
	end("debug", n, run_guest(&m) == 0 && pass);
}

static void phase_modes(long n)
{
	static const uint32_t expected[] = {
		0x16000001, 0x1600000a, 0xd0, 0xcafe, 0x2d4d564b, 0x16000fa7, 0x600d600d,
		0x16100001, 0xffff, 0x1616,
		0x32000001, 0x32000030, 0x32000006, 0x320d1234, 0x2d4d564b, 0x320e0000, 0xfff00000, 0x70, 0x68, 0x20, 0x2d4d564b,
		0x500, 0x64646464, 0x2d4d564b, 0, 0x100, 0x1600000c,
	};
	struct machine whole = m;

	for (long i = 0; i < n; i++) {
		machine_create(&m, 0, 4 << 20);
		start_real_mode(&m);
		begin();
		bool pass = run_guest(&m) == KVM_EXIT_HLT && m.stage_count == sizeof expected / 4 && !strcmp(m.line, "KVM-");
		for (unsigned j = 0; j < sizeof expected / 4; j++)
			if (m.stages[j] != expected[j]) {
				printf("KVM-CLIENT: stage %u: %#x and not %#x\n", j, m.stages[j], expected[j]);
				pass = false;
				break;
			}
		if (!pass)
			printf("KVM-CLIENT: %u stages, exit reason %u\n", m.stage_count, m.run->exit_reason);
		end("modes", m.stage_count, pass);
		machine_destroy(&m);
	}
	m = whole;
}

/* The guest sees VMX or SVM if the module's parameter says so. */
static void phase_nested(long n)
{
	const char *path = amd ? "/sys/module/kvm_amd/parameters/nested" : "/sys/module/kvm_intel/parameters/nested";
	int file = open(path, O_RDONLY);
	char text = 0;

	begin();
	bool wanted = file >= 0 && read(file, &text, 1) == 1 && (text == 'Y' || text == '1');
	close(file);
	bool visible = amd ? guest_has(0x80000001, 'c', 2) : guest_has(1, 'c', 5);
	end(wanted ? "nested" : "nested-off", n, visible == wanted);
}

static void phase_triple(long n)
{
	begin();
	m.mailbox->command = TRIPLE_FAULT;
	end("triple", n, run_guest(&m) == KVM_EXIT_SHUTDOWN);
}

/* In the order in which they run. */
static struct { const char *name; void (*run)(long count); long count; } phases[] = {
	{ "hello", phase_hello, 1 }, { "forms", phase_forms, 1 }, { "port", phase_port, 100000 }, { "mmio", phase_mmio, 20000 },
	{ "cpuid", phase_cpuid, 20000 }, { "msr", phase_msr, 10000 }, { "hypercall", phase_hypercall, 20000 },
	{ "tsc", phase_tsc, 1000 }, { "fp", phase_fp, 100 }, { "pages", phase_pages, 2000 }, { "unmap", phase_unmap, 1 },
	{ "dirty", phase_dirty, 2 }, { "paging", phase_paging, 1 }, { "pcid", phase_pcid, 1 }, { "exceptions", phase_exceptions, 1 },
	{ "user", phase_user, 1000 }, { "debug", phase_debug, 1 }, { "line", phase_line, 500 }, { "level", phase_level, 500 },
	{ "msi", phase_msi, 500 }, { "hlt", phase_hlt, 200 }, { "wake", phase_wake, 100 }, { "nmi", phase_nmi, 200 },
	{ "ipi", phase_ipi, 1000 }, { "nmiself", phase_nmi_self, 200 }, { "timer", phase_timer, 100 },
	{ "deadline", phase_deadline, 100 }, { "x2apic", phase_x2apic, 1000 }, { "smp", phase_smp, 500 }, { "pic", phase_pic, 200 },
	{ "pit", phase_pit, 20 }, { "userirq", phase_userirq, 200 }, { "modes", phase_modes, 2 }, { "nested", phase_nested, 1 },
	{ "vfio", phase_vfio, 0 }, { "triple", phase_triple, 1 },
};
enum { PHASES = sizeof phases / sizeof *phases };

static long *count_of(const char *name)
{
	for (size_t i = 0; i < PHASES; i++)
		if (!strcmp(phases[i].name, name))
			return &phases[i].count;
	fprintf(stderr, "KVM-CLIENT: no phase is called %s\n", name);
	exit(2);
}

static void parse(char *words)
{
	for (char *word = strtok(words, ", "); word; word = strtok(NULL, ", ")) {
		char *value = strchr(word, '=');
		if (value) {
			*value = 0;
			if (!strcmp(word, "patience"))
				patience = strtol(value + 1, NULL, 0);
			else
				*count_of(word) = strtol(value + 1, NULL, 0);
		} else if (!strcmp(word, "none")) {
			for (size_t i = 0; i < PHASES; i++)
				phases[i].count = 0;
		} else if (!strcmp(word, "ticks")) {
			ticks = true;
		} else {
			fprintf(stderr, "KVM-CLIENT: what is %s?\n", word);
			exit(2);
		}
	}
}

int main(int argc, char **argv)
{
	unsigned eax, ebx, ecx, edx;

	for (int i = 1; i < argc; i++)
		parse(argv[i]);
	setvbuf(stdout, NULL, _IOLBF, 0);
	__cpuid(0, eax, ebx, ecx, edx);
	amd = ebx == signature_AMD_ebx;

	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		die("/dev/kvm");
	int version = call(kvm, KVM_GET_API_VERSION, NULL, "KVM_GET_API_VERSION");
	pages = *count_of("pages") ? *count_of("pages") : 512;
	if (pages > 60000) /* what TABLES has place for */
		pages = 60000;
	machine_create(&m, WITH_IRQCHIP | WITH_SECOND, WINDOW + (pages < 512 ? 512 : pages) * PAGE);
	start_long_mode(&m);
	printf("KVM-CLIENT: api=%d vendor=%s\n", version, amd ? "amd" : "intel");
	for (size_t i = 0; i < PHASES; i++)
		if (phases[i].count)
			phases[i].run(phases[i].count);
	printf("KVM-CLIENT: %s\n", failures ? "FAILED" : "OK");
	return failures ? 1 : 0;
}
