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
	"sockwatch/inputs/internal/changes"
	"sockwatch/inputs/internal/expect"
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
	rules     *expect.Rules
	env       plugin.Env
	open      *readers // nil before the first gather
	listeners listenerSet
	groups    groupSet
	recorder  *recorder     // nil before the first gather
	writeWait time.Duration // see the constant
	exporter  *exporter     // nil without custom_port_exporter
	warned    warnings
	limits    limitations

	scans        scans
	listenEvents listenEvents
	hasLineage   bool   // the ancestry of the listeners' processes has been read
	lastSource   source // of the last gather
}

func newInput(o Options, env plugin.Env) (plugin.Input, error) {
	rules, err := expect.Compile(o.Options)
	if err != nil {
		return nil, err
	}
	in := &input{options: o, rules: rules, env: env, writeWait: writeWait, scans: scans{mu: make(mutex, 1)}}
	if o.CustomPortExporter {
		in.exporter = newExporter(env.Hostname, o.ResolveAddresses)
	}
	return in, nil
}

// Gather lists the listeners, finds their owners and returns their points.
func (in *input) Gather(ctx context.Context) (metric.Batch, error) {
	return in.gather(ctx, readClocks())
}

func (in *input) gather(ctx context.Context, at changes.Moment) (metric.Batch, error) {
	in.scans.beginGather()
	defer in.scans.mu.Unlock()
	defer in.listenEvents.measure(time.Now())
	searchCtx, cancel := searchContext(ctx, at.Time)
	defer cancel()
	return in.gatherWithin(ctx, searchCtx, at)
}

// gatherWithin is gather with a separate context for the search for owners.
func (in *input) gatherWithin(ctx, searchCtx context.Context, at changes.Moment) (metric.Batch, error) {
	now := at.Time
	in.limits.begin()
	defer in.limits.commit()
	if err := in.openReaders(); err != nil {
		return metric.Batch{}, err
	}
	opened := in.takeListenEvents()
	var partial notes
	if err := in.list(ctx, now, &partial); err != nil {
		in.listenEvents.putBack(opened)
		return metric.Batch{}, err
	}
	in.applyListenEvents(in.await(ctx, opened), at)
	if err := in.findOwners(ctx, searchCtx, now, &partial); err != nil {
		return metric.Batch{}, err
	}
	in.warnOfNamespaces()
	in.warnOfExpiry(now)
	if in.options.Established {
		in.countEstablished(searchCtx, &partial)
	}
	b := in.finish(ctx, at)
	b.Partial = partial.String()
	return b, nil
}

// finish records what was found, and returns it as a batch.
func (in *input) finish(ctx context.Context, at changes.Moment) metric.Batch {
	described := in.describe(ctx, at.Time)
	others := len(in.recorder.points)
	if in.record(ctx, at, described) || described || len(in.recorder.points) != others {
		// The points of rules, totals and the source count, too, up to a half.
		limit := in.options.MaxListeners - min(len(in.recorder.points)+1, in.options.MaxListeners/2)
		in.groups.limit(limit, in.open.users.Person, in.exporter != nil)
		if in.exporter != nil {
			in.exporter.setGroups(in.groups.shown)
		}
	}
	in.groups.update(in.open.procfs.StartTime)
	in.listeners.gathered()
	b := metric.Batch{Time: at.Time, Points: in.points(ctx, at.Time)}
	b.Events, b.EventsStored = in.recorder.events(in.writeWait)
	return b
}

// notes are the reasons why a batch is incomplete.
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

// Close saves the state for the next run, and closes everything that the gathers opened.
func (in *input) Close() error {
	if in.exporter != nil {
		in.exporter.close()
	}
	if in.open == nil {
		return nil
	}
	err := errors.Join(in.recorder.close(), in.open.close())
	in.open = nil
	return err
}

// InheritFrom takes over the recorder, the record of logged warnings, and what the kernel has
// reported since the last gather.
func (in *input) InheritFrom(predecessor plugin.Input) {
	if old, ok := predecessor.(*input); ok {
		in.recorder, in.warned = old.recorder, old.warned
		if in.options.ListenEvents != listenEventsOff {
			in.listenEvents.inherit(&old.listenEvents)
		}
	}
}

// RecallEvents returns the last events of the history that are from before the start and that
// every output had then.
func (in *input) RecallEvents() []metric.Point {
	if in.recorder == nil {
		return nil
	}
	return in.recorder.recall()
}

