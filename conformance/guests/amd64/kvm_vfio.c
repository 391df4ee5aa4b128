/* A PCI device of the host's, given to a guest by VFIO: the guest reaches its registers, it reaches the guest's memory through the IOMMU,
 * and its interrupt goes to the guest, by a posted-format entry of interrupt remapping where the host can do that. */
#include "kvm_client.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/vfio.h>

#define DEVICES "/sys/bus/pci/devices"
#define EDU 0x11e81234u
#define REGISTERS 0xd1000000ul /* guest physical */
#define LINE 24                /* no line of the guest's interrupt controllers */
#define VECTOR 0x57
#define COMMAND 4              /* of configuration space, and its bits for memory and bus master */
#define ENABLE 6

struct device {
	char name[32];
	int container, group, fd;
	struct vfio_region_info registers;
	void *mapped;
};

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		die(path);
	close(fd);
}

/* Finds the educational device, and lets vfio-pci have it. */
static bool bind_device(struct device *d)
{
	DIR *all = opendir(DEVICES);
	struct dirent *entry;
	char path[320];
	uint32_t id = 0;

	while (id != EDU && (entry = readdir(all))) {
		snprintf(path, sizeof path, DEVICES "/%s/config", entry->d_name);
		int fd = open(path, O_RDONLY);
		if (fd < 0 || read(fd, &id, 4) != 4)
			id = 0;
		close(fd);
		if (id == EDU)
			snprintf(d->name, sizeof d->name, "%.31s", entry->d_name);
	}
	closedir(all);
	if (id != EDU)
		return false;
	snprintf(path, sizeof path, DEVICES "/%s/driver_override", d->name);
	write_file(path, "vfio-pci");
	write_file("/sys/bus/pci/drivers_probe", d->name);
	return true;
}

/* The device's group in a container, which lets it reach the guest's memory. */
static void open_device(struct device *d)
{
	char path[320], link[256] = { 0 };

	snprintf(path, sizeof path, DEVICES "/%s/iommu_group", d->name);
	if (readlink(path, link, sizeof link - 1) < 0)
		die("the device's IOMMU group");
	snprintf(path, sizeof path, "/dev/vfio%s", strrchr(link, '/'));
	d->container = open("/dev/vfio/vfio", O_RDWR);
	d->group = open(path, O_RDWR);
	if (d->container < 0 || d->group < 0)
		die(path);
	call(d->group, VFIO_GROUP_SET_CONTAINER, &d->container, "VFIO_GROUP_SET_CONTAINER");
	call(d->container, VFIO_SET_IOMMU, (void *)VFIO_TYPE1v2_IOMMU, "VFIO_SET_IOMMU");
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof map, .flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE, .vaddr = (uint64_t)m.ram, .iova = 0,
		.size = m.size,
	};
	call(d->container, VFIO_IOMMU_MAP_DMA, &map, "VFIO_IOMMU_MAP_DMA");
	d->fd = call(d->group, VFIO_GROUP_GET_DEVICE_FD, d->name, "VFIO_GROUP_GET_DEVICE_FD");
}

/* Its registers are memory of the guest. */
static void map_registers(struct device *d)
{
	struct vfio_region_info config = { .argsz = sizeof config, .index = VFIO_PCI_CONFIG_REGION_INDEX };
	uint16_t command;

	d->registers = (struct vfio_region_info){ .argsz = sizeof d->registers, .index = VFIO_PCI_BAR0_REGION_INDEX };
	call(d->fd, VFIO_DEVICE_GET_REGION_INFO, &d->registers, "VFIO_DEVICE_GET_REGION_INFO");
	call(d->fd, VFIO_DEVICE_GET_REGION_INFO, &config, "VFIO_DEVICE_GET_REGION_INFO");
	if (pread(d->fd, &command, 2, config.offset + COMMAND) != 2)
		die("the device's configuration space");
	command |= ENABLE;
	if (pwrite(d->fd, &command, 2, config.offset + COMMAND) != 2)
		die("the device's configuration space");
	d->mapped = mmap(NULL, d->registers.size, PROT_READ | PROT_WRITE, MAP_SHARED, d->fd, d->registers.offset);
	if (d->mapped == MAP_FAILED)
		die("mmap of the device's registers");
	struct kvm_userspace_memory_region region = {
		.slot = 1, .guest_phys_addr = REGISTERS, .memory_size = d->registers.size, .userspace_addr = (uint64_t)d->mapped,
	};
	call(m.vm, KVM_SET_USER_MEMORY_REGION, &region, "KVM_SET_USER_MEMORY_REGION");
}

