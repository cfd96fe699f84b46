package tcplisten

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sockwatch/inputs/internal/bpf"
	"sockwatch/inputs/internal/changes"
	"sockwatch/inputs/internal/escape"
	"sockwatch/inputs/internal/host"
	"sockwatch/inputs/internal/inet"
	"sockwatch/inputs/internal/netns"
	"sockwatch/inputs/internal/owner"
	"sockwatch/inputs/internal/procfs"
)

// listenEvents are what the kernel has reported since the last gather: which sockets began to
// listen and which ceased to, in all network namespaces. A gather finds out everything else:
// a listen event alone makes no listener.
type listenEvents struct {
	on       atomic.Bool            // the kernel reports listen events
	since    time.Time              // when it began to; set before on
	pace     *pacer                 // asks for gathers; set before on
	sent     func() (uint64, error) // how many changes the kernel has reported, received or not; set before on
	received atomic.Uint64
	lost     atomic.Uint64
	took     atomic.Int64 // how long the last gather took, in nanoseconds
	// warned is the number of lost changes of which a gather has warned.
	warned uint64
	reads  atomic.Int32 // processes that were read since the last gather

	mu      sync.Mutex
	opened  []*listenEvent
	closed  map[uint64]bpf.Change // by cookie
	dropped bool                  // there were more than maxListenEvents
}

// A listenEvent is a socket that began to listen.
type listenEvent struct {
	bpf.Change
	inspected chan struct{}     // closed when process is set
	process   *owner.Inspection // that called listen; nil if it had ended before it could be read
	kept      bool              // a gather has not found the socket, and the next one looks again
}

// maxListenEvents is the maximum number of sockets that open, and of those that close, between
// two gathers and are reported with their times.
const maxListenEvents = maxShortLived

const (
	// listenEventPause is the shortest time between two gathers that listen events start.
	listenEventPause = 100 * time.Millisecond
	// listenEventShare limits these gathers to one part in that many of the time.
	listenEventShare = 10
	// maxInspections is how many processes are read between two gathers.
	maxInspections = 200
)

// receive keeps what the kernel reports and asks for gathers, until events is closed. only is as in
// mayBeListed.
func (in *input) receive(ctx context.Context, events *bpf.Changes, only uint64) {
	defer in.listenEvents.on.Store(false)
	fs, err := procfs.Open(host.Find(in.options.procPath(os.Getenv)))
	if err != nil {
		in.env.Log.Warn("cannot read the processes that listen", "error", err)
		return
	}
	defer fs.Close()
	queue := make(chan *listenEvent, maxListenEvents)
	var inspecting sync.WaitGroup
	defer inspecting.Wait()
	defer close(queue)
	inspecting.Go(func() { in.listenEvents.inspect(ctx, fs, queue) })
	defer in.listenEvents.pace.stop()
	in.listenEvents.pace.ask() // for what has opened between the last gather and now
	for {
		c, err := events.Next()
		switch {
		case errors.Is(err, os.ErrClosed) || ctx.Err() != nil:
			return
		case err != nil:
			in.env.Log.Warn("listen events stopped, gathers still find what opens and closes", "error", err)
			return
		}
		if !mayBeListed(&c, only) {
			in.listenEvents.received.Add(1)
			continue
		}
		o := in.listenEvents.add(&c)
		in.listenEvents.received.Add(1)
		if o != nil {
			select {
			case queue <- o:
			default:
				close(o.inspected) // only its name is known
			}
		}
		if lost, err := events.Lost(); err == nil {
			in.listenEvents.lost.Store(lost)
		}
		in.listenEvents.pace.ask()
	}
}

// mayBeListed reports whether a gather may list the socket. only is the only network namespace
// that is listed; or 0: those of all visible processes are.
func mayBeListed(c *bpf.Change, only uint64) bool {
	if only != 0 {
		return uint64(c.Netns) == only
	}
	return c.PID != 0 || !c.Listens
}

