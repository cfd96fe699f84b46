package tcplisten

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
	"sockwatch/inputs/internal/cgroup"
	"sockwatch/inputs/internal/inet"
	"sockwatch/inputs/internal/owner"
	"sockwatch/inputs/internal/procfs"
)

// An input gathers the listeners of one host. What it keeps between two gathers
// is what it knows of the sockets that are there: see listener.
type input struct {
	options Options
	env     plugin.Env

	fs       *procfs.FS // nil until the first gather
	owners   *owner.Finder
	cgroups  *cgroup.Tree // nil where no cgroup2 is mounted
	host     *space
	users    users
	exporter *exporter // nil without custom_port_exporter

	started   bool        // a gather has succeeded
	listeners []*listener // of all spaces
	groups    table
	warned    bool // of what may not be read
}

func newInput(o Options, env plugin.Env) (plugin.Input, error) {
	in := &input{options: o, env: env}
	if o.CustomPortExporter {
		in.exporter = &exporter{host: env.Hostname}
		if o.ResolveAddresses {
			in.exporter.names = newNames()
		}
	}
	return in, nil
}

// Gather lists the listeners, finds their owners and makes them points.
func (in *input) Gather(ctx context.Context) (metric.Batch, error) {
	now := time.Now()
	if err := in.open(); err != nil {
		return metric.Batch{}, err
	}
	if in.cgroups != nil {
		in.cgroups.Begin()
	}
	changed, err := in.list(ctx, now)
	if err != nil {
		return metric.Batch{}, err
	}
	report, err := in.findOwners(ctx, now)
	if err != nil {
		return metric.Batch{}, err
	}
	in.users.expire(now, time.Duration(in.options.OwnerRefresh))
	if in.describe() || changed || report.Walked {
		in.groups.arrange(in.listeners)
		if in.exporter != nil {
			in.exporter.stale = true
		}
	}
	in.started = true
	return metric.Batch{Time: now, Points: in.points(now), Partial: report.Partial}, nil
}

// open opens what the first gather needs, and keeps it.
func (in *input) open() error {
	if in.fs != nil {
		return nil
	}
	path := in.options.procPath(os.Getenv)
	fs, err := procfs.Open(path)
	if err != nil {
		return fmt.Errorf("proc %q: %w", path, err)
	}
	// Without a unified hierarchy units and containers come from the owners alone.
	in.cgroups, _ = cgroup.OpenTree(filepath.Join(path, "self/mountinfo"))
	in.owners, err = owner.NewFinder(fs, owner.Options{
		Verify:  time.Duration(in.options.OwnerVerify),
		Refresh: time.Duration(in.options.OwnerRefresh),
		Cmdline: in.cmdlineBytes(),
		Members: in.members,
	})
	if err != nil {
		fs.Close()
		return err
	}
	in.fs = fs
	in.host = in.newSpace()
	return nil
}

// Close releases what the gathers opened.
func (in *input) Close() error {
	if in.exporter != nil && in.exporter.names != nil {
		in.exporter.names.close()
	}
	if in.fs == nil {
		return nil
	}
	in.host.close()
	in.owners.Close()
	return in.fs.Close()
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
func (in *input) list(ctx context.Context, now time.Time) (changed bool, err error) {
	before := len(in.listeners)
	if err := in.host.list(ctx, in.sight); err != nil {
		return false, err
	}
	for _, l := range in.listeners[before:] {
		if in.started {
			l.since = now.Unix()
		}
	}
	changed = len(in.listeners) > before
	return in.drop((*listener).unseen) || changed, nil
}

// sight notes that a socket is there.
func (in *input) sight(sp *space, s *inet.Socket) {
	l := sp.listeners[s.Cookie]
	if l == nil {
		l = &listener{space: sp, isNew: true}
		l.owner.Inode = s.Inode
		if s.Cgroup != 0 && in.cgroups != nil {
			if path, ok := in.cgroups.Path(s.Cgroup); ok {
				l.owner.Cgroup, l.cgroup = path, cgroup.ParsePath(path)
			}
		}
		sp.listeners[s.Cookie] = l
		in.listeners = append(in.listeners, l)
		in.owners.Add(&l.owner)
	}
	l.sight(s)
}

// drop forgets some listeners.
func (in *input) drop(gone func(*listener) bool) (dropped bool) {
	if !slices.ContainsFunc(in.listeners, gone) {
		return false
	}
	in.listeners = slices.DeleteFunc(in.listeners, func(l *listener) bool {
		if !gone(l) {
			return false
		}
		in.owners.Remove(&l.owner)
		if l.space.listeners[l.socket.Cookie] == l {
			delete(l.space.listeners, l.socket.Cookie)
		}
		return true
	})
	return true
}

// findOwners brings the owners up to date, and stops in time for the rest of the
// gather where ctx has a deadline.
func (in *input) findOwners(ctx context.Context, now time.Time) (owner.Report, error) {
	search := ctx
	if deadline, ok := ctx.Deadline(); ok {
		reserve := min(max(deadline.Sub(now)/8, 20*time.Millisecond), 2*time.Second)
		var cancel context.CancelFunc
		search, cancel = context.WithDeadline(ctx, deadline.Add(-reserve))
		defer cancel()
	}
	report := in.owners.Update(search, now)
	in.warn(report)
	if !report.Walked {
		return report, nil
	}
	// What was found holds for sockets that were there before and after the search:
	// the inode of one that was closed may have become another's meanwhile.
	again := func(sp *space, s *inet.Socket) {
		if l := sp.listeners[s.Cookie]; l != nil {
			l.sight(s)
		}
	}
	if err := in.host.list(ctx, again); err != nil {
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
	capDACReadSearch = 1 << 2
	capSysPtrace     = 1 << 19
)

// warn says once per run what is missing to see the owners of all listeners.
func (in *input) warn(report owner.Report) {
	if in.warned || report.Refused == 0 {
		return
	}
	held, err := in.fs.Capabilities()
	if err != nil || held&capDACReadSearch != 0 && held&capSysPtrace != 0 {
		return
	}
	in.warned = true
	in.env.Log.Warn("owners of other users' listeners stay unknown without the capabilities CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH: "+
		"run as root, or grant both (systemd: AmbientCapabilities=CAP_SYS_PTRACE CAP_DAC_READ_SEARCH; "+
		"elsewhere: setcap cap_sys_ptrace,cap_dac_read_search+ep sockwatch)",
		"unreadable_processes", report.Refused)
}

// describe makes the tags of the listeners of which something has changed.
func (in *input) describe() (changed bool) {
	for _, l := range in.listeners {
		if l.describe(&in.users) {
			changed = true
		}
	}
	return changed
}

// points returns the points of this gather.
func (in *input) points(now time.Time) []metric.Point {
	points := make([]metric.Point, 0, len(in.groups.sorted))
	for _, g := range in.groups.sorted {
		points = append(points, g.point(g.sum(in.fs.StartTime)))
	}
	if in.exporter != nil {
		points = in.exporter.append(points, in.groups.sorted, now)
	}
	return points
}
