package tcplisten

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
	"sockwatch/inputs/internal/cgroup"
	"sockwatch/inputs/internal/firstseen"
	"sockwatch/inputs/internal/inet"
	"sockwatch/inputs/internal/netns"
)

// An input gathers the listeners of one host:
//
//	netns lists sockets ──▶ listeners ──▶ owner finds holders ──▶ describe: tags
//	                                                                   │
//	points ◀── values of each group ◀── limit: max_listeners ◀── groups: one identity
//
// What it keeps between two gathers is what it knows of the sockets that are there
// (see listener), so that a gather costs what has changed.
type input struct {
	options   Options
	env       plugin.Env
	open      *readers // nil before the first gather
	listeners listenerSet
	groups    groupSet
	firstSeen *firstseen.Store
	exporter  *exporter // nil without custom_port_exporter
	warned    warnings
}

func newInput(o Options, env plugin.Env) (plugin.Input, error) {
	in := &input{options: o, env: env}
	if o.CustomPortExporter {
		in.exporter = newExporter(env.Hostname, o.ResolveAddresses)
	}
	return in, nil
}

// Gather lists the listeners, finds their owners and makes them points.
func (in *input) Gather(ctx context.Context) (metric.Batch, error) {
	return in.gather(ctx, time.Now())
}

func (in *input) gather(ctx context.Context, now time.Time) (metric.Batch, error) {
	search, cancel := searchContext(ctx, now)
	defer cancel()
	return in.gatherWithin(ctx, search, now)
}

// gatherWithin is a gather whose search for owners ends with a context of its own.
func (in *input) gatherWithin(ctx, search context.Context, now time.Time) (metric.Batch, error) {
	if err := in.openReaders(); err != nil {
		return metric.Batch{}, err
	}
	var partial notes
	if err := in.list(ctx, now, &partial); err != nil {
		return metric.Batch{}, err
	}
	if err := in.findOwners(ctx, search, now, &partial); err != nil {
		return metric.Batch{}, err
	}
	if in.options.Established {
		in.countEstablished(search, &partial)
	}
	in.describe(ctx, now)
	in.groups.update(in.open.procfs.StartTime)
	in.saveFirstSeen(now)
	in.listeners.gathered()
	return metric.Batch{Time: now, Points: in.points(ctx, now), Partial: partial.String()}, nil
}

// notes say why a batch is partial.
type notes []string

func (n *notes) add(format string, args ...any) { *n = append(*n, fmt.Sprintf(format, args...)) }

// String joins the notes; of very many the first ones stand for all.
func (n notes) String() string {
	const most = 5
	if len(n) > most {
		return strings.Join(n[:most], "; ") + fmt.Sprintf("; and %d more", len(n)-most)
	}
	return strings.Join(n, "; ")
}

// searchContext returns a context that leaves a gather the time to end what it has
// begun.
func searchContext(ctx context.Context, now time.Time) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return ctx, func() {}
	}
	reserve := min(max(deadline.Sub(now)/8, 20*time.Millisecond), 2*time.Second)
	return context.WithDeadline(ctx, deadline.Add(-reserve))
}

// Close releases what the gathers opened, and saves the first-seen times.
func (in *input) Close() error {
	if in.exporter != nil {
		in.exporter.close()
	}
	if in.open == nil {
		return nil
	}
	err := errors.Join(in.firstSeen.Close(), in.open.close())
	in.open = nil
	return err
}

// InheritFrom takes over when listeners were first seen, and which warnings have
// been logged. Listeners that the predecessor had not seen have come since, unless
// it looked elsewhere.
func (in *input) InheritFrom(predecessor plugin.Input) {
	old, ok := predecessor.(*input)
	if !ok || old.firstSeen == nil {
		return
	}
	o, n := old.options, in.options
	in.listeners.inherit(&old.listeners, o.Backend == n.Backend && o.Proc == n.Proc && o.Namespaces == n.Namespaces)
	in.firstSeen = old.firstSeen.Inherit(in.env.StateDir, in.env.Name)
	in.warned = old.warned
	in.warned.firstSeen = false // they may be written elsewhere
}

// list brings the listeners in line with the sockets that there are. Only the
// host's own namespace must be listed: another one that cannot be keeps the
// listeners that it had.
func (in *input) list(ctx context.Context, now time.Time, partial *notes) error {
	if in.open.cgroups != nil {
		in.open.cgroups.Begin()
	}
	note, err := in.open.namespaces.Find(ctx, now)
	if err != nil {
		return err
	}
	if note != "" {
		partial.add("%s", note)
	}
	in.listeners.begin(in.open.namespaces.All(), now)
	err = in.listAll(ctx, in.observe, partial)
	in.remove((*listener).missing)
	return err
}