// onlyNamespace returns the inode number of the host's network namespace, or 0 if the others
// are listed, too. It is called after the first gather.
func (in *input) onlyNamespace() uint64 {
	if in.options.Namespaces {
		return 0
	}
	in.scans.mu.Lock()
	defer in.scans.mu.Unlock()
	for _, t := range in.listeners.tables {
		if t.ns.Host() {
			return t.ns.Inode()
		}
	}
	return 0
}

// pause returns how long to wait after a gather that a listen event has started before
// another one is started.
func (a *listenEvents) pause() time.Duration {
	return max(listenEventPause, listenEventShare*time.Duration(a.took.Load()))
}

// add keeps a change. It returns the listen event of a socket that began to listen.
func (a *listenEvents) add(c *bpf.Change) *listenEvent {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c.Listens {
		delete(a.closed, c.Cookie) // it listens again
	} else if i := a.failed(c); i >= 0 {
		a.opened = slices.Delete(a.opened, i, i+1)
		return nil
	}
	if len(a.opened) >= maxListenEvents || len(a.closed) >= maxListenEvents {
		a.dropped = true
		return nil
	}
	if c.Listens {
		o := &listenEvent{Change: *c, inspected: make(chan struct{})}
		a.opened = append(a.opened, o)
		return o
	}
	if a.closed == nil {
		a.closed = make(map[uint64]bpf.Change)
	}
	a.closed[c.Cookie] = *c
	return nil
}

// failed returns the index of the listen event that an end belongs to if listen has failed, or
// -1.
func (a *listenEvents) failed(end *bpf.Change) int {
	for i := len(a.opened) - 1; i >= 0 && !end.Shut && end.Time-a.opened[i].Time < failedListen; i-- {
		if a.opened[i].hasFailed(end) {
			return i
		}
	}
	return -1
}

// failedListen is longer than it takes the kernel to see that it cannot listen: another socket
// has the address, or no port is free.
const failedListen = 50 * time.Microsecond

// hasFailed reports whether listen has failed with that end.
func (o *listenEvent) hasFailed(end *bpf.Change) bool {
	return !end.Shut && end.Cookie == o.Cookie && end.PID == o.PID && end.Time-o.Time < failedListen
}

// inspect reads the processes of listen events, soon, since they may end. When ctx is done it
// reads no more.
func (a *listenEvents) inspect(ctx context.Context, fs *procfs.FS, queue <-chan *listenEvent) {
	type process struct {
		pid   int
		start uint64
		comm  string
	}
	var read map[process]*owner.Inspection
	var since time.Time
	for o := range queue {
		if time.Since(since) > inspectionAge {
			read, since = make(map[process]*owner.Inspection), time.Now()
		}
		p := process{o.PID, o.Start, string(o.Comm)}
		known, ok := read[p]
		if !ok && o.PID != 0 && a.reads.Load() < maxInspections && ctx.Err() == nil {
			a.reads.Add(1)
			// After an error it has exited, or may not be read.
			known, _ = owner.Inspect(fs, o.PID, procfs.Ticks(o.Start))
			read[p] = known
		}
		o.process = known
		close(o.inspected)
	}
}

// inspectionAge is how long a process that opens many sockets is not read again.
const inspectionAge = 100 * time.Millisecond

// inspection returns the process, or nil if it has not been read yet.
func (o *listenEvent) inspection() *owner.Inspection {
	select {
	case <-o.inspected:
		return o.process
	default:
		return nil
	}
}

// measure records how long a gather took that began at some time. The first one, which opens
// everything and finds all owners, says nothing about the next.
func (a *listenEvents) measure(began time.Time) {
	if a.on.Load() {
		a.took.Store(int64(time.Since(began)))
	}
}

// watchKernel starts to receive what the kernel reports, if that is possible. It returns a
// function that ends it.
func (in *input) watchKernel(ctx context.Context, changed func()) (stop func()) {
	if in.options.ListenEvents == listenEventsOff {
		return func() {}
	}
	events, err := openChanges(in.options.procPath(os.Getenv))
	if err != nil {
		in.noteWithoutBPF(err)
		return func() {}
	}
	only := in.onlyNamespace() // before any gather waits for what is received
	in.listenEvents.since = time.Now()
	in.listenEvents.sent = events.Sent
	in.listenEvents.pace = &pacer{changed: changed, pause: in.listenEvents.pause}
	in.listenEvents.on.Store(true)
	var receiving sync.WaitGroup
	receiving.Go(func() { in.receive(ctx, events, only) })
	return func() {
		in.listenEvents.on.Store(false)
		if err := events.Close(); err != nil {
			in.env.Log.Warn("cannot detach the bpf programs", "error", err)
		}
		receiving.Wait()
	}
}

