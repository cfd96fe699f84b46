package tcplisten

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/netns"
	"sockwatch/inputs/internal/owner"
	"sockwatch/inputs/internal/procfs"
)

// warnings notes which warnings have been logged: each is logged once a run, also
// across the reloads of that run.
type warnings struct {
	netlink, foreignNetlink, namespaces, hidden, files, users, firstSeen bool
}

// warnOnce logs a warning unless that has been done.
func (in *input) warnOnce(done *bool, message string, attributes ...any) {
	if !*done {
		*done = true
		in.env.Log.Warn(message, attributes...)
	}
}

// warnOfSource says why the sockets of a namespace do not come from netlink.
func (in *input) warnOfSource(ns *netns.Namespace, source netns.Source) {
	switch {
	case source.Reason == nil:
	case ns.Host():
		in.warnOnce(&in.warned.netlink, "netlink is refused, reading /proc/net/tcp: no backlog limits, devices and cgroups",
			"reason", source.Reason)
	default:
		in.warnOnce(&in.warned.foreignNetlink, "network namespaces cannot be entered without CAP_SYS_ADMIN, reading /proc/PID/net/tcp of theirs: "+
			"no backlog limits, devices and cgroups", "reason", source.Reason)
	}
}

// warnOfOwners says why the owners of listeners stay unknown, and what to do about it.
func (in *input) warnOfOwners(report owner.Report) {
	if err := report.OutOfResources; err != nil {
		in.warnOnce(&in.warned.files, "search for owners stopped, known owners stay: raise the limit of open files (systemd: LimitNOFILE=)",
			"error", err)
	}
	unreadable := func(l *listener) bool { return l.owner.Status == owner.Unreadable }
	if in.warned.hidden || !slices.ContainsFunc(in.listeners.all, unreadable) {
		return
	}
	if causes := causesOf(in.open.procfs.Visibility(), report); len(causes) > 0 {
		in.warnOnce(&in.warned.hidden, "owners of some listeners stay unknown: "+strings.Join(causes, "; "), "unreadable_processes", report.Refused)
	}
}

// capabilities are those without which the files of other users' processes are hidden.
const capabilities = 1<<unix.CAP_DAC_READ_SEARCH | 1<<unix.CAP_SYS_PTRACE

// causesOf returns why owners stay unknown, each with what to do about it; none if a
// few processes refuse even a program that may read all.
func causesOf(v procfs.Visibility, report owner.Report) (causes []string) {
	if v.PIDNS && report.Hidden != "" {
		causes = append(causes, "the host's processes are not visible: share them (docker: --pid=host, Kubernetes: hostPID: true), "+
			"or mount the host's /proc and name it in HOST_PROC")
	}
	switch {
	case v.Capabilities&capabilities != capabilities:
		causes = append(causes, "the capabilities CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH are missing: run as root of the host, or grant both "+
			"(systemd: AmbientCapabilities=CAP_SYS_PTRACE CAP_DAC_READ_SEARCH; docker: --cap-add=SYS_PTRACE --cap-add=DAC_READ_SEARCH; "+
			"elsewhere: setcap cap_sys_ptrace,cap_dac_read_search+ep sockwatch)")
	case v.HidePID && !v.PIDNS && report.Hidden != "":
		causes = append(causes, "/proc is mounted with hidepid, which hides processes: mount it without, or with gid= of a group of sockwatch")
	case v.AppArmor != "" && report.Refused > 0:
		causes = append(causes, fmt.Sprintf("the AppArmor profile %q denies reading other processes: allow it ptrace and reading them, or run without it "+
			"(docker: --security-opt apparmor=unconfined)", v.AppArmor))
	}
	if v.AppArmor != "" && v.Capabilities&capabilities != capabilities {
		causes = append(causes, fmt.Sprintf("the AppArmor profile %q may deny it even with both "+
			"(docker: --security-opt apparmor=unconfined; Kubernetes: appArmorProfile: {type: Unconfined})", v.AppArmor))
	}
	return causes
}
