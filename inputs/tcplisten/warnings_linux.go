package tcplisten

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/expect"
	"sockwatch/inputs/internal/netns"
	"sockwatch/inputs/internal/owner"
	"sockwatch/inputs/internal/procfs"
)

// A limitation is a kind of thing that the input cannot see.
type limitation int

const (
	hostNetlink limitation = iota
	foreignNetlink
	foreignNamespaces
	hiddenOwners
	openFiles
	userDatabase
	briefListeners
	lostListenEvents

	limitationKinds
)

// warnings are what the input cannot see, and which warnings have been logged. Each is logged
// once per run, however often the configuration is reloaded. Only the expiry of a rule is
// logged again, once a day.
type warnings struct {
	logged   [limitationKinds]bool
	noted    bool                        // that BPF is not in use; guarded by limitations.mu
	expiring map[expect.Expiry]time.Time // when the expiry of a rule was last logged
}

// limitations are what the last gather could not see.
type limitations struct {
	found   [limitationKinds]string // by the gather in flight: sentences, "" if there is none
	hidden  string                  // why owners are unknown since the last search for them; "" if none is
	refused int                     // how many processes that search could not read

	mu      sync.Mutex
	current []string // of the last gather; replaced and never changed
}

// begin starts a gather.
func (l *limitations) begin() { l.found = [limitationKinds]string{} }

// commit ends a gather. If it has found the same as the last one, it allocates nothing.
func (l *limitations) commit() {
	l.mu.Lock()
	defer l.mu.Unlock()
	same, n := true, 0
	for _, sentence := range l.found {
		if sentence != "" {
			same = same && n < len(l.current) && l.current[n] == sentence
			n++
		}
	}
	if same && n == len(l.current) {
		return
	}
	l.current = nil
	for _, sentence := range l.found {
		if sentence != "" {
			l.current = append(l.current, sentence)
		}
	}
}

// Limits returns what the last gather could not see, and what to do about it.
func (in *input) Limits() []string {
	in.limits.mu.Lock()
	defer in.limits.mu.Unlock()
	return in.limits.current
}

// warn records that the gather in flight cannot see something. Of each kind it records the
// first, and logs the first of the run.
func (in *input) warn(kind limitation, message string, attributes ...any) {
	if !in.warned.logged[kind] {
		in.warned.logged[kind] = true
		in.env.Log.Warn(message, attributes...)
	}
	if in.limits.found[kind] == "" {
		in.limits.found[kind] = sentence(message, attributes)
	}
}

// noteWithoutBPF logs why BPF is not in use, and what that means. Everything is found without it,
// only later and at a higher cost, so this is no limitation.
func (in *input) noteWithoutBPF(reason error) {
	in.limits.mu.Lock()
	defer in.limits.mu.Unlock()
	if !in.warned.noted {
		in.warned.noted = true
		in.env.Log.Info("BPF is not in use, it would find owners in one pass and report listeners the moment they open", "reason", reason)
	}
}

// sentence formats a log message with its attributes for people.
func sentence(message string, attributes []any) string {
	var facts []string
	for i := 0; i+1 < len(attributes); i += 2 {
		name, value := attributes[i], strings.ReplaceAll(fmt.Sprint(attributes[i+1]), "\n", ", ")
		if name != "error" && name != "reason" {
			value = fmt.Sprint(strings.ReplaceAll(fmt.Sprint(name), "_", " "), " ", value)
		}
		facts = append(facts, value)
	}
	if len(facts) == 0 {
		return message
	}
	return message + " (" + strings.Join(facts, ": ") + ")"
}

// warnOfSource warns if the sockets of a namespace do not come from netlink.
func (in *input) warnOfSource(ns *netns.Namespace, source netns.Source) {
	switch {
	case source.Reason == nil:
	case ns.Host():
		in.warn(hostNetlink, "netlink is refused, reading /proc/net/tcp instead: no backlog limits, devices or cgroups",
			"reason", source.Reason)
	default:
		in.warn(foreignNetlink, "entering network namespaces needs CAP_SYS_ADMIN, reading their /proc/PID/net/tcp instead: "+
			"no backlog limits, devices or cgroups", "reason", source.Reason)
	}
}

// warnOfResources warns that no descriptor or memory is left, which stops the search for owners and
// the reading of user names alike.
func (in *input) warnOfResources(err error) {
	in.warn(openFiles, "cannot open more files, keeping known owners and user names: raise the limit on open files (systemd: LimitNOFILE=)",
		"error", err)
}

// warnOfUsers warns if user names cannot be read.
func (in *input) warnOfUsers(err error) {
	switch {
	case err == nil:
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOMEM):
		in.warnOfResources(err)
	default:
		in.warn(userDatabase, "cannot read user names, showing user ids instead of unknown names", "error", err)
	}
}

// warnOfOwners warns if owners stay unknown, with the reason and what to do about it. The reason
// comes from the last search for owners.
func (in *input) warnOfOwners(report owner.Report) {
	if report.OutOfResources != nil {
		in.warnOfResources(report.OutOfResources)
	}
	if !report.Walked && in.limits.hidden == "" {
		return
	}
	if !slices.ContainsFunc(in.listeners.all, func(l *listener) bool { return l.owner.Status == owner.Unreadable }) {
		in.limits.hidden = ""
		return
	}
	if report.Walked {
		in.limits.refused = report.Refused
		if causes := causesOf(in.open.procfs.Visibility(), report); len(causes) > 0 {
			in.limits.hidden = "some owners are unknown: " + strings.Join(causes, "; ")
		} else if in.limits.hidden == "" { // else the search may not have come to the hidden processes yet
			in.limits.hidden = unexplained
		}
	}
	if in.limits.hidden == unexplained { // no warning in the log, since there is nothing to do about it
		in.limits.found[hiddenOwners] = unexplained
		return
	}
	in.warn(hiddenOwners, in.limits.hidden, "unreadable_processes", in.limits.refused)
}

const unexplained = "some owners are unknown: a security module may hide some processes even from root"

// warnOfNamespaces adds how many network namespaces could not be listed, of which one was named
// before.
func (in *input) warnOfNamespaces() {
	failed := 0
	for _, t := range in.listeners.tables {
		if t.failed {
			failed++
		}
	}
	if failed > 1 && in.limits.found[foreignNamespaces] != "" {
		in.limits.found[foreignNamespaces] += fmt.Sprintf(", and %d more", failed-1)
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
	case v.UserNS:
		causes = append(causes, "sockwatch runs in a user namespace, where capabilities, even those of its root, do not apply to the host's processes: "+
			"run it as root on the host, or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH there (docker: --userns=host)")
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
