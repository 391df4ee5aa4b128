/*
 * A small client of /dev/kvm on riscv64. It needs neither a library nor another file: kvm_guest.S is linked in.
 *
 *     kvm_client [word[,word...]] ...
 *
 * A word is `phase=count` (0 skips the phase), a bare number (the counts of mmio, sbi, pages, timer in this order),
 * `none` (all counts 0 from here on), `ticks` (prints the time that each phase took, in ticks of the time CSR),
 * `patience=seconds` (how long a phase may take, 100), `aia` (an in-kernel interrupt controller, with the phases msi and msiself), `emul` or `hwaccel` (the AIA's mode).
 *
 * One line a phase, `KVM-CLIENT: <phase> count=<n> exits=<n> PASS`, and `KVM-CLIENT: OK` at the end.
 */
#include "kvm_common.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/kvm.h>

/* What the kernel's headers of some distributions do not have yet. */
#ifndef KVM_CAP_VM_GPA_BITS
#define KVM_CAP_VM_GPA_BITS 207
#endif
#define RISCV_AIA_DEVICE 11 /* KVM_DEV_TYPE_RISCV_AIA: an enumerator, so that it cannot be asked for by #ifdef */
#define AIA_GRP_CONFIG 0
#define AIA_CONFIG_MODE 0
#define AIA_CONFIG_IDS 1
#define AIA_CONFIG_SRCS 2
#define AIA_CONFIG_HART_BITS 5
#define AIA_CONFIG_GUEST_BITS 6
#define AIA_GRP_ADDR 1
#define AIA_ADDR_APLIC 0
#define AIA_ADDR_IMSIC 1
#define AIA_GRP_CTRL 2
#define AIA_CTRL_INIT 0
#define AIA_MODE_EMUL 0
#define AIA_MODE_HWACCEL 1

#define ISA_EXT_SSTC 8
#define ISA_EXT_SSAIA 14

#define PAGE 4096ul
#define RAM 0x80000000ul      /* guest physical; the code stands at its beginning */
#define TABLES (RAM + 0x100000) /* VS-stage page tables */
#define WINDOW (RAM + 0x200000) /* pages that nobody has touched yet */
#define MMIO 0x10000000ul
#define APLIC 0x0c000000ul
#define IMSIC 0x28000000ul
#define MAPPED 0x100000000ul /* virtual address of the window under Sv39, its pages in reverse order */

enum mmio {
	CONSOLE = 0x00, COMMAND = 0x08, ARG0 = 0x10, RESULT0 = 0x30, RESULT1 = 0x38,
	ECHO = 0x40, RAISE = 0x48, LOWER = 0x50, FORMS = 0x80,
};

enum phase { HELLO, FORM, ECHOES, SBI, TOUCH, SATP, FAULT, TIMER, EXTERNAL, FLOATING, TWO_HARTS, SHUTDOWN };

extern const unsigned char guest_start[], guest_end[];

static int vm, vcpu, stats;
static struct kvm_run *run;
static int second; /* another vcpu, which runs in the phase smp only */
static struct kvm_run *second_run;
static bool second_done;
static unsigned char *ram;
static bool aia;
static int aia_mode = -1; /* what KVM takes for best */
static unsigned patience = 100; /* seconds for one phase */

/* The guest's last command, and what it answered. */
static uint64_t command, args[4], results[2];
static uint64_t echoed;
static struct { unsigned len; uint64_t value; } stored[16];
static unsigned stores;
static bool stopped;
static char line[128];
static unsigned line_len;

static struct { const char *name; long count; } counts[] = {
	{ "hello", 1 }, { "forms", 1 }, { "mmio", 100000 }, { "sbi", 100000 }, { "sbiuser", 1000 }, { "fp", 1 },
	{ "pages", 2000 }, { "unmap", 1 }, { "dirty", 1 }, { "paging", 1 }, { "timer", 20 }, { "wfi", 20 },
	{ "line", 1000 }, { "msi", 1000 }, { "msiself", 1000 }, { "smp", 500 },
};
static const char *const positional[] = { "mmio", "sbi", "pages", "timer" };

static long *count_of(const char *name)
{
	for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
		if (!strcmp(counts[i].name, name))
			return &counts[i].count;
	fprintf(stderr, "KVM-CLIENT: no phase is called %s\n", name);
	exit(2);
}