// ExtraTags returns the labels of the rules.
func (in *input) ExtraTags() []string { return in.rules.Labels() }

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
	in.listeners.begin(in.open.namespaces.All())
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
		t.failed = t.failed || err != nil // in the listing before the search for owners, or in the one after it
		if err != nil && t.ns.Host() {
			return err
		}
		if err != nil {
			in.warn(foreignNamespaces, "cannot list a network namespace, keeping its known listeners",
				"netns", t.name, "error", err)
			if !errors.Is(err, netns.ErrNoProcess) { // a permanent condition, so no note in every batch
				partial.add("netns %s: %v", t.name, err)
			}
			continue
		}
		t.source = source
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
		l = in.newListener(t, s)
		in.listeners.add(l)
		in.open.owners.Add(&l.owner)
	}
	t.mark(l, s)
}

// newListener returns the listener of a socket that is not known.
func (in *input) newListener(t *table, s *inet.Socket) *listener {
	l := &listener{table: t, socket: *s, isNew: true}
	l.owner.Inode = s.Inode
	if s.Cgroup != 0 && in.open.cgroups != nil {
		if path, ok := in.open.cgroups.Path(s.Cgroup); ok {
			l.owner.Cgroup, l.cgroup = path, cgroup.ParsePath(path)
		}
	}
	return l
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
	if err := in.openHolders(searchCtx); err != nil {
		return err
	}
	report := in.open.owners.Update(searchCtx, now)
	if report.Partial != "" {
		partial.add("%s", report.Partial)
	}
	if report.FilesLost != nil {
		in.env.Log.Warn("bpf no longer lists the owners of listeners, searching the open files of all processes instead", "error", report.FilesLost)
		in.open.closeHolders()
	}
	defer in.warnOfOwners(report)
	if !report.Walked {
		return nil
	}
	// The result is valid only for sockets that were open both before and after the
	// search. If one was closed meanwhile, another may have got its inode number.
	if err := in.listAll(ctx, in.observeKnown, new(notes)); err != nil {
		return err
	}
	in.remove(func(l *listener) bool { return l.missing() && !l.isNew })
	for _, l := range in.listeners.all {
		if l.missing() {
			l.closed()
		}
	}
	return nil
}

// describe updates the tags of the listeners. If any listener has changed, it also
// arranges the groups again, and reports that.
func (in *input) describe(ctx context.Context, now time.Time) (changed bool) {
	r := in.open
	if r.users.Update(ctx, in.listeners.uids(), now) {
		in.listeners.usersVersion++
	}
	in.warnOfUsers(r.users.Err())
	if now.Sub(r.bootRead) >= time.Duration(in.options.OwnerRefresh) {
		// Setting the clock changes the boot time. If it cannot be read, the last known
		// one stays in use.
		_ = r.procfs.ReadBootTime()
		r.bootRead = now
	}
	if !in.listeners.describe(r.users) {
		return false
	}
	in.groups.arrange(in.listeners.all)
	return true
}

// record records what has changed since the last gather. It reports whether the records
// of the groups have changed.
func (in *input) record(ctx context.Context, at changes.Moment, described bool) (changed bool) {
	o := &observation{Moment: at, listeners: in.listeners.all, namespaces: in.listeners.namespaces()}
	o.shortLived = in.shortLived()
	in.listenEvents.receiveAll(ctx) // an endpoint has closed when the last of its sockets has
	o.closed = in.listenEvents.closings(at, in.listeners.isOpen)
	in.sumPrograms(ctx, at.Time)
	lineage := in.recorder.mayHaveEvents()
	again := lineage && !in.hasLineage
	in.hasLineage = lineage
	if o.changed = described || again; o.changed || in.open.sums != nil {
		for _, l := range in.listeners.all {
			if again || !l.isObserved() || l.hasNewSum(in.open.sums) {
				l.observe(in.open, lineage)
				o.changed = true
			}
		}
	}
	if !in.recorder.record(o, in.open.users) {
		return false
	}
	in.groups.changed = true
	return in.groups.setRecords(in.recorder.changes)
}

// shortLived returns the listeners that were open only between the last gather and this one.
func (in *input) shortLived() []*listener {
	closed, dropped := in.scans.shortLived.closed()
	if dropped {
		in.warn(briefListeners, "too many listeners open and close between gathers, their events are left out",
			"limit", maxShortLived)
	}
	for _, l := range closed {
		l.describe(in.open.users, in.listeners.usersVersion)
		l.observe(in.open, l.listenEvent != nil)
	}
	return closed
}

// points returns the points of this gather. If nothing has changed, this is the same
// slice as in the last gather.
func (in *input) points(ctx context.Context, now time.Time) []metric.Point {
	if in.exporter != nil && in.exporter.updateNames(ctx, now) {
		in.groups.changed = true
	}
	source := in.source()
	if !in.groups.changed && source == in.lastSource {
		return in.groups.points
	}
	points := append(in.groups.build(), in.recorder.points...)
	points = append(points, source.point())
	in.lastSource = source
	if in.exporter != nil {
		points = append(points, in.exporter.points...)
	}
	in.groups.points, in.groups.changed = slices.Clip(points), false
	return in.groups.points
}