// listenEventWait is how long a gather waits for the listen events of listeners that it has
// found, and for their processes.
const listenEventWait = time.Second

// await also returns the listen events of new listeners that were kept after the gather began.
// Others stay for the next gather, which knows whether their sockets are still open.
func (in *input) await(ctx context.Context, opened []*listenEvent) []*listenEvent {
	if !in.listenEvents.on.Load() {
		return opened
	}
	ctx, cancel := context.WithTimeout(ctx, listenEventWait)
	defer cancel()
	missing := make(map[uint64]bool)
	for _, l := range in.listeners.all {
		if l.isNew && l.listenEvent == nil {
			missing[l.socket.Cookie] = true
		}
	}
	for _, l := range in.scans.shortLived.listeners {
		missing[l.socket.Cookie] = true
	}
	for _, o := range opened {
		delete(missing, o.Cookie)
	}
	if len(opened)+len(missing) > 0 {
		in.listenEvents.receiveAll(ctx) // also the ends of those that have closed
		opened = append(opened, in.listenEvents.takeOf(missing)...)
	}
	for _, o := range opened {
		select {
		case <-o.inspected:
		case <-ctx.Done():
			return opened
		}
	}
	return opened
}

// receiveAll waits until everything is received that the kernel has reported by now.
func (a *listenEvents) receiveAll(ctx context.Context) {
	if !a.on.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, listenEventWait)
	defer cancel()
	sent, err := a.sent()
	for err == nil && a.received.Load() < sent && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-time.After(time.Millisecond):
		}
	}
}

// takeOf returns the listen events of some sockets, and removes these from the set.
func (a *listenEvents) takeOf(cookies map[uint64]bool) (taken []*listenEvent) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.opened = slices.DeleteFunc(a.opened, func(o *listenEvent) bool {
		if !cookies[o.Cookie] {
			return false
		}
		delete(cookies, o.Cookie)
		taken = append(taken, o)
		return true
	})
	return taken
}

// takeListenEvents begins a gather: it returns what was reported before it, and warns of what was
// not.
func (in *input) takeListenEvents() []*listenEvent {
	opened, dropped := in.listenEvents.take()
	if lost := in.listenEvents.lost.Load(); dropped || lost > in.listenEvents.warned {
		in.listenEvents.warned = lost
		in.warn(lostListenEvents, "listeners open and close faster than they can be recorded, some events have no exact time or are missing")
	}
	return opened
}

// take returns the sockets that began to listen before now.
func (a *listenEvents) take() (opened []*listenEvent, dropped bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	opened, dropped = a.opened, a.dropped
	a.opened, a.dropped = nil, false
	a.reads.Store(0)
	return opened, dropped
}

// putBack puts what take has returned before what has been received since: the gather has
// failed, and the next one takes both. If that is too much, the newest is dropped.
func (a *listenEvents) putBack(opened []*listenEvent) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.opened = slices.Concat(opened, a.opened)
	if len(a.opened) > maxListenEvents {
		a.opened, a.dropped = a.opened[:maxListenEvents:maxListenEvents], true
	}
}

// inherit takes over what nobody has gathered yet.
func (a *listenEvents) inherit(old *listenEvents) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.opened, a.dropped = old.take()
	a.closed = old.closed
}

// keep keeps a listen event for the next gather, once, because a gather has not found its
// socket: the kernel may still be about to list it, or its end has not been received yet. If
// the end has been, keep returns it instead.
func (a *listenEvents) keep(o *listenEvent) (kept, ended bool, end bpf.Change) {
	a.mu.Lock()
	defer a.mu.Unlock()
	end, ended = a.closed[o.Cookie]
	if ended || o.kept {
		return false, ended, end
	}
	o.kept = true
	a.opened = append(a.opened, o)
	return true, false, end
}