static void set_reg(uint64_t id, uint64_t value, const char *what)
{
	struct kvm_one_reg reg = { KVM_REG_RISCV | KVM_REG_SIZE_U64 | id, (uint64_t)&value };
	call(vcpu, KVM_SET_ONE_REG, &reg, what);
}

/* 0 where this kernel or this hart knows nothing of it. */
static uint64_t get_reg(uint64_t id)
{
	uint64_t value = 0;
	struct kvm_one_reg reg = { KVM_REG_RISCV | KVM_REG_SIZE_U64 | id, (uint64_t)&value };
	return ioctl(vcpu, KVM_GET_ONE_REG, &reg) < 0 ? 0 : value;
}

static volatile sig_atomic_t late;

static void on_alarm(int signal)
{
	(void)signal;
	late = 1;
}

static void aia_attribute(int device, unsigned group, uint64_t attribute, uint64_t value, unsigned size, const char *what)
{
	uint32_t narrow = value;
	struct kvm_device_attr attr = {
		.group = group, .attr = attribute, .addr = size == 4 ? (uint64_t)&narrow : (uint64_t)&value,
	};
	call(device, KVM_SET_DEVICE_ATTR, &attr, what);
}

/* An APLIC without sources and the IMSICs of two harts. */
static void create_aia(void)
{
	struct kvm_create_device create = { .type = RISCV_AIA_DEVICE };
	call(vm, KVM_CREATE_DEVICE, &create, "KVM_CREATE_DEVICE (AIA)");
	int device = create.fd;
	if (aia_mode >= 0)
		aia_attribute(device, AIA_GRP_CONFIG, AIA_CONFIG_MODE, aia_mode, 4, "AIA mode");
	aia_attribute(device, AIA_GRP_CONFIG, AIA_CONFIG_IDS, 63, 4, "AIA identities");
	aia_attribute(device, AIA_GRP_CONFIG, AIA_CONFIG_SRCS, 0, 4, "AIA sources");
	aia_attribute(device, AIA_GRP_CONFIG, AIA_CONFIG_HART_BITS, 1, 4, "AIA hart bits");
	aia_attribute(device, AIA_GRP_CONFIG, AIA_CONFIG_GUEST_BITS, 0, 4, "AIA guest bits");
	aia_attribute(device, AIA_GRP_ADDR, AIA_ADDR_APLIC, APLIC, 8, "APLIC address");
	aia_attribute(device, AIA_GRP_ADDR, AIA_ADDR_IMSIC, IMSIC, 8, "IMSIC address");
	aia_attribute(device, AIA_GRP_ADDR, AIA_ADDR_IMSIC + 1, IMSIC + PAGE, 8, "IMSIC address of hart 1");
	aia_attribute(device, AIA_GRP_CTRL, AIA_CTRL_INIT, 0, 8, "AIA init");
}

static void set_line(bool up)
{
	uint32_t irq = up ? KVM_INTERRUPT_SET : KVM_INTERRUPT_UNSET;
	call(vcpu, KVM_INTERRUPT, &irq, "KVM_INTERRUPT");
}

static void mmio_write(uint64_t offset, unsigned len, uint64_t value)
{
	switch (offset) {
	case CONSOLE:
		if (line_len < sizeof line - 1)
			line[line_len++] = value;
		if (value == '\n') {
			fwrite(line, 1, line_len, stdout);
			line[line_len] = 0;
			line_len = 0;
		}
		return;
	case RESULT0:
	case RESULT1:
		results[(offset - RESULT0) / 8] = value;
		stopped = offset == RESULT0;
		return;
	case ECHO:
		echoed = value;
		return;
	case RAISE:
		if (aia) {
			struct kvm_msi msi = { .address_lo = IMSIC, .data = value };
			call(vm, KVM_SIGNAL_MSI, &msi, "KVM_SIGNAL_MSI");
		} else {
			set_line(true);
		}
		return;
	case LOWER:
		set_line(false);
		return;
	case FORMS:
		if (stores < sizeof stored / sizeof *stored) {
			stored[stores].len = len;
			stored[stores++].value = value;
		}
		return;
	}
	printf("KVM-CLIENT: store of %u bytes at MMIO offset %#lx FAIL\n", len, offset);
	exit(1);
}

