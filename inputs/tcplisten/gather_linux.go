package tcplisten

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
	"sockwatch/inputs/internal/cgroup"
	hosts "sockwatch/inputs/internal/host"
	"sockwatch/inputs/internal/inet"
	"sockwatch/inputs/internal/owner"
	"sockwatch/inputs/internal/procfs"
	"sockwatch/inputs/internal/users"
)

// An input gathers the listeners of one host. What it keeps between two gathers
// is what it knows of the sockets that are there: see listener.
type input struct {
	options  Options
	env      plugin.Env
	users    *users.Names
	uids     map[uint32]bool // of the listeners
	named    uint32          // changes when the name of a user does
	exporter *exporter       // nil without custom_port_exporter

	fs        *procfs.FS // nil until the first gather, as all that follows
	owners    *owner.Finder
	cgroups   *cgroup.Tree // nil also where no cgroup2 is mounted
	sightings *sightings
	host      *space
	spaces    []*space // all network namespaces, the host's among them
	before    []*space // those of a predecessor, until the first gather has succeeded

	started   bool        // a gather has succeeded, also of a predecessor that saw the same
	since     int64       // when what is new was first seen; 0 in the first gather
	listeners []*listener // of all spaces
	changed   bool        // some have come or gone since the groups were made
	groups    table
	shown     []*group            // those with points of their own
	folded    map[string][]*group // the others, by user
	moved     bool                // a backlog has, or more, since the last points
	published []metric.Point      // the last points: they stand while nothing moves
	timed     time.Time           // when the host's boot time was read
	told      told
}

// told holds what is said once per run, also by successors.
type told struct{ netlink, namespaces, empty, capabilities, sightings bool }

func newInput(o Options, env plugin.Env) (plugin.Input, error) {
	in := &input{options: o, env: env, uids: make(map[uint32]bool)}
	if o.CustomPortExporter {
		in.exporter = &exporter{host: env.Hostname}
		if o.ResolveAddresses {
			in.exporter.names = newNames(net.DefaultResolver.LookupAddr)
		}
	}
	return in, nil
}

// Gather lists the listeners, finds their owners and makes them points.
func (in *input) Gather(ctx context.Context) (metric.Batch, error) {
	return in.gather(ctx, time.Now())
}

func (in *input) gather(ctx context.Context, now time.Time) (metric.Batch, error) {
	search, cancel := inTime(ctx, now)
	defer cancel()
	return in.gatherWhile(ctx, search, now)
}

// gatherWhile is a gather whose search for owners ends with another context.
func (in *input) gatherWhile(ctx, search context.Context, now time.Time) (metric.Batch, error) {
	if err := in.open(); err != nil {
		return metric.Batch{}, err
	}
	if err := in.list(ctx, now); err != nil {
		return metric.Batch{}, err
	}
	report, err := in.findOwners(ctx, search, now)
	if err != nil {
		return metric.Batch{}, err
	}
	partial, established := report.Partial, in.options.Established
	if established {
		if err := in.countEstablished(search); err != nil {
			established = false
			partial = strings.TrimPrefix(partial+"; established connections: "+err.Error(), "; ")
		}
	}
	if in.describe(ctx, now) || in.changed || report.Walked {
		in.arrange()
	} else if in.sightings.absent > 0 {
		in.resight()
	}
	in.remember(now)
	in.started, in.before = true, nil
	return metric.Batch{Time: now, Points: in.points(ctx, now, established), Partial: partial}, nil
}

// open opens what the first gather needs, and keeps it.
func (in *input) open() error {
	if in.fs != nil {
		return nil
	}
	path := in.options.procPath(os.Getenv)
	fs, err := procfs.Open(hosts.Find(path))
	if err != nil {
		return fmt.Errorf("proc %q: %w", path, err)
	}
	in.owners, err = owner.NewFinder(fs, owner.Options{
		Verify:  time.Duration(in.options.OwnerVerify),
		Refresh: time.Duration(in.options.OwnerRefresh),
		Cmdline: in.cmdlineBytes(),
		Members: in.members,
	})
	if err != nil {
		return errors.Join(err, fs.Close())
	}
	// Without a unified hierarchy units and containers come from the owners alone.
	in.cgroups, _ = cgroup.OpenTree(filepath.Join(path, "self/mountinfo"))
	if in.sightings == nil {
		in.sightings, err = openSightings(in.env.StateDir, in.env.Name)
		if err != nil {
			in.env.Log.Warn("what an earlier run knew of listeners is not used", "reason", err)
		}
	}
	in.fs = fs
	in.host = hostSpace(fs)
	if in.users == nil {
		in.users = users.New(hosts.Find(path), time.Duration(in.options.OwnerRefresh))
	}
	in.spaces = []*space{in.host}
	return nil
}

