package tcplisten

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/expect"
	"sockwatch/inputs/internal/netns"
	"sockwatch/inputs/internal/owner"
	"sockwatch/inputs/internal/procfs"
)

// warnings records which warnings have been logged. Each is logged once per run, however
// often the configuration is reloaded. Only the expiry of a rule is logged again, once a day.
type warnings struct {
	netlink, foreignNetlink, namespaces, hidden, files, users, glimpses bool

	expiring map[expect.Expiry]time.Time // when the expiry of a rule was last logged
}

// warnOnce logs a warning and sets logged, unless it is set already.
func (in *input) warnOnce(logged *bool, message string, attributes ...any) {
	if !*logged {
		*logged = true
		in.env.Log.Warn(message, attributes...)
	}
}

// warnOfSource warns if the sockets of a namespace do not come from netlink.
func (in *input) warnOfSource(ns *netns.Namespace, source netns.Source) {
	switch {
	case source.Reason == nil:
	case ns.Host():
		in.warnOnce(&in.warned.netlink, "netlink is refused, reading /proc/net/tcp instead: no backlog limits, devices or cgroups",
			"reason", source.Reason)
	default:
		in.warnOnce(&in.warned.foreignNetlink, "entering network namespaces needs CAP_SYS_ADMIN, reading their /proc/PID/net/tcp instead: "+
			"no backlog limits, devices or cgroups", "reason", source.Reason)
	}
}

// warnOfOwners warns if owners stay unknown, with the reason and what to do about it.
func (in *input) warnOfOwners(report owner.Report) {
	if err := report.OutOfResources; err != nil {
		in.warnOnce(&in.warned.files, "search for owners stopped, keeping known owners: raise the limit on open files (systemd: LimitNOFILE=)",
			"error", err)
	}
	unreadable := func(l *listener) bool { return l.owner.Status == owner.Unreadable }
	if in.warned.hidden || !slices.ContainsFunc(in.listeners.all, unreadable) {
		return
	}
	if causes := causesOf(in.open.procfs.Visibility(), report); len(causes) > 0 {
		in.warnOnce(&in.warned.hidden, "some owners are unknown: "+strings.Join(causes, "; "), "unreadable_processes", report.Refused)
	}
}

// expiryLogged marks the expiry of rules as already logged.
func (w *warnings) expiryLogged(expiring []expect.Expiry, now time.Time) {
	w.expiring = make(map[expect.Expiry]time.Time)
	for _, e := range expiring {
		w.expiring[e] = now
	}
}

// warnOfExpiry warns once a day of each rule whose approval has ended or soon will.
func (in *input) warnOfExpiry(now time.Time) {
	expiring := in.rules.Expiring(now)
	if len(expiring) == 0 && len(in.warned.expiring) == 0 {
		return
	}
	logged := make(map[expect.Expiry]time.Time, len(expiring))
	for _, e := range expiring {
		last, known := in.warned.expiring[e]
		if known && now.Sub(last).Abs() < 24*time.Hour {
			logged[e] = last
			continue
		}
		logged[e] = now
		message := "the approval of a rule ends soon"
		switch {
		case e.Expired && e.Kind == "forbid":
			message = "the approval of a rule has ended, it still forbids"
		case e.Expired:
			message = "the approval of a rule has ended, it no longer allows anything"
		}
		in.env.Log.Warn(message, "kind", e.Kind, "rule", e.Rule, "expires", e.Expires)
	}
	in.warned.expiring = logged
}

// capabilities are the ones needed to read the files of other users' processes.
const capabilities = 1<<unix.CAP_DAC_READ_SEARCH | 1<<unix.CAP_SYS_PTRACE

// causesOf returns why owners are unknown, and what to do about each cause. There is no
// cause if only a few processes cannot be read even with every permission.
func causesOf(v procfs.Visibility, report owner.Report) (causes []string) {
	if v.PIDNS && report.Hidden != "" {
		causes = append(causes, "the host's processes are not visible: share them (docker: --pid=host, Kubernetes: hostPID: true), "+
			"or mount the host's /proc and set HOST_PROC to its path")
	}
	switch {
	case v.Capabilities&capabilities != capabilities:
		causes = append(causes, "the capabilities CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH are both needed: run as root on the host, or grant them "+
			"(systemd: AmbientCapabilities=CAP_SYS_PTRACE CAP_DAC_READ_SEARCH; docker: --cap-add=SYS_PTRACE --cap-add=DAC_READ_SEARCH; "+
			"elsewhere: setcap cap_sys_ptrace,cap_dac_read_search+ep sockwatch)")
	case v.HidePID && !v.PIDNS && report.Hidden != "":
		causes = append(causes, "/proc is mounted with hidepid, which hides processes: mount it without hidepid, or with gid= set to a group that sockwatch is in")
	case v.AppArmor != "" && report.Refused > 0:
		causes = append(causes, fmt.Sprintf("the AppArmor profile %q denies reading other processes: allow it and ptrace in the profile, or run without it "+
			"(docker: --security-opt apparmor=unconfined)", v.AppArmor))
	}
	if v.AppArmor != "" && v.Capabilities&capabilities != capabilities {
		causes = append(causes, fmt.Sprintf("the AppArmor profile %q may deny it even with both "+
			"(docker: --security-opt apparmor=unconfined; Kubernetes: appArmorProfile: {type: Unconfined})", v.AppArmor))
	}
	return causes
}