static uint64_t mmio_read(uint64_t offset, unsigned len)
{
	switch (offset) {
	case COMMAND:
		return command;
	case ARG0:
	case ARG0 + 8:
	case ARG0 + 16:
	case ARG0 + 24:
		return args[(offset - ARG0) / 8];
	case ECHO:
		return echoed * 3 + 1;
	case FORMS:
		return 0x8182838485868788;
	}
	printf("KVM-CLIENT: load of %u bytes at MMIO offset %#lx FAIL\n", len, offset);
	exit(1);
}

static void print_registers(void)
{
	static const char names[32][4] = {
		"pc", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1", "a0", "a1", "a2", "a3", "a4", "a5",
		"a6", "a7", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6",
	};
	for (int i = 0; i < 32; i++)
		printf("%4s=%016lx%c", names[i], get_reg(KVM_REG_RISCV_CORE | i), i % 4 == 3 ? '\n' : ' ');
}

/* Runs the vcpu until it answers (true) or shuts the machine down (false). */
static bool run_guest(void)
{
	stopped = false;
	alarm(patience);
	while (!stopped) {
		if (ioctl(vcpu, KVM_RUN, 0) < 0) {
			if (!late && (errno == EINTR || errno == EAGAIN))
				continue;
			print_registers();
			if (late) {
				printf("KVM-CLIENT: the guest does not answer FAIL\n");
				exit(1);
			}
			die("KVM_RUN");
		}
		switch (run->exit_reason) {
		case KVM_EXIT_MMIO: {
			uint64_t value = 0, offset = run->mmio.phys_addr - MMIO;
			if (run->mmio.is_write) {
				memcpy(&value, run->mmio.data, run->mmio.len);
				mmio_write(offset, run->mmio.len, value);
			} else {
				value = mmio_read(offset, run->mmio.len);
				memcpy(run->mmio.data, &value, run->mmio.len);
			}
			break;
		}
		case KVM_EXIT_RISCV_SBI:
			run->riscv_sbi.ret[1] = run->riscv_sbi.args[0] * 3 + 1;
			run->riscv_sbi.ret[0] = 0;
			break;
		case KVM_EXIT_SYSTEM_EVENT:
			return false;
		default:
			print_registers();
			printf("KVM-CLIENT: exit reason %u FAIL\n", run->exit_reason);
			exit(1);
		}
	}
	return true;
}

/* One phase, told to the guest, run, and answered. */
static void order(enum phase phase, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3)
{
	command = phase;
	args[0] = a0, args[1] = a1, args[2] = a2, args[3] = a3;
	if (!run_guest()) {
		printf("KVM-CLIENT: the guest shut down in phase %d FAIL\n", phase);
		exit(1);
	}
}

static void begin(void)
{
	begin_phase(stats);
}

static void end(const char *name, long count, bool pass)
{
	end_phase(stats, name, count, pass, results);
}

static void phase_hello(void)
{
	begin();
	order(HELLO, 0, 0, 0, 0);
	end("hello", 1, !strcmp(line, "KVM-GUEST: hello from VS-mode\n"));
}

static void phase_forms(void)
{
	static const unsigned len[] = { 1, 2, 4, 8, 4, 8, 4, 8 };
	/* lb, lh, lw, c.lw and c.lwsp among the 11 loads: a bug of KVM that Linux 6.12 has and 7.2 does not. */
	const uint64_t zero_extended = 0x54a, value = 0x1122334455667788;
	bool pass = true;

	begin();
	order(FORM, 0, 0, 0, 0);
	for (unsigned i = 0; i < 8; i++)
		pass &= stored[i].len == len[i] && stored[i].value == (value & ~0ul >> (64 - 8 * len[i]));
	if (results[0] == zero_extended)
		printf("KVM-CLIENT: this kernel's KVM does not extend the sign of what it loads from MMIO\n");
	end("forms", 19, pass && stores == 8 && (results[0] == 0 || results[0] == zero_extended));
}

static void phase_mmio(long n)
{
	begin();
	order(ECHOES, n / 2, 0, 0, 0);
	end("mmio", n, results[0] == series(0, n / 2) * 3 + n / 2);
}

/* The base extension's get_spec_version, answered in the kernel. */
static void phase_sbi(long n)
{
	begin();
	order(SBI, n, 0x10, 0, 0);
	end("sbi", n, results[0] == 0 && results[1] >= (uint64_t)n * 0x2 && results[1] % n == 0);
}