// Succeed takes over when listeners were first seen, and what was said. What the
// predecessor had not seen has come since, unless it looked elsewhere.
func (in *input) InheritFrom(predecessor plugin.Input) {
	old, ok := predecessor.(*input)
	if !ok || old.sightings == nil {
		return
	}
	in.before = old.spaces
	if old.before != nil { // it has not gathered, and is an heir itself
		in.before = old.before
	}
	in.sightings = old.sightings.passOn(in.env.StateDir, in.env.Name)
	in.told = old.told
	in.told.sightings = false // they may be written elsewhere
	o, n := old.options, in.options
	in.started = old.started && o.Backend == n.Backend && o.Proc == n.Proc && o.Namespaces == n.Namespaces
}

// Close releases what the gathers opened.
func (in *input) Close() error {
	if in.exporter != nil && in.exporter.names != nil {
		in.exporter.names.Close()
	}
	if in.fs == nil {
		return nil
	}
	in.users.Close()
	in.host.close()
	err := errors.Join(in.sightings.close(), in.owners.Close(), in.fs.Close())
	in.fs = nil
	return err
}

func (in *input) cmdlineBytes() int {
	if in.options.Cmdline {
		return 256
	}
	return 0
}

// members returns the processes of a cgroup; none of the root, where they are
// most of the host's.
func (in *input) members(path string) []int {
	if in.cgroups == nil || path == "/" {
		return nil
	}
	return in.cgroups.PIDs(path)
}

// list brings the listeners in line with the sockets that there are.
func (in *input) list(ctx context.Context, now time.Time) error {
	if in.cgroups != nil {
		in.cgroups.Begin()
	}
	if in.started {
		in.since = now.Unix()
	}
	if err := in.findSpaces(); err != nil {
		return err
	}
	if err := in.listAll(ctx, in.sight); err != nil {
		return err
	}
	in.drop((*listener).unseen)
	return nil
}

// sight notes that a socket is there.
func (in *input) sight(sp *space, s *inet.Socket) {
	l := sp.listeners[s.Cookie]
	if l == nil || !l.is(s) {
		l = &listener{space: sp, isNew: true, since: in.firstSeen(sp, s)}
		l.owner.Inode = s.Inode
		if s.Cgroup != 0 && in.cgroups != nil {
			if path, ok := in.cgroups.Path(s.Cgroup); ok {
				l.owner.Cgroup, l.cgroup = path, cgroup.ParsePath(path)
			}
		}
		sp.listeners[s.Cookie] = l
		in.listeners, in.changed = append(in.listeners, l), true
		in.owners.Add(&l.owner)
	}
	if l.unseen() {
		sp.seen++
	}
	if l.sight(s) {
		in.moved = true
	}
}

// firstSeen returns when a socket was first seen that is new to this input: its
// predecessor may have known it.
func (in *input) firstSeen(sp *space, s *inet.Socket) int64 {
	for _, old := range in.before {
		if l := old.listeners[s.Cookie]; old.inode == sp.inode && l != nil && l.is(s) {
			return l.since
		}
	}
	return in.since
}

// drop forgets some listeners.
func (in *input) drop(gone func(*listener) bool) {
	in.listeners = slices.DeleteFunc(in.listeners, func(l *listener) bool {
		if !gone(l) {
			return false
		}
		in.changed = true
		in.owners.Remove(&l.owner)
		if l.space.listeners[l.socket.Cookie] == l {
			delete(l.space.listeners, l.socket.Cookie)
		}
		return true
	})
}

// inTime returns a context that leaves a gather the time to end what it has begun.
func inTime(ctx context.Context, now time.Time) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return ctx, func() {}
	}
	reserve := min(max(deadline.Sub(now)/8, 20*time.Millisecond), 2*time.Second)
	return context.WithDeadline(ctx, deadline.Add(-reserve))
}

