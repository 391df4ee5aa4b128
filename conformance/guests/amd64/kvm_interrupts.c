/* The phases of kvm_client.c that interrupt the guest. */
#include "kvm_client.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* The I/O APIC's redirection of a line. */
static void route(unsigned line, unsigned vector, bool level)
{
	struct kvm_irqchip chip = { .chip_id = KVM_IRQCHIP_IOAPIC };

	call(m.vm, KVM_GET_IRQCHIP, &chip, "KVM_GET_IRQCHIP");
	chip.chip.ioapic.redirtbl[line].bits = vector | (level ? 1 << 15 : 0);
	call(m.vm, KVM_SET_IRQCHIP, &chip, "KVM_SET_IRQCHIP");
}

static void external(const char *name, long n, enum line kind, unsigned number, unsigned vector, bool hlt)
{
	m.kind = kind;
	m.number = number;
	begin();
	order(&m, EXTERNAL, n, vector, hlt, 1);
	m.kind = NOTHING;
	end(name, n, m.mailbox->results[0] == (uint64_t)n);
}

void phase_line(long n)
{
	order(&m, APIC, EOI_XAPIC, 0, 0, 0);
	route(20, 0x54, false);
	m.mailbox->level = 1;
	external("line", n, LINE, 20, 0x54, false);
	m.mailbox->level = 0;
}

void phase_level(long n)
{
	order(&m, APIC, EOI_XAPIC, 0, 0, 0);
	route(21, 0x55, true);
	m.mailbox->level = 1;
	external("level", n, LINE, 21, 0x55, false);
	m.mailbox->level = 0;
}

void phase_msi(long n)
{
	order(&m, APIC, EOI_XAPIC, 0, 0, 0);
	external("msi", n, MESSAGE, 0x50, 0x50, false);
}

void phase_hlt(long n)
{
	order(&m, APIC, EOI_XAPIC, 0, 0, 0);
	external("hlt", n, MESSAGE, 0x52, 0x52, true);
}

void phase_nmi(long n)
{
	external("nmi", n, NMI, 0, 2, false);
}

static volatile bool waking;

static void *wake(void *unused)
{
	(void)unused;
	while (waking) {
		usleep(500);
		raise_line(&m, true);
	}
	return NULL;
}

/* Interrupts that another thread raises at any time, in a guest that halts. */
void phase_wake(long n)
{
	pthread_t thread;

	order(&m, APIC, EOI_XAPIC, 0, 0, 0);
	m.kind = MESSAGE;
	m.number = 0x51;
	waking = true;
	begin();
	if (pthread_create(&thread, NULL, wake, NULL))
		die("pthread_create");
	order(&m, EXTERNAL, n, 0x51, 1, 0);
	waking = false;
	pthread_join(thread, NULL);
	m.kind = NOTHING;
	end("wake", n, m.mailbox->results[0] >= (uint64_t)n);
}

static void ipi(const char *name, long n, unsigned vector, uint64_t command, bool hlt)
{
	begin();
	order(&m, IPI, n, vector, command, hlt);
	end(name, n, m.mailbox->results[0] == (uint64_t)n);
}

void phase_ipi(long n)
{
	order(&m, APIC, EOI_XAPIC, 0, 0, 0);
	ipi("ipi", n, 0x45, 0x45 | 1 << 18, false); /* the shorthand for oneself */
	ipi("ipi-hlt", n, 0x46, 0x46, true);
}

void phase_nmi_self(long n)
{
	order(&m, APIC, EOI_XAPIC, 0, 0, 0);
	ipi("nmiself", n, 2, 0x4400, false);
}

static void timer(const char *name, long n, uint64_t period, unsigned flags)
{
	begin();
	order(&m, TIMER, n, period, flags, 0);
	end(name, n, m.mailbox->results[0] == 0);
}

void phase_timer(long n)
{
	order(&m, APIC, EOI_XAPIC, 0, 0, 0);
	timer("timer", n, 20000, 0);
	timer("timer-hlt", n, 20000, 1);
}

void phase_deadline(long n)
{
	if (!guest_has(1, 'c', 24))
		return;
	order(&m, APIC, EOI_XAPIC, 0, 0, 0);
	timer("deadline", n, 40000, 2);
	timer("deadline-hlt", n, 40000, 3);
}

void phase_x2apic(long n)
{
	if (!guest_has(1, 'c', 21))
		return;
	order(&m, APIC, EOI_X2APIC, 0, 0, 0);
	ipi("x2apic", n, 0x42, 0x42 | 1 << 18, false);
	ipi("x2apic-hlt", n, 0x42, 0x42, true);
	external("x2apic-msi", n / 2, MESSAGE, 0x43, 0x43, false);
	timer("x2apic-timer", n / 10, 20000, 4 | 1);
}

/* The 8259s, and interrupts that the local APIC takes from them. */
void phase_pic(long n)
{
	order(&m, APIC, EOI_XAPIC, 1, 0, 0);
	m.mailbox->level = 1;
	external("pic", n, LINE, 5, 0x25, false);
	m.mailbox->level = 0;
}

void phase_pit(long n)
{
	order(&m, APIC, EOI_XAPIC, 1, 0, 0);
	begin();
	order(&m, PIT, n, 0x20, 1193, 0);
	end("pit", n, m.mailbox->results[0] == 0);
}

static bool second_done;

/* It only ends KVM_RUN. */
static void on_user_signal(int signal)
{
	(void)signal;
}

/* The second vcpu: waits in the kernel until the first one starts it, and never needs user space. */
static void *run_second(void *unused)
{
	sigset_t alarms;

	(void)unused;
	sigaction(SIGUSR1, &(struct sigaction){ .sa_handler = on_user_signal }, NULL);
	sigemptyset(&alarms);
	sigaddset(&alarms, SIGALRM);
	pthread_sigmask(SIG_BLOCK, &alarms, NULL);
	while (ioctl(m.second, KVM_RUN, 0) < 0 && (errno == EINTR || errno == EAGAIN))
		if (__atomic_load_n(&second_done, __ATOMIC_SEQ_CST))
			return NULL;
	if (__atomic_load_n(&second_done, __ATOMIC_SEQ_CST))
		return NULL;
	printf("KVM-CLIENT: processor 1: exit reason %u FAIL\n", m.second_run->exit_reason);
	exit(1);
}

void phase_smp(long n)
{
	uint64_t *mailbox = window(0);
	pthread_t thread;

	mailbox[0] = mailbox[1] = 0;
	begin();
	if (pthread_create(&thread, NULL, run_second, NULL))
		die("pthread_create");
	order(&m, APIC, EOI_XAPIC, 0, 0, 0);
	order(&m, TWO_PROCESSORS, n, WINDOW, 3, 0);
	__atomic_store_n(&second_done, true, __ATOMIC_SEQ_CST);
	m.second_run->immediate_exit = 1;
	pthread_kill(thread, SIGUSR1);
	pthread_join(thread, NULL);
	end("smp", n, m.mailbox->results[0] == 0 && m.mailbox->results[1] == (uint64_t)n);
}

/* A guest whose interrupts user space injects. */
void phase_userirq(long n)
{
	struct machine whole = m;

	machine_create(&m, 0, 4 << 20);
	start_long_mode(&m);
	external("userirq", n, USER_INTERRUPT, 0x61, 0x61, false);
	external("userirq-hlt", n, USER_INTERRUPT, 0x62, 0x62, true);
	machine_destroy(&m);
	m = whole;
}