/* An extension of the experimental range, which the kernel leaves to user space. */
static void phase_sbi_user(long n)
{
	begin();
	order(SBI, n, 0x08000000, 0, 0);
	end("sbiuser", n, results[0] == 0 && results[1] == series(0, n) * 3 + n);
}

static void phase_fp(void)
{
	double a = 1.5, b = 0.1, sum;
	uint64_t x, y;

	memcpy(&x, &a, 8);
	memcpy(&y, &b, 8);
	begin();
	order(FLOATING, x, y, 0, 0);
	memcpy(&sum, &results[0], 8);
	end("fp", 1, sum == a + b);
}

static uint64_t *window(long page)
{
	return (uint64_t *)(ram + (WINDOW - RAM) + page * PAGE);
}

/* The window must hold key, key + 1, ... */
static bool window_holds(long pages, uint64_t key, bool reversed)
{
	for (long i = 0; i < pages; i++)
		if (*window(reversed ? pages - 1 - i : i) != key + i)
			return false;
	return true;
}

static void phase_pages(long pages)
{
	begin();
	order(TOUCH, WINDOW, pages, PAGE, 1000);
	end("pages", pages, results[0] == 0 && window_holds(pages, 1000, false));
}

/* User space takes the pages away: the guest must find new ones, full of zeros. */
static void phase_unmap(long pages)
{
	order(TOUCH, WINDOW, pages, PAGE, 2000);
	begin();
	if (madvise(window(0), pages * PAGE, MADV_DONTNEED))
		die("madvise");
	order(TOUCH, WINDOW, pages, PAGE, 3000);
	end("unmap", pages, results[0] == 0 && window_holds(pages, 3000, false));
}

static size_t ram_size(long pages)
{
	return WINDOW - RAM + pages * PAGE;
}

static void set_memory(long pages, unsigned flags)
{
	struct kvm_userspace_memory_region region = {
		.slot = 0, .flags = flags, .guest_phys_addr = RAM, .memory_size = ram_size(pages), .userspace_addr = (uint64_t)ram,
	};
	call(vm, KVM_SET_USER_MEMORY_REGION, &region, "KVM_SET_USER_MEMORY_REGION");
}

/* Every second page is written while the dirty log is on: it must name these and no others of the window. */
static void phase_dirty(long pages)
{
	size_t longs = (ram_size(pages) / PAGE + 63) / 64;
	uint64_t *bitmap = calloc(longs, 8);
	struct kvm_dirty_log log = { .slot = 0, .dirty_bitmap = bitmap };
	bool pass = true;

	begin();
	set_memory(pages, KVM_MEM_LOG_DIRTY_PAGES);
	order(TOUCH, WINDOW, pages / 2, 2 * PAGE, 4000);
	call(vm, KVM_GET_DIRTY_LOG, &log, "KVM_GET_DIRTY_LOG");
	for (long i = 0; i < pages; i++) {
		size_t page = (WINDOW - RAM) / PAGE + i;
		bool dirty = bitmap[page / 64] >> page % 64 & 1;
		pass &= dirty == (i % 2 == 0 && i / 2 < pages / 2);
	}
	set_memory(pages, 0);
	free(bitmap);
	end("dirty", pages / 2, pass);
}

