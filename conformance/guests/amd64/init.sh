#!/bin/sh
# The first process of the guest. Words on the kernel's command line:
#   kvmtest[=words]  runs /bin/kvm_client with these words (see kvm_client.c)
#   module.name=value  a parameter of a module, as modprobe would give it
#   vmm[=cpus]       starts the QEMU of the disk's file system with KVM, on the kernel in its /boot, with so many processors (1) and the words
#                    behind `--` as that kernel's command line
#   domu[=type]      under Xen, starts a domain of this type (pvh, hvm, pv) in the same way
#   selftests        reads a line, seconds and the path of one of KVM's selftests in /selftests, and runs that, for so long at most
#   drive            tells the SHA-256 of the first drive
#   shell            an interactive shell afterwards, instead of powering off
#   quiet            of the kernel's own: fewer messages before this script

export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev

read -r whole < /proc/cmdline
cmdline=${whole%% -- *}

load() { # the modules of a list that are not there yet
	while read -r module; do
		[ ! -d "/sys/module/${module%.ko}" ] || continue
		parameters=
		for word in $cmdline; do
			case $word in
			"${module%.ko}".*=*) parameters="$parameters ${word#*.}" ;;
			esac
		done
		# shellcheck disable=SC2086 # they are words
		insmod "/lib/modules/$module" $parameters || echo "UNDERVISOR-MODULE: $module rc=$?"
	done < "$1"
}

load /modules.order
case " $cmdline " in
*" kvmtest"* | *" vmm"* | *" selftests "* | *" shell "*)
	flags=$(grep -m1 ^flags /proc/cpuinfo)
	case " $flags " in
	*" vmx "*) load /kvm_intel.order ;;
	*" svm "*) load /kvm_amd.order ;;
	esac
	;;
esac

case " $cmdline " in
*[=,]vfio=*) load /vfio.order ;;
esac

echo "UNDERVISOR-SHELL: up cpus=$(nproc) linux=$(uname -r)"

root() { # of the disk
	load /root_disk.order
	mount -t ext4 -o ro /dev/vda /mnt
	for shared in dev sys; do mount --bind /$shared /mnt/$shared; done
	mount -t proc proc /mnt/proc
	mkdir -p /dev/pts && mount -t devpts devpts /mnt/dev/pts
	for written in run tmp var/lib var/log; do mount -t tmpfs tmp /mnt/$written; done
}

vmm() { # processors
	root
	# KVM uses AVIC where the 8254 does not have its ticks reinjected.
	chroot /mnt /usr/bin/qemu-system-x86_64 -machine q35,accel=kvm -cpu host -smp "$1" -m 512M -nodefaults -no-reboot -display none \
		-global kvm-pit.lost_tick_policy=discard -serial stdio -drive file=/dev/vda,format=raw,if=virtio,readonly=on -kernel /boot/vmlinuz -initrd /boot/initrd.cpio \
		-append "${whole#* -- }" < /dev/null
}

domu() { # type
	load /xen.order
	root
	mount -t xenfs xenfs /mnt/proc/xen
	(cd /mnt && mkdir -p run/lock run/xen run/xenstored var/lib/xen var/lib/xenstored var/log/xen/console)
	cat > /mnt/tmp/domu.cfg <<-END
		name = "domu"
		type = "$1"
		memory = 256
		vcpus = 2
		kernel = "/boot/vmlinuz"
		ramdisk = "/boot/initrd.cpio"
		cmdline = "${whole#* -- }"
		on_reboot = "destroy"
		on_crash = "destroy"
	END
	tools=$(cd /mnt && echo usr/lib/xen-[0-9]*/bin)
	for daemon in xenstored xen-init-dom0 "xenconsoled --log=guest"; do
		# shellcheck disable=SC2086 # they are words
		chroot /mnt /$tools/$daemon || return
	done
	chroot /mnt "/$tools/xl" create -F /tmp/domu.cfg
	cat /mnt/var/log/xen/console/guest-domu.log
}

selftest() {
	load /selftests.order
	dmesg -c > /dev/null
	echo "UNDERVISOR-SELFTEST: which?"
	read -r seconds path
	timeout -s KILL "$seconds" "/selftests/$path" < /dev/null 2>&1
}

rc=0
shell=
for word in $cmdline; do
	case $word in
	kvmtest)
		kvm_client || rc=$?
		;;
	kvmtest=*)
		kvm_client "${word#kvmtest=}" || rc=$?
		;;
	vmm)
		vmm 1 || rc=$?
		;;
	vmm=*)
		vmm "${word#vmm=}" || rc=$?
		;;
	domu)
		domu pvh || rc=$?
		;;
	domu=*)
		domu "${word#domu=}" || rc=$?
		;;
	selftests)
		selftest || rc=$?
		;;
	drive)
		echo "UNDERVISOR-DRIVE: $(sha256sum < /dev/vda)"
		;;
	shell)
		shell=1
		;;
	esac
done

echo "UNDERVISOR-DMESG-BEGIN"
dmesg -r
echo "UNDERVISOR-DMESG-END"
echo "UNDERVISOR-DONE rc=$rc"
[ -z "$shell" ] || setsid cttyhack sh
poweroff -f
