#!/bin/sh
# The first process of the guest. Words on the kernel's command line:
#   kvmtest[=words]  runs /bin/kvm_client with these words (see kvm_client.c)
#   shell            an interactive shell afterwards, instead of powering off
#   quiet            of the kernel's own: fewer messages before this script

export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev

while read -r module; do
	insmod "/lib/modules/$module" || echo "UNDERVISOR-MODULE: $module rc=$?"
done < /modules.order

echo "UNDERVISOR-SHELL: up harts=$(nproc) linux=$(uname -r)"
dmesg | grep "kvm \["

rc=0
shell=
read -r cmdline < /proc/cmdline
for word in $cmdline; do
	case $word in
	kvmtest)
		kvm_client || rc=$?
		;;
	kvmtest=*)
		kvm_client "${word#kvmtest=}" || rc=$?
		;;
	shell)
		shell=1
		;;
	esac
done

echo "UNDERVISOR-DONE rc=$rc"
[ -z "$shell" ] || setsid cttyhack sh
poweroff -f
