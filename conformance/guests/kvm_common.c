#include "kvm_common.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/kvm.h>

bool ticks;
int failures;

static uint64_t began;
static long exits;

void die(const char *what)
{
	printf("KVM-CLIENT: %s: %s FAIL\n", what, strerror(errno));
	exit(1);
}

int call(int fd, unsigned long request, void *argument, const char *what)
{
	int r = ioctl(fd, request, argument);
	if (r < 0)
		die(what);
	return r;
}

/* One of a vcpu's statistics, -1 where the kernel does not have it. */
static long stat_of(int stats, const char *name)
{
	struct kvm_stats_header header;
	char buffer[sizeof(struct kvm_stats_desc) + 256];
	struct kvm_stats_desc *desc = (void *)buffer;
	uint64_t value;

	if (stats < 0 || pread(stats, &header, sizeof header, 0) != sizeof header || header.name_size > 256)
		return -1;
	size_t step = sizeof *desc + header.name_size;
	for (unsigned i = 0; i < header.num_desc; i++) {
		if (pread(stats, buffer, step, header.desc_offset + i * step) != (ssize_t)step)
			return -1;
		if (strcmp(desc->name, name))
			continue;
		if (pread(stats, &value, sizeof value, header.data_offset + desc->offset) != sizeof value)
			return -1;
		return value;
	}
	return -1;
}

/* The processor's clock. */
static uint64_t now(void)
{
#ifdef __riscv
	uint64_t t;
	asm volatile("rdtime %0" : "=r"(t));
	return t;
#else
	return __builtin_ia32_rdtsc();
#endif
}

void begin_phase(int stats)
{
	exits = stat_of(stats, "exits");
	began = now();
}

void end_phase(int stats, const char *name, long count, bool pass, const uint64_t answers[2])
{
	uint64_t took = now() - began;
	long after = stat_of(stats, "exits");

	printf("KVM-CLIENT: %s count=%ld", name, count);
	if (exits >= 0 && after >= exits)
		printf(" exits=%ld", after - exits);
	if (ticks)
		printf(" ticks=%lu", took);
	printf(" %s\n", pass ? "PASS" : "FAIL");
	if (!pass) {
		printf("KVM-CLIENT: the guest answered %#lx %#lx\n", answers[0], answers[1]);
		failures++;
	}
}

uint64_t series(uint64_t first, uint64_t count)
{
	return first * count + count * (count - 1) / 2;
}
