package tcplisten

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
	"sockwatch/inputs/internal/expect"
	"sockwatch/inputs/internal/host"
	"sockwatch/inputs/internal/inet"
	"sockwatch/inputs/internal/owner"
	"sockwatch/inputs/internal/procfs"
)

const (
	// maxShownSockets is how many sockets of one point Details describes.
	maxShownSockets = 16
	// maxShownHolders is how many processes of one point Details describes.
	maxShownHolders = 64
)

// Details describes the sockets of a point, the processes that hold them, and what the rules say
// about them. The state of the sockets is that of the last gather. The processes are read again,
// but never their arguments.
func (in *input) Details(ctx context.Context, p *metric.Point) ([]plugin.DetailSection, error) {
	if err := in.scans.mu.LockWithin(ctx); err != nil {
		return nil, fmt.Errorf("waiting for the gather in flight: %w", err)
	}
	known := in.subject(p)
	in.scans.mu.Unlock()
	if known == nil {
		return nil, nil
	}
	holders, err := known.inspectHolders(ctx, in.options.procPath(os.Getenv))
	if err != nil {
		return nil, err
	}
	return slices.Concat(known.sockets, holders, known.rules), nil
}

// A subject is what the last gather has found out about one point.
type subject struct {
	sockets, rules []plugin.DetailSection
	holders        []owner.Process // the first of them, in the order of owner.Compare
	processes      int             // how many hold the sockets
	names          map[uint32]string
	netns          map[uint64]string // the names of network namespaces
}

// subject returns the subject of a point, or nil if there is no such listener. The caller holds
// scans.mu.
func (in *input) subject(p *metric.Point) *subject {
	if p.Name != pointListener || in.open == nil {
		return nil
	}
	g := in.groups.byKey[seriesKey(p.Tags)]
	if g == nil {
		return nil
	}
	s := &subject{processes: g.processes, names: make(map[uint32]string), netns: make(map[uint64]string)}
	for uid := range in.listeners.uids() {
		s.names[uid] = in.open.users.Name(uid)
	}
	for _, t := range in.listeners.tables {
		s.netns[t.ns.Inode()] = cmp.Or(t.name, "the host's")
	}
	for i, l := range g.members[:min(len(g.members), maxShownSockets)] {
		d := in.describeSocket(l)
		if i == maxShownSockets-1 && len(g.members) > maxShownSockets {
			d.add("more", fmt.Sprintf("%d more sockets are not shown", len(g.members)-maxShownSockets))
		}
		s.sockets = append(s.sockets, plugin.DetailSection{Title: title("Socket", i, len(g.members)), Details: d})
	}
	s.holders = firstHolders(g)
	if in.rules.Active() {
		s.rules = []plugin.DetailSection{{Title: "Rules", Details: in.describeRules(g)}}
	}
	return s
}

// title returns "Socket" for a single one, else "Socket 2 of 3".
func title(what string, index, of int) string {
	if of == 1 {
		return what
	}
	return fmt.Sprintf("%s %d of %d", what, index+1, of)
}

// firstHolders returns copies of the first processes that hold the sockets of a group.
func firstHolders(g *group) (holders []owner.Process) {
	unique := make(map[*owner.Process]bool) // thousands of sockets may have the same few holders
	for _, l := range g.members {
		for _, h := range l.owner.Holders {
			unique[h.Process] = true
		}
	}
	all := slices.SortedFunc(maps.Keys(unique), owner.Compare)
	for _, p := range all[:min(len(all), maxShownHolders)] {
		holders = append(holders, *p)
	}
	return holders
}

// details are facts. Those that are unknown are left out.
type details []plugin.Detail

func (d *details) add(name, value string) {
	if value != "" {
		*d = append(*d, plugin.Detail{Name: name, Value: value})
	}
}

func (d *details) addSensitive(name, value string) {
	if value != "" {
		*d = append(*d, plugin.Detail{Name: name, Value: value, Sensitive: true})
	}
}

