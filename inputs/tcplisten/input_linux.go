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
// Between gathers it keeps what it knows about each socket (see listener), so a gather
// costs only what has changed.
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

// Gather lists the listeners, finds their owners and returns their points.
func (in *input) Gather(ctx context.Context) (metric.Batch, error) {
	return in.gather(ctx, time.Now())
}

func (in *input) gather(ctx context.Context, now time.Time) (metric.Batch, error) {
	searchCtx, cancel := searchContext(ctx, now)
	defer cancel()
	return in.gatherWithin(ctx, searchCtx, now)
}

// gatherWithin is gather with a separate context for the search for owners.
func (in *input) gatherWithin(ctx, searchCtx context.Context, now time.Time) (metric.Batch, error) {
	if err := in.openReaders(); err != nil {
		return metric.Batch{}, err
	}
	var partial notes
	if err := in.list(ctx, now, &partial); err != nil {
		return metric.Batch{}, err
	}
	if err := in.findOwners(ctx, searchCtx, now, &partial); err != nil {
		return metric.Batch{}, err
	}
	if in.options.Established {
		in.countEstablished(searchCtx, &partial)
	}
	in.describe(ctx, now)
	in.groups.update(in.open.procfs.StartTime)
	in.saveFirstSeen(now)
	in.listeners.gathered()
	return metric.Batch{Time: now, Points: in.points(ctx, now), Partial: partial.String()}, nil
}

// notes are the reasons why a batch is partial.
type notes []string

func (n *notes) add(format string, args ...any) { *n = append(*n, fmt.Sprintf(format, args...)) }

// String joins the notes. It shows the first five and counts the others.
func (n notes) String() string {
	const limit = 5
	if len(n) > limit {
		return strings.Join(n[:limit], "; ") + fmt.Sprintf("; and %d more", len(n)-limit)
	}
	return strings.Join(n, "; ")
}

// searchContext returns a context for the search for owners. It ends before ctx does, so
// that there is time to finish the gather.
func searchContext(ctx context.Context, now time.Time) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return ctx, func() {}
	}
	reserve := min(max(deadline.Sub(now)/8, 20*time.Millisecond), 2*time.Second)
	return context.WithDeadline(ctx, deadline.Add(-reserve))
}

// Close saves the first-seen times and closes what the gathers opened.
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

// InheritFrom takes over when listeners were first seen and which warnings have been
// logged. A listener that the predecessor did not know has opened since then, unless
// the two look at the host in different ways.
func (in *input) InheritFrom(predecessor plugin.Input) {
	old, ok := predecessor.(*input)
	if !ok || old.firstSeen == nil {
		return
	}
	o, n := old.options, in.options
	in.listeners.inherit(&old.listeners, o.Backend == n.Backend && o.Proc == n.Proc && o.Namespaces == n.Namespaces)
	in.firstSeen = old.firstSeen.Inherit(in.env.StateDir, in.env.Name)
	in.warned = old.warned
	in.warned.firstSeen = false // the new store may have another path
}

// list updates the listeners from the sockets that are open now. It fails only if the
// host's own namespace cannot be listed. If another one cannot, its listeners stay as
// they were.
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

// listAll calls observe for each listening socket of every namespace, and reads the
// addresses of the namespaces that have listeners.
func (in *input) listAll(ctx context.Context, observe func(*table, *inet.Socket), partial *notes) error {
	othersCtx, cancel := othersContext(ctx)
	defer cancel()
	for _, t := range in.listeners.tables {
		tableCtx := othersCtx
		if t.ns.Host() {
			tableCtx = ctx
		}
		source, err := t.list(tableCtx, observe)
		if err != nil && t.ns.Host() {
			return err
		}
		if err != nil {
			in.warnOnce(&in.warned.namespaces, "cannot list a network namespace, keeping its known listeners",
				"netns", t.name, "error", err)
			if !errors.Is(err, netns.ErrNoProcess) { // a permanent condition, so no note in every batch
				partial.add("netns %s: %v", t.name, err)
			}
			continue
		}
		in.warnOfSource(t.ns, source)
		if len(t.byCookie) == 0 {
			continue
		}
		if err := t.readAddresses(tableCtx); err != nil {
			partial.add("exposure%s: %v", t.ofNamespace(), err)
		}
	}
	return nil
}

// othersContext returns a context for all namespaces except the host's. They get at most
// a third of the time that is left: whoever can create namespaces must not be able to
// use up the time for the search for owners.
func othersContext(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, time.Until(deadline)/3)
}

// observe records that a socket is open, and adds a listener if it is new.
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

// observeKnown records that a socket is open, if it belongs to a known listener.
func (in *input) observeKnown(t *table, s *inet.Socket) {
	if l := t.byCookie[s.Cookie]; l != nil && l.is(s) {
		t.mark(l, s)
	}
}

// remove forgets the listeners for which gone returns true.
func (in *input) remove(gone func(*listener) bool) {
	in.listeners.remove(gone, func(l *listener) { in.open.owners.Remove(&l.owner) })
}

// findOwners updates the owners of all listeners. searchCtx ends before ctx does.
func (in *input) findOwners(ctx, searchCtx context.Context, now time.Time, partial *notes) error {
	report := in.open.owners.Update(searchCtx, now)
	if report.Partial != "" {
		partial.add("%s", report.Partial)
	}
	if !report.Walked {
		return nil
	}
	defer in.warnOfOwners(report)
	// The result is valid only for sockets that were open both before and after the
	// search. If one was closed meanwhile, another may have got its inode number.
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

// describe updates the tags of the listeners. If any listener has changed, it also
// arranges the groups again.
func (in *input) describe(ctx context.Context, now time.Time) {
	r := in.open
	if r.users.Update(ctx, in.listeners.uids(), now) {
		in.listeners.usersVersion++
	}
	if err := r.users.Err(); err != nil {
		in.warnOnce(&in.warned.users, "cannot read user names, showing user ids instead of unknown names", "error", err)
	}
	if now.Sub(r.bootRead) >= time.Duration(in.options.OwnerRefresh) {
		// Setting the clock changes the boot time. If it cannot be read, the last known
		// one stays in use.
		_ = r.procfs.ReadBootTime()
		r.bootRead = now
	}
	if in.listeners.describe(r.users) {
		in.groups.arrange(in.listeners.all)
		in.groups.syncFirstSeen(in.firstSeen, in.listeners.ownersPending())
		in.groups.limit(in.options.MaxListeners, r.users.Person, in.exporter != nil)
		if in.exporter != nil {
			in.exporter.setGroups(in.groups.shown)
		}
	} else if in.firstSeen.Missing() {
		in.groups.syncFirstSeen(in.firstSeen, in.listeners.ownersPending())
	}
}

// saveFirstSeen saves for the next run when listeners were first seen.
func (in *input) saveFirstSeen(now time.Time) {
	if err := in.firstSeen.Save(now); err != nil {
		in.warnOnce(&in.warned.firstSeen, "cannot save first-seen times, the next run will not know them", "error", err)
	}
}

// points returns the points of this gather. If nothing has changed, this is the same
// slice as in the last gather.
func (in *input) points(ctx context.Context, now time.Time) []metric.Point {
	if in.exporter != nil && in.exporter.updateNames(ctx, now) {
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