// listAll calls observe for the listening sockets of every namespace, and reads the
// addresses of those that have some.
func (in *input) listAll(ctx context.Context, observe func(*table, *inet.Socket), partial *notes) error {
	host := ctx
	others, cancel := othersContext(ctx)
	defer cancel()
	for _, t := range in.listeners.tables {
		ctx := others
		if t.ns.Host() {
			ctx = host
		}
		source, err := t.list(ctx, observe)
		if err != nil && t.ns.Host() {
			return err
		}
		if err != nil {
			in.warnOnce(&in.warned.namespaces, "network namespace cannot be listed, keeping what was known of it",
				"netns", t.name, "error", err)
			if !errors.Is(err, netns.ErrNoProcess) { // that is so for as long as the program runs
				partial.add("netns %s: %v", t.name, err)
			}
			continue
		}
		in.warnOfSource(t.ns, source)
		if len(t.byCookie) == 0 {
			continue
		}
		if err := t.readAddresses(ctx); err != nil {
			partial.add("exposure%s: %v", t.ofNamespace(), err)
		}
	}
	return nil
}

// othersContext returns a context that leaves all namespaces but the host's a third of
// the time: who can make namespaces must not take that of the search for owners.
func othersContext(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, time.Until(deadline)/3)
}

// observe takes note of a socket that is there.
func (in *input) observe(t *table, s *inet.Socket) {
	l := t.byCookie[s.Cookie]
	if l == nil || !l.is(s) {
		l = in.listeners.add(t, s)
		if s.Cgroup != 0 && in.open.cgroups != nil {
			if path, ok := in.open.cgroups.Path(s.Cgroup); ok {
				l.owner.Cgroup, l.cgroup = path, cgroup.ParsePath(path)
			}
		}
		in.open.owners.Add(&l.owner)
	}
	t.mark(l, s)
}

// observeKnown takes note of a socket only if it is known.
func (in *input) observeKnown(t *table, s *inet.Socket) {
	if l := t.byCookie[s.Cookie]; l != nil && l.is(s) {
		t.mark(l, s)
	}
}

// remove forgets some listeners.
func (in *input) remove(gone func(*listener) bool) {
	in.listeners.remove(gone, func(l *listener) { in.open.owners.Remove(&l.owner) })
}

// findOwners brings the owners up to date; search ends before ctx does.
func (in *input) findOwners(ctx, search context.Context, now time.Time, partial *notes) error {
	report := in.open.owners.Update(search, now)
	if report.Partial != "" {
		partial.add("%s", report.Partial)
	}
	if !report.Walked {
		return nil
	}
	defer in.warnOfOwners(report)
	// What was found holds for sockets that were there before and after the search:
	// the inode of one that was closed may have become another's meanwhile.
	if err := in.listAll(ctx, in.observeKnown, new(notes)); err != nil {
		return err
	}
	in.remove(func(l *listener) bool { return l.missing() && !l.isNew })
	for _, l := range in.listeners.all {
		if l.missing() {
			l.owner.Closed()
		}
	}
	return nil
}

// describe makes the tags of the listeners of which something has changed, and puts
// them into groups again.
func (in *input) describe(ctx context.Context, now time.Time) {
	r := in.open
	if r.users.Update(ctx, in.listeners.uids(), now) {
		in.listeners.usersVersion++
	}
	if err := r.users.Err(); err != nil {
		in.warnOnce(&in.warned.users, "users cannot be read, showing numbers for names that are not known", "error", err)
	}
	if now.Sub(r.bootRead) >= time.Duration(in.options.OwnerRefresh) {
		// Setting the clock moves the time at which the host booted. If it cannot be
		// read, what was read before serves.
		_ = r.procfs.ReadBootTime()
		r.bootRead = now
	}
	if in.listeners.describe(r.users) {
		in.groups.arrange(in.listeners.all)
		in.groups.syncFirstSeen(in.firstSeen, in.listeners.ownersPending())
		in.groups.limit(in.options.MaxListeners, r.users.Person, in.exporter != nil)
		if in.exporter != nil {
			in.exporter.show(in.groups.shown)
		}
	} else if in.firstSeen.Missing() {
		in.groups.syncFirstSeen(in.firstSeen, in.listeners.ownersPending())
	}
}

// saveFirstSeen keeps when listeners were first seen for the next run.
func (in *input) saveFirstSeen(now time.Time) {
	if err := in.firstSeen.Save(now); err != nil {
		in.warnOnce(&in.warned.firstSeen, "first-seen times are not saved, the next run will not know them", "error", err)
	}
}

// points returns the points of this gather: the very slice of the last one if
// nothing has changed.
func (in *input) points(ctx context.Context, now time.Time) []metric.Point {
	if in.exporter != nil && in.exporter.rename(ctx, now) {
		in.groups.changed = true
	}
	if !in.groups.changed {
		return in.groups.points
	}
	points := in.groups.build()
	if in.exporter != nil {
		points = append(points, in.exporter.points...)
	}
	in.groups.points, in.groups.changed = slices.Clip(points), false
	return in.groups.points
}