/* Sv39 in the guest: the window mapped page by page in reverse, the rest one to one; then faults that stay in VS-mode. */
static void phase_paging(long pages)
{
	enum { V = 1, R = 2, W = 4, X = 8, A = 64, D = 128 };
	uint64_t *root = (uint64_t *)(ram + (TABLES - RAM)), *middle = root + 512, *leaf = root + 1024;
	uint64_t beyond = MAPPED + pages * PAGE;
	bool pass;

	if (pages > 100000)
		pages = 100000;
	root[MMIO >> 30] = (MMIO >> 30 << 28) | A | D | W | R | V;
	root[RAM >> 30] = (RAM >> 30 << 28) | A | D | X | W | R | V;
	root[MAPPED >> 30] = (TABLES + PAGE) >> 12 << 10 | V;
	for (long i = 0; i < (pages + 511) / 512; i++)
		middle[i] = (TABLES + (2 + i) * PAGE) >> 12 << 10 | V;
	for (long i = 0; i < pages; i++)
		leaf[i] = (WINDOW + (pages - 1 - i) * PAGE) >> 12 << 10 | A | D | W | R | V;

	begin();
	uint64_t satp = 8ul << 60 | TABLES >> 12;
	order(SATP, satp, 0, 0, 0);
	pass = results[0] == satp;
	order(TOUCH, WINDOW, pages, PAGE, 5000);
	order(TOUCH, MAPPED, pages, PAGE, 6000);
	pass &= results[0] == series(5000, pages) && window_holds(pages, 6000, true);
	order(FAULT, beyond, 0, 0, 0);
	pass &= results[0] == 13 && results[1] == beyond;
	order(FAULT, beyond + 8, 1, 0, 0);
	pass &= results[0] == 15 && results[1] == beyond + 8;
	order(FAULT, beyond + 16, 2, 0, 0);
	pass &= results[0] == 15 && results[1] == beyond + 16;
	leaf[0] &= ~(uint64_t)W;
	order(SATP, satp, 0, 0, 0);
	order(FAULT, MAPPED, 1, 0, 0);
	pass &= results[0] == 15 && results[1] == MAPPED;
	order(FAULT, MAPPED, 0, 0, 0);
	pass &= results[0] == ~0ul;
	order(ECHOES, 50, 0, 0, 0);
	pass &= results[0] == series(0, 50) * 3 + 50;
	order(SATP, 0, 0, 0, 0);
	end("paging", pages, pass && results[0] == 0);
}

static void phase_timer(const char *name, long n, uint64_t period, unsigned flags)
{
	begin();
	order(TIMER, n, period, flags, 0);
	end(name, n, results[0] == 0);
}

static void phase_external(const char *name, long n, unsigned flags)
{
	begin();
	order(EXTERNAL, n, IMSIC, flags, 0);
	end(name, n, results[0] == 0 && results[1] == n / 16 * series(1, 16) + series(1, n % 16));
}

static void on_user_signal(int signal)
{
	(void)signal;
}

/* The second vcpu: waits in the kernel until the first one starts it, and never needs user space. */
static void *run_second(void *unused)
{
	sigset_t alarms;

	(void)unused;
	sigemptyset(&alarms);
	sigaddset(&alarms, SIGALRM);
	pthread_sigmask(SIG_BLOCK, &alarms, NULL);
	while (ioctl(second, KVM_RUN, 0) < 0 && errno == EINTR && !__atomic_load_n(&second_done, __ATOMIC_SEQ_CST))
		;
	if (!second_done) {
		printf("KVM-CLIENT: hart 1: exit reason %u FAIL\n", second_run->exit_reason);
		exit(1);
	}
	return NULL;
}

static void phase_smp(long n)
{
	uint64_t *mailbox = window(0);
	pthread_t thread;

	mailbox[0] = mailbox[1] = 0;
	begin();
	if (pthread_create(&thread, NULL, run_second, NULL))
		die("pthread_create");
	order(TWO_HARTS, n, WINDOW, 0, 0);
	__atomic_store_n(&second_done, true, __ATOMIC_SEQ_CST);
	second_run->immediate_exit = 1;
	pthread_kill(thread, SIGUSR1);
	pthread_join(thread, NULL);
	end("smp", n, results[0] == 0 && results[1] == (uint64_t)n);
}