/* Its message-signalled interrupt is one of the guest's. */
static void connect_interrupt(struct device *d)
{
	int event = eventfd(0, EFD_CLOEXEC);
	struct kvm_create_device vfio = { .type = KVM_DEV_TYPE_VFIO };
	struct { struct kvm_irq_routing head; struct kvm_irq_routing_entry entry; } routing = {
		.head = { .nr = 1 },
		.entry = { .gsi = LINE, .type = KVM_IRQ_ROUTING_MSI, .u.msi = { .address_lo = 0xfee00000, .data = VECTOR } },
	};
	struct kvm_irqfd irqfd = { .fd = event, .gsi = LINE };
	struct { struct vfio_irq_set head; int event; } set = {
		.head = {
			.argsz = sizeof set, .flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
			.index = VFIO_PCI_MSI_IRQ_INDEX, .count = 1,
		},
		.event = event,
	};

	call(m.vm, KVM_CREATE_DEVICE, &vfio, "KVM_CREATE_DEVICE");
	struct kvm_device_attr group = { .group = KVM_DEV_VFIO_GROUP, .attr = KVM_DEV_VFIO_GROUP_ADD, .addr = (uint64_t)&d->group };
	call(vfio.fd, KVM_SET_DEVICE_ATTR, &group, "KVM_DEV_VFIO_GROUP_ADD");
	call(m.vm, KVM_SET_GSI_ROUTING, &routing, "KVM_SET_GSI_ROUTING");
	call(d->fd, VFIO_DEVICE_SET_IRQS, &set, "VFIO_DEVICE_SET_IRQS");
	call(m.vm, KVM_IRQFD, &irqfd, "KVM_IRQFD");
}

/* How often a line of /proc/interrupts with this text has come, on all processors. */
static long interrupts(const char *text)
{
	FILE *file = fopen("/proc/interrupts", "r");
	char line[4096];
	long sum = 0;

	while (file && fgets(line, sizeof line, file)) {
		if (!strstr(line, text))
			continue;
		char *at = strchr(line, ':') + 1, *end;
		for (long count = strtol(at, &end, 10); end != at; count = strtol(at, &end, 10)) {
			sum += count;
			at = end;
		}
	}
	if (file)
		fclose(file);
	return sum;
}

/* Transfers to the device and back, each with an interrupt; the guest waits by spinning, then by HLT. What the host does not see of
 * them was posted. */
void phase_vfio(long n)
{
	struct machine whole = m;
	struct device d = { 0 };

	if (!bind_device(&d)) {
		errno = ENODEV;
		die("the educational device");
	}
	machine_create(&m, WITH_IRQCHIP, 4 << 20);
	start_long_mode(&m);
	open_device(&d);
	map_registers(&d);
	connect_interrupt(&d);
	order(&m, APIC, EOI_XAPIC, 0, 0, 0);
	for (int hlt = 0; hlt < 2; hlt++) {
		long seen = interrupts("vfio-msi"), notified = interrupts("Posted-interrupt");
		begin();
		order(&m, DEVICE, n, REGISTERS, VECTOR, hlt);
		bool pass = m.mailbox->results[0] == 2 * (uint64_t)n && m.mailbox->results[1] == 0;
		long posted = 2 * n - (interrupts("vfio-msi") - seen);
		printf("KVM-CLIENT: posted=%ld notifications=%ld\n", posted, interrupts("Posted-interrupt") - notified);
		end(hlt ? "vfio-hlt" : "vfio", n, pass);
	}
	close(d.fd);
	machine_destroy(&m);
	m = whole;
}
