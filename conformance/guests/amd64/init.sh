#!/bin/sh
# The first process of the guest. Words on the kernel's command line:
#   shell            an interactive shell afterwards, instead of powering off
#   quiet            of the kernel's own: fewer messages before this script

export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev

while read -r module; do
	insmod "/lib/modules/$module" || echo "UNDERVISOR-MODULE: $module rc=$?"
done < /modules.order

echo "UNDERVISOR-SHELL: up cpus=$(nproc) linux=$(uname -r)"
[ ! -b /dev/vda ] || echo "UNDERVISOR-DRIVE: $(md5sum < /dev/vda)"
echo "UNDERVISOR-DMESG-BEGIN"
dmesg -r
echo "UNDERVISOR-DMESG-END"

shell=
read -r cmdline < /proc/cmdline
for word in $cmdline; do
	case $word in
	shell)
		shell=1
		;;
	esac
done

echo "UNDERVISOR-DONE rc=0"
[ -z "$shell" ] || setsid cttyhack sh
poweroff -f
