#!/usr/bin/env bash
# Boots a real systemd as pid 1 of private pid, mount, cgroup and network namespaces, on an
# overlay of this machine's root, and powers off when a command has ended in it. Nothing of
# the machine changes. It needs root, systemd and iproute2.
#
#   boot.sh PREPARE COMMAND OUT
#
# PREPARE is shell code that runs before the boot, with R, the new root; COMMAND is shell code
# that runs inside. OUT is a folder, mounted at /out, and gets the files output, journal,
# console, and status, the exit code of the command.
set -euo pipefail
prepare=$1 command=$2 out=$(realpath "$3")

if [ -z "${BOOT_INSIDE:-}" ]; then
	# A cgroup of its own, whose namespace systemd takes for the whole tree.
	group=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)/sockwatch-boot-$$
	mkdir "$group"
	trap 'find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true' EXIT
	(
		echo "$BASHPID" >"$group/cgroup.procs"
		BOOT_INSIDE=1 exec timeout -k 5 "${BOOT_TIMEOUT:-300}" unshare -m -p -f -C -n --kill-child bash "$0" "$@" </dev/null >"$out/console" 2>&1
	) || true
	exit "$(cat "$out/status" 2>/dev/null || echo 125)"
fi

mount --make-rprivate /
top=/mnt # in this mount namespace alone
mount -t tmpfs overlay "$top"
mkdir "$top"/{upper,work,root}
export R=$top/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$top/upper,workdir=$top/work" "$R"
mount -t proc proc "$R/proc"
mount -t sysfs sys "$R/sys"
mount -t cgroup2 none "$R/sys/fs/cgroup"
mount -t tmpfs run "$R/run"
mount --rbind /dev "$R/dev"
mkdir -p "$R/out"
mount --bind "$out" "$R/out"
ip link set lo up
mount --make-rshared / # credentials need mounts that propagate

units=$R/etc/systemd/system
for unit in systemd-{udevd,udev-trigger,networkd,resolved,sysctl,modules-load,binfmt}; do # some act on the machine
	ln -sf /dev/null "$units/$unit.service"
done
printf '%s\n' "$command" >"$R/boot-command"
cat >"$units/boot-command.service" <<-UNIT
	[Unit]
	Requires=basic.target
	After=basic.target
	[Service]
	Type=oneshot
	ExecStart=/bin/bash -c 'bash /boot-command >/out/output 2>&1; echo \$? >/out/status; journalctl --no-pager -b _TRANSPORT=journal + _TRANSPORT=stdout + _TRANSPORT=syslog >/out/journal'
	ExecStopPost=/bin/systemctl poweroff -f
UNIT
bash -euc "$prepare"
rm -f "$R/usr/sbin/policy-rc.d" # which keeps packages from starting their services
exec env -i container=other PATH="$PATH" chroot "$R" /lib/systemd/systemd --system --unit=boot-command.service