static void parse(char *words)
{
	static unsigned position;

	for (char *word = strtok(words, ", "); word; word = strtok(NULL, ", ")) {
		char *value = strchr(word, '=');
		if (value) {
			*value = 0;
			if (!strcmp(word, "patience"))
				patience = strtol(value + 1, NULL, 0);
			else
				*count_of(word) = strtol(value + 1, NULL, 0);
		} else if (*word >= '0' && *word <= '9' && position < sizeof positional / sizeof *positional) {
			*count_of(positional[position++]) = strtol(word, NULL, 0);
		} else if (!strcmp(word, "none")) {
			for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
				counts[i].count = 0;
		} else if (!strcmp(word, "ticks")) {
			ticks = true;
		} else if (!strcmp(word, "aia")) {
			aia = true;
		} else if (!strcmp(word, "emul")) {
			aia_mode = AIA_MODE_EMUL;
		} else if (!strcmp(word, "hwaccel")) {
			aia_mode = AIA_MODE_HWACCEL;
		} else {
			fprintf(stderr, "KVM-CLIENT: what is %s?\n", word);
			exit(2);
		}
	}
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		parse(argv[i]);
	setvbuf(stdout, NULL, _IOLBF, 0);
	sigaction(SIGALRM, &(struct sigaction){ .sa_handler = on_alarm }, NULL);
	sigaction(SIGUSR1, &(struct sigaction){ .sa_handler = on_user_signal }, NULL);

	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		die("/dev/kvm");
	int version = call(kvm, KVM_GET_API_VERSION, NULL, "KVM_GET_API_VERSION");
	vm = call(kvm, KVM_CREATE_VM, NULL, "KVM_CREATE_VM");
	vcpu = call(vm, KVM_CREATE_VCPU, NULL, "KVM_CREATE_VCPU");
	stats = ioctl(vcpu, KVM_GET_STATS_FD, NULL);
	second = call(vm, KVM_CREATE_VCPU, (void *)1, "KVM_CREATE_VCPU 1");
	int run_size = call(kvm, KVM_GET_VCPU_MMAP_SIZE, NULL, "KVM_GET_VCPU_MMAP_SIZE");
	run = mmap(NULL, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	second_run = mmap(NULL, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, second, 0);
	if (run == MAP_FAILED || second_run == MAP_FAILED)
		die("mmap of a vcpu");

	uint64_t isa = get_reg(KVM_REG_RISCV_CONFIG | 0);
	bool sstc = get_reg(KVM_REG_RISCV_ISA_EXT | ISA_EXT_SSTC), ssaia = get_reg(KVM_REG_RISCV_ISA_EXT | ISA_EXT_SSAIA);
	uint64_t frequency = get_reg(KVM_REG_RISCV_TIMER | 0);
	printf("KVM-CLIENT: api=%d gpa_bits=%d isa=", version, ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_VM_GPA_BITS));
	for (int i = 0; i < 26; i++)
		if (isa >> i & 1)
			putchar('a' + i);
	printf(" sstc=%d ssaia=%d timebase=%lu irqchip=%s\n", sstc, ssaia, frequency, aia ? "aia" : "user");

	long pages = *count_of("pages") ? *count_of("pages") : 512;
	ram = mmap(NULL, ram_size(pages), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (ram == MAP_FAILED)
		die("mmap of the guest's memory");
	madvise(ram, ram_size(pages), MADV_NOHUGEPAGE);
	memcpy(ram, guest_start, guest_end - guest_start);
	set_memory(pages, 0);
	if (aia)
		create_aia();
	set_reg(KVM_REG_RISCV_CORE | 0, RAM, "pc");

	if (*count_of("hello"))
		phase_hello();
	if (*count_of("forms"))
		phase_forms();
	if (*count_of("mmio"))
		phase_mmio(*count_of("mmio"));
	if (*count_of("sbi"))
		phase_sbi(*count_of("sbi"));
	if (*count_of("sbiuser"))
		phase_sbi_user(*count_of("sbiuser"));
	if (*count_of("fp"))
		phase_fp();
	if (*count_of("pages"))
		phase_pages(pages);
	if (*count_of("unmap"))
		phase_unmap(pages);
	if (*count_of("dirty"))
		phase_dirty(pages);
	if (*count_of("paging"))
		phase_paging(pages);
	if (*count_of("timer"))
		phase_timer("timer", *count_of("timer"), frequency / 10000, sstc ? 1 : 0);
	if (*count_of("wfi"))
		phase_timer("wfi", *count_of("wfi"), frequency / 1000, (sstc ? 1 : 0) | 2);
	if (*count_of("timer") && sstc)
		phase_timer("timersbi", *count_of("timer"), frequency / 10000, 0);
	if (!aia && *count_of("line"))
		phase_external("line", *count_of("line"), 0);
	if (aia && *count_of("msi"))
		phase_external("msi", *count_of("msi"), 1);
	if (aia && *count_of("msiself"))
		phase_external("msiself", *count_of("msiself"), 1 | 4);
	if (*count_of("smp"))
		phase_smp(*count_of("smp"));

	command = SHUTDOWN;
	bool off = !run_guest() && run->system_event.type == KVM_SYSTEM_EVENT_SHUTDOWN;
	printf("KVM-CLIENT: shutdown %s\n", off ? "PASS" : "FAIL");
	if (!off)
		failures++;
	printf("KVM-CLIENT: %s\n", failures ? "FAILED" : "OK");
	return failures ? 1 : 0;
}