// closings returns when sockets closed, by cookie, and forgets them. Those that are still
// open as far as the gather knows, or have opened since it began, stay for the next one.
func (a *listenEvents) closings(at changes.Moment, open func(cookie uint64) bool) map[uint64]time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.closed) == 0 {
		return nil
	}
	opened := make(map[uint64]bool, len(a.opened))
	for _, o := range a.opened {
		opened[o.Cookie] = true
	}
	closed := make(map[uint64]time.Time, len(a.closed))
	for cookie, end := range a.closed {
		if !open(cookie) && !opened[cookie] {
			closed[cookie] = wallClock(at, end.Time)
			delete(a.closed, cookie)
		}
	}
	return closed
}

// wallClock returns the wall clock time of a time on CLOCK_BOOTTIME.
func wallClock(at changes.Moment, uptime time.Duration) time.Time {
	return at.Time.Add(uptime - at.Uptime).Round(0)
}

// applyListenEvents gives new listeners what the kernel has reported about them. opened was taken
// before the sockets were listed, so one that was not found has closed again. Its namespace may
// have begun and ended with it.
func (in *input) applyListenEvents(opened []*listenEvent, at changes.Moment) {
	if len(opened) == 0 {
		return
	}
	tables := in.listeners.byNamespace()
	again := false
	for _, o := range opened {
		t := tables[uint64(o.Netns)]
		if t != nil && !t.failed {
			if l := t.byCookie[o.Cookie]; l != nil {
				if l.isNew && l.listenEvent == nil {
					l.setListenEvent(o, at)
					l.owner.Candidate = o.PID
				}
				continue
			}
		}
		kept, ended, end := in.listenEvents.keep(o)
		again = again || kept
		if t == nil && ended && in.options.Namespaces {
			t = newTable(netns.Ended(uint64(o.Netns)))
			tables[uint64(o.Netns)] = t
		}
		switch {
		case kept || t == nil || t.failed || o.hasFailed(&end):
			continue
		case t.ns.Gone() && !ended:
			continue // its namespace still exists, but was not found
		}
		s := o.socket()
		if s.Port == 0 {
			s.Port = end.Port
		}
		if s.Port == 0 {
			continue // the kernel chose the port, and it is no longer known
		}
		if l, _ := in.scans.shortLived.add(t, &s, in.newListener); l != nil && l.listenEvent == nil {
			l.setListenEvent(o, at)
			l.seen = l.opened
		}
	}
	if again && in.listenEvents.on.Load() {
		in.listenEvents.pace.ask()
	}
}

// setListenEvent records that the kernel has reported who opened the listener, and when.
func (l *listener) setListenEvent(o *listenEvent, at changes.Moment) {
	l.listenEvent, l.opened = o, wallClock(at, o.Time)
}

// closed records that the listener has closed before its owner was found. If the kernel reported who
// called listen, that is the owner.
func (l *listener) closed() {
	l.owner.Closed()
	switch o := l.listenEvent; {
	case o == nil:
	case o.inspection() != nil:
		p := o.process.Process
		if name := escape.Name(o.Comm); p.Comm != name { // it has become another program since
			p.Comm, p.Exe, p.ExeDeleted = name, "", false
		}
		l.owner.Held(p, &o.process.Lineage)
	case o.PID != 0:
		l.owner.Held(owner.Process{PID: o.PID, Start: procfs.Ticks(o.Start), Comm: escape.Name(o.Comm)}, &owner.Lineage{})
	}
}

// socket returns the socket as a listing would have shown it.
func (o *listenEvent) socket() inet.Socket {
	return inet.Socket{
		Addr: o.Addr, Port: o.Port, Device: o.Device, V6Only: o.V6Only,
		Cookie: o.Cookie, Inode: o.Inode, UID: o.UID, Cgroup: o.Cgroup, Limit: o.Limit, HasLimit: true,
	}
}
