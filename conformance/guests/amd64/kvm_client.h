/* What kvm_client.c and kvm_interrupts.c, which have the phases, and kvm_machine.c, which runs guests, share. */
#include "kvm_common.h"

#include <stddef.h>

#include <linux/kvm.h>

#define PAGE 4096ul
#define MAILBOXES 0x1000ul      /* guest physical addresses: one page for each processor */
#define GDT 0x3000ul
#define TSS 0x3100ul            /* 128 bytes for each processor */
#define TSS32 0x3200ul          /* two of 32 bits */
#define IDT 0x4000ul
#define BASE 0x10000ul          /* the guest's code */
#define STACK 0x28000ul         /* its end */
#define PML4 0x40000ul          /* PML4, PDPT, four page directories of 2-MByte pages: 4 GBytes one to one */
#define DIRECTORY32 0x46000ul   /* 4-MByte pages */
#define PDPTES 0x47000ul
#define TABLES 0x80000ul        /* page tables that a phase makes */
#define WINDOW 0x200000ul       /* pages that nobody has touched yet */
#define MMIO 0xd0000000ul
#define MAPPED 0x8000000000ul   /* linear address of the window's second mapping, its pages in reverse order */

enum port { DONE = 0xe0, STAGE = 0xe1, ECHO = 0xe4, CONSOLE = 0xe8, FORMS = 0xec, RAISE = 0xf8, LOWER = 0xfc };
enum mmio { MMIO_ECHO = 0x40, MMIO_FORMS = 0x80 };
enum eoi { EOI_NONE, EOI_XAPIC, EOI_X2APIC, EOI_PIC };

/* In the order of `phases` in kvm_guest.S. */
enum phase {
	HELLO, FORM, ECHO_PORT, ECHO_MMIO, CPUID, MSR, HYPERCALL, TOUCH, SET_CR3, ACCESS, EXCEPTION, USER, APIC, TIMER, PIT,
	EXTERNAL, IPI, FLOATING, STEP, TWO_PROCESSORS, TIME_STAMPS, TRIPLE_FAULT, DEVICE,
};

/* One for each processor, at the GS base. */
struct mailbox {
	uint64_t command, args[4], results[2];
	uint64_t vector, error, cr2, rip; /* of the last exception */
	uint64_t resume, resume_rsp, eoi, level, sum;
	uint64_t count[256]; /* of each vector */
};

/* What `raise` of the guest does. */
enum line { NOTHING, LINE, MESSAGE, NMI, USER_INTERRUPT };

struct machine {
	int vm, vcpu, second, stats;
	struct kvm_run *run, *second_run;
	unsigned char *ram;
	size_t size;
	struct mailbox *mailbox;
	bool stopped;                   /* the guest has answered */
	uint64_t echoed;
	struct { unsigned len; uint64_t value; } stored[32];
	unsigned stores;
	uint32_t stages[64];
	unsigned stage_count;
	char line[128];
	unsigned line_len;
	enum line kind;                 /* of what RAISE raises, */
	unsigned number;                /* and which line or vector */
	bool pending;                   /* an interrupt that waits for KVM to let it in */
};

enum { WITH_IRQCHIP = 1, WITH_SECOND = 2 };

extern int kvm;
extern unsigned patience;
extern const unsigned char guest_start[], guest_end[], guest64[], modes[], stubs[];
extern const unsigned char step_begin[], step_end[], breakpoint_here[], task_32[];
extern const uint32_t handlers_32[];

_Noreturn void give_up(struct machine *m, const char *what);

void machine_create(struct machine *m, unsigned flags, size_t size);
void machine_destroy(struct machine *m);
void set_memory(struct machine *m, unsigned flags);
void start_long_mode(struct machine *m);
void start_real_mode(struct machine *m);

/* Runs the vcpu until the guest answers, or KVM has another reason to return that nobody here takes care of, which is the result. */
unsigned run_guest(struct machine *m);
/* One phase, told to the guest, run, and answered; its first result. */
uint64_t order(struct machine *m, enum phase phase, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3);
void raise_line(struct machine *m, bool up);
/* Where something of the guest's image stands in the guest. */
static inline uint64_t address_of(const void *symbol)
{
	return BASE + ((const unsigned char *)symbol - guest_start);
}

extern struct machine m; /* that the phases run */
void begin(void);
void end(const char *name, long count, bool pass);
bool guest_has(unsigned leaf, int reg, unsigned bit);
uint64_t *window(long page);

void phase_line(long n);
void phase_level(long n);
void phase_msi(long n);
void phase_hlt(long n);
void phase_wake(long n);
void phase_nmi(long n);
void phase_ipi(long n);
void phase_nmi_self(long n);
void phase_timer(long n);
void phase_deadline(long n);
void phase_x2apic(long n);
void phase_smp(long n);
void phase_pic(long n);
void phase_pit(long n);
void phase_userirq(long n);
void phase_vfio(long n);