func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

func formatUnix(seconds int64) string {
	if seconds == 0 {
		return ""
	}
	return formatTime(time.Unix(seconds, 0))
}

// describeSocket returns what is known about a socket.
func (in *input) describeSocket(l *listener) (d details) {
	s := &l.socket
	d.add("address", l.address())
	d.add("port", strconv.Itoa(int(s.Port)))
	d.add("device", l.device())
	d.add("family", s.Family())
	d.add("netns", netnsText(l.table.ns.Inode(), cmp.Or(l.table.name, "the host's")))
	d.add("exposure", cmp.Or(l.exposure().String(), "none"))
	d.add("exposure_reason", l.exposureReason())
	name, uid := in.open.users.Name(s.UID), strconv.FormatUint(uint64(s.UID), 10)
	if name != uid {
		d.add("user", name)
	}
	d.add("uid", uid)
	d.add("owner", ownerText(l.owner.Status))
	d.add("inode", strconv.FormatUint(s.Inode, 10))
	if s.Cookie != s.Inode {
		d.add("cookie", strconv.FormatUint(s.Cookie, 10))
	}
	d.addSensitive("cgroup", l.owner.Cgroup)
	d.add("backlog", strconv.FormatUint(uint64(s.Backlog), 10))
	if s.HasLimit {
		d.add("backlog_limit", strconv.FormatUint(uint64(s.Limit), 10))
	}
	if l.table.established != nil {
		d.add("established", strconv.Itoa(l.table.established[l]))
	}
	firstSeen, changed := in.recorder.changes.Times(l.observed.Endpoint, l.observed.ID)
	if d.add("first_seen", formatUnix(firstSeen)); firstSeen == 0 {
		d.add("first_seen", "at or before the first gather")
	}
	d.add("changed", formatUnix(changed))
	if l.table.source.Procfs {
		d.add("listed_by", "/proc/net/tcp, which shows neither a backlog limit nor a device nor a cgroup")
	}
	return d
}

// ownerText explains the tag owner.
func ownerText(s owner.Status) string {
	switch s {
	case owner.Pending:
		return "pending: the search for the processes that hold it has not ended"
	case owner.Resolved:
		return "resolved"
	case owner.Unreadable:
		return "unreadable: no process that can be read holds it, but some cannot be read"
	case owner.None:
		return "none: no process holds it"
	default:
		return "exited: it was closed during the search for its owner"
	}
}

// netnsText returns the name and the number of a network namespace.
func netnsText(number uint64, name string) string {
	text := strconv.FormatUint(number, 10)
	if number == 0 || text == name {
		return name
	}
	return name + " (" + text + ")"
}

// exposureReason returns which address makes the exposure what it is.
func (l *listener) exposureReason() string {
	local, addr := l.table.local, l.socket.Addr.Unmap()
	at := ""
	if device := l.device(); device != "" {
		at = " of device " + device
	}
	switch class := l.exposure(); {
	case local == nil:
		return "the addresses of its network namespace are not known"
	case class == inet.Nowhere && addr.IsUnspecified():
		return "unreachable: there is no address" + at + " that it answers on"
	case class == inet.Nowhere:
		return "unreachable: " + addr.String() + " is not an address" + at + " in its network namespace"
	case !addr.IsUnspecified():
		return addr.String() + " is " + classText(class)
	default:
		all := "it answers on all addresses" + at
		if example, ok := local.Example(&l.socket); ok {
			return all + ", of which " + example.String() + " is " + classText(class)
		}
		return all + ", of which the widest is " + classText(class)
	}
}

func classText(c inet.Class) string {
	return "a " + strings.ReplaceAll(c.String(), "_", "-") + " address"
}