// findOwners brings the owners up to date; search ends before ctx does.
func (in *input) findOwners(ctx, search context.Context, now time.Time) (owner.Report, error) {
	report := in.owners.Update(search, now)
	in.warn(report)
	if !report.Walked {
		return report, nil
	}
	// What was found holds for sockets that were there before and after the search:
	// the inode of one that was closed may have become another's meanwhile.
	err := in.listAll(ctx, func(sp *space, s *inet.Socket) {
		if l := sp.listeners[s.Cookie]; l != nil && l.is(s) {
			in.sight(sp, s)
		}
	})
	if err != nil {
		return report, err
	}
	in.drop(func(l *listener) bool { return l.unseen() && !l.isNew })
	for _, l := range in.listeners {
		if l.unseen() {
			l.owner.Closed()
		}
		l.isNew = false
	}
	return report, nil
}

// The capabilities without which the files of other users' processes are hidden.
const (
	capDACReadSearch = 1 << unix.CAP_DAC_READ_SEARCH
	capSysPtrace     = 1 << unix.CAP_SYS_PTRACE
)

// warn says what is missing to see the owners of all listeners.
func (in *input) warn(report owner.Report) {
	if in.told.capabilities || report.Refused == 0 && report.Hidden == "" {
		return
	}
	held := in.fs.Visibility().Capabilities
	if held&capDACReadSearch != 0 && held&capSysPtrace != 0 {
		return
	}
	in.told.capabilities = true
	in.env.Log.Warn("owners of other users' listeners stay unknown without the capabilities CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH: "+
		"run as root, or grant both (systemd: AmbientCapabilities=CAP_SYS_PTRACE CAP_DAC_READ_SEARCH; "+
		"elsewhere: setcap cap_sys_ptrace,cap_dac_read_search+ep sockwatch)",
		"unreadable_processes", report.Refused)
}

// describe makes the tags of the listeners of which something has changed.
func (in *input) describe(ctx context.Context, now time.Time) (changed bool) {
	clear(in.uids)
	for _, l := range in.listeners {
		in.uids[l.socket.UID] = true
	}
	if in.users.Update(ctx, in.uids, now) {
		in.named++
	}
	if now.Sub(in.timed) >= time.Duration(in.options.OwnerRefresh) {
		// Setting the clock moves the time at which the host booted. What was read
		// before serves where it cannot be read.
		_ = in.fs.ReadBootTime()
		in.timed, in.moved = now, true
	}
	for _, l := range in.listeners {
		if l.describe(in.users, in.named) {
			changed = true
		}
	}
	return changed
}

// arrange makes the listeners groups, of which each is a point.
func (in *input) arrange() {
	in.changed = false
	in.groups.arrange(in.listeners)
	in.resight()
	in.shown, in.folded = fold(in.groups.sorted, in.options.MaxListeners, in.users)
	in.moved = true
	if in.exporter != nil {
		in.exporter.show(in.shown)
	}
}

// resight brings the sightings in line with the groups.
func (in *input) resight() {
	in.sightings.update(in.groups.sorted, !slices.ContainsFunc(in.listeners, func(l *listener) bool {
		return l.owner.Status == owner.Pending
	}))
}

// remember keeps when listeners were first seen for the next run.
func (in *input) remember(now time.Time) {
	if err := in.sightings.save(now); err != nil && !in.told.sightings {
		in.told.sightings = true
		in.env.Log.Warn("when listeners were first seen is not kept for the next run", "reason", err)
	}
}

// points returns the points of this gather: those of the last where nothing has
// moved since.
func (in *input) points(ctx context.Context, now time.Time, established bool) []metric.Point {
	if in.exporter != nil && in.exporter.rename(ctx, now) {
		in.moved = true
	}
	if !in.moved && !established {
		return in.published
	}
	in.moved = established
	points := make([]metric.Point, 0, len(in.published))
	for _, g := range in.shown {
		points = append(points, g.point(g.sum(in.fs.StartTime, established)))
	}
	for _, user := range slices.Sorted(maps.Keys(in.folded)) {
		points = append(points, overflow(user, in.folded[user]))
	}
	if in.exporter != nil {
		points = append(points, in.exporter.points...)
	}
	in.published = points
	return points
}