// inspectHolders reads the processes that hold the sockets.
func (s *subject) inspectHolders(ctx context.Context, proc string) (sections []plugin.DetailSection, err error) {
	if len(s.holders) == 0 {
		return nil, nil
	}
	fs, err := procfs.Open(host.Find(proc)) // that of the gathers is for one goroutine
	if err != nil {
		return nil, err
	}
	defer fs.Close()
	for i := range s.holders {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		d := s.describeHolder(fs, &s.holders[i])
		if i > 0 { // the point names only the first one
			for j := range d {
				d[j].Sensitive = true
			}
		}
		if i == len(s.holders)-1 && s.processes > len(s.holders) {
			d.addSensitive("more", fmt.Sprintf("%d more processes are not shown", s.processes-len(s.holders)))
		}
		sections = append(sections, plugin.DetailSection{Title: title("Holder", i, s.processes), Details: d})
	}
	return sections, nil
}

// describeHolder returns what is known about a process. If it has exited, that is what the last
// gather has seen.
func (s *subject) describeHolder(fs *procfs.FS, known *owner.Process) (d details) {
	now, err := owner.Inspect(fs, known.PID, known.Start)
	if err != nil {
		now = &owner.Inspection{Process: *known}
	}
	d.add("process", now.Comm)
	d.add("pid", strconv.Itoa(now.PID))
	switch {
	case errors.Is(err, procfs.ErrExited):
		d.add("state", "has exited since the last gather, which saw what follows")
	case err != nil:
		d.add("state", "cannot be read now; the last gather saw what follows")
		d.addSensitive("error", err.Error())
	case now.Refused:
		d.add("state", "may not be read in full: that needs CAP_SYS_PTRACE, and a security module that allows it")
	}
	if now.HasUID {
		d.add("user", s.names[now.UID])
		d.add("uid", strconv.FormatUint(uint64(now.UID), 10))
	}
	exe := now.Exe
	if now.ExeDeleted {
		exe += " (deleted or replaced since the process started)"
	}
	d.addSensitive("exe", exe)
	d.add("process_start_time", formatTime(fs.StartTime(now.Start)))
	if from := now.Lineage; from.ParentPID != 0 {
		d.addSensitive("parent_pid", strconv.Itoa(from.ParentPID))
		d.addSensitive("parent_process", from.ParentComm)
		d.addSensitive("parent_exe", from.ParentExe)
	}
	if now.Lineage.HasLogin {
		d.addSensitive("login_uid", strconv.FormatUint(uint64(now.Lineage.LoginUID), 10))
	}
	d.addSensitive("cgroup", now.CgroupPath)
	d.add("unit", now.Cgroup.Unit)
	d.add("user_unit", now.Cgroup.UserUnit)
	d.add("container", now.Cgroup.Container)
	d.add("pod", now.Cgroup.Pod)
	if now.Manager() {
		d.add("manager", "holds sockets for services that it activates")
	}
	if now.Netns != 0 {
		d.add("netns", netnsText(now.Netns, cmp.Or(s.netns[now.Netns], strconv.FormatUint(now.Netns, 10))))
	}
	return d
}

// describeRules returns what the rules say about the listeners of a group: about the first of
// those with the worst verdict.
func (in *input) describeRules(g *group) (d details) {
	worst := g.members[0]
	for _, l := range g.members[1:] {
		if expect.Worst(worst.verdict, l.verdict).Expected != worst.verdict.Expected {
			worst = l
		}
	}
	if worst.judged == nil {
		return nil
	}
	now := time.Now()
	d.add("expected", cmp.Or(worst.verdict.Expected, "no verdict: unlisted listeners are ignored"))
	d.add("rule", worst.verdict.Rule)
	reason := in.rules.Why(worst.judged, now)
	if worst.verdict.Rule == "" {
		d.add("nearest_rule", reason.Rule)
	}
	// These quote the justifications of rules, and may compare the program or the cgroup of any
	// holder. Events have them for the same readers.
	d.addSensitive("why", reason.Why)
	for _, sentence := range in.rules.Matching(worst.judged, now) {
		d.addSensitive("matches", sentence)
	}
	return d
}
