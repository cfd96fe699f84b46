package tcplisten

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"sockwatch/inputs/internal/bpf"
	"sockwatch/inputs/internal/changes"
	"sockwatch/inputs/internal/escape"
	"sockwatch/inputs/internal/host"
	"sockwatch/inputs/internal/inet"
	"sockwatch/inputs/internal/owner"
	"sockwatch/inputs/internal/procfs"
)

// announcements are what the kernel has told since the last gather: which sockets began to
// listen and which ceased to, in all network namespaces. A gather finds out everything else:
// an announcement alone makes no listener.
type announcements struct {
	on    atomic.Bool // the kernel tells
	since time.Time   // when it began to; set before on
	lost  atomic.Uint64
	took  atomic.Int64 // how long the last gather took, in nanoseconds
	// warned is the number of lost changes of which a gather has warned.
	warned uint64

	mu      sync.Mutex
	opened  []*announcement
	closed  map[uint64]time.Duration // by cookie: when, on CLOCK_BOOTTIME
	dropped bool                     // there were more than maxAnnounced
}

// An announcement is a socket that began to listen.
type announcement struct {
	bpf.Change
	process *owner.Inspection // that called listen; nil if it had ended before it could be read
}

// maxAnnounced is the maximum number of sockets that open, and of those that close, between
// two gathers and are reported with their times.
const maxAnnounced = maxGlimpsed

const (
	// announcedPause is the shortest time between two gathers that announcements start.
	announcedPause = 100 * time.Millisecond
	// announcedShare limits these gathers to one part in that many of the time.
	announcedShare = 10
	// inspections is how many processes are read between two gathers.
	inspections = 200
)

// receive keeps what the kernel tells and asks for gathers, until changes is closed.
func (in *input) receive(ctx context.Context, events *bpf.Changes, changed func()) {
	fs, err := procfs.Open(host.Find(in.options.procPath(os.Getenv)))
	if err != nil {
		in.env.Log.Warn("cannot read the processes that listen", "error", err)
		return
	}
	defer fs.Close()
	pace := pacer{changed: changed, pause: in.announced.pause}
	defer pace.stop()
	for {
		c, err := events.Next()
		switch {
		case errors.Is(err, os.ErrClosed) || ctx.Err() != nil:
			return
		case err != nil:
			in.env.Log.Warn("the kernel no longer tells which sockets listen", "error", err)
			return
		}
		in.announced.add(&c, fs)
		if lost, err := events.Lost(); err == nil {
			in.announced.lost.Store(lost)
		}
		pace.ask()
	}
}

// pause returns how long to wait after a gather that an announcement has started before
// another one is started.
func (a *announcements) pause() time.Duration {
	return max(announcedPause, announcedShare*time.Duration(a.took.Load()))
}

// add keeps a change. It reads the process at once, since it may end soon.
func (a *announcements) add(c *bpf.Change, fs *procfs.FS) {
	if !c.Listens {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.closed == nil {
			a.closed = make(map[uint64]time.Duration)
		}
		if a.dropped = a.dropped || len(a.closed) >= maxAnnounced; len(a.closed) < maxAnnounced {
			a.closed[c.Cookie] = c.Time
		}
		return
	}
	o := &announcement{Change: *c}
	a.mu.Lock()
	n := len(a.opened)
	if n > 0 && n < maxAnnounced && a.opened[n-1].sameProcess(c) {
		o.process = a.opened[n-1].process
	}
	a.mu.Unlock()
	if o.process == nil && n < inspections && c.PID != 0 {
		// After an error it has exited, or may not be read.
		o.process, _ = owner.Inspect(fs, c.PID, procfs.Ticks(c.Start))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.dropped = a.dropped || len(a.opened) >= maxAnnounced; len(a.opened) < maxAnnounced {
		a.opened = append(a.opened, o)
	}
}

// sameProcess reports whether another change was caused by the same process, which has not
// become another program since.
func (o *announcement) sameProcess(c *bpf.Change) bool {
	return o.PID == c.PID && o.Start == c.Start && o.process != nil && o.process.Comm == escape.Name(c.Comm)
}

// measure records how long a gather took that began at some time.
func (a *announcements) measure(began time.Time) { a.took.Store(int64(time.Since(began))) }

// watchKernel starts to receive what the kernel tells, if that is possible. It returns a
// function that ends it.
func (in *input) watchKernel(ctx context.Context, changed func()) (stop func()) {
	if in.options.ListenEvents == listenEventsOff {
		return func() {}
	}
	events, err := openChanges(in.options.procPath(os.Getenv))
	if err != nil {
		in.noteOnce(kernelEvents, "the kernel does not tell when listeners open and close, gathers find out", "reason", err)
		return func() {}
	}
	in.announced.since = time.Now()
	in.announced.on.Store(true)
	var receiving sync.WaitGroup
	receiving.Go(func() { in.receive(ctx, events, changed) })
	return func() {
		in.announced.on.Store(false)
		if err := events.Close(); err != nil {
			in.env.Log.Warn("cannot detach from the kernel", "error", err)
		}
		receiving.Wait()
	}
}

// takeAnnouncements begins a gather: it returns what was told before it, and warns of what was
// not.
func (in *input) takeAnnouncements() []*announcement {
	opened, dropped := in.announced.take()
	if lost := in.announced.lost.Load(); dropped || lost > in.announced.warned {
		in.announced.warned = lost
		in.warn(lostAnnouncements, "listeners open and close faster than they are recorded, some events have no exact time or are left out")
	}
	return opened
}

// take returns the sockets that began to listen before now.
func (a *announcements) take() (opened []*announcement, dropped bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	opened, dropped = a.opened, a.dropped
	a.opened, a.dropped = nil, false
	return opened, dropped
}

// closings returns when sockets closed, by cookie, and forgets them. Those that are still
// open as far as the gather knows stay for the next one.
func (a *announcements) closings(at changes.Moment, open func(cookie uint64) bool) map[uint64]time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.closed) == 0 {
		return nil
	}
	closed := make(map[uint64]time.Time, len(a.closed))
	for cookie, t := range a.closed {
		if !open(cookie) {
			closed[cookie] = wallClock(at, t)
			delete(a.closed, cookie)
		}
	}
	return closed
}

// wallClock returns the wall clock time of a time on CLOCK_BOOTTIME.
func wallClock(at changes.Moment, uptime time.Duration) time.Time {
	return at.Time.Add(uptime - at.Uptime).Round(0)
}

// applyAnnouncements gives new listeners what the kernel has told about them. opened was taken
// before the sockets were listed, so one that was not found has closed again.
func (in *input) applyAnnouncements(opened []*announcement, at changes.Moment) {
	if len(opened) == 0 {
		return
	}
	tables := make(map[uint64]*table, len(in.listeners.tables))
	for _, t := range in.listeners.tables {
		tables[t.ns.Inode()] = t
	}
	for _, o := range opened {
		t := tables[uint64(o.Netns)]
		if t == nil || t.failed {
			continue // not listed, by the options or for now
		}
		s := o.socket()
		if l := t.byCookie[o.Cookie]; l != nil {
			if l.isNew && l.socket.Inode == o.Inode && !l.announced() {
				l.opened, l.listenPID, l.owner.Candidate = wallClock(at, o.Time), o.PID, o.PID
			}
			continue
		}
		if o.Port == 0 || !in.scans.glimpsed.isNew(t, &s) {
			continue // the kernel chose the port, and it is not known any more
		}
		l := in.newListener(t, &s)
		l.opened, l.listenPID = wallClock(at, o.Time), o.PID
		l.glimpsed = l.opened
		o.hold(l)
		in.scans.glimpsed.listeners = append(in.scans.glimpsed.listeners, l)
	}
}

// hold makes the process that called listen the owner of a listener that has closed again.
func (o *announcement) hold(l *listener) {
	switch {
	case o.process != nil:
		l.owner.Held(o.process.Process, &o.process.Lineage)
	case o.PID != 0:
		l.owner.Held(owner.Process{PID: o.PID, Start: procfs.Ticks(o.Start), Comm: escape.Name(o.Comm)}, &owner.Lineage{})
	}
}

// socket returns the socket as a listing would have shown it.
func (o *announcement) socket() inet.Socket {
	return inet.Socket{
		Addr: o.Addr, Port: o.Port, Device: o.Device, V6Only: o.V6Only,
		Cookie: o.Cookie, Inode: o.Inode, UID: o.UID, Cgroup: o.Cgroup, Limit: o.Limit, HasLimit: true,
	}
}

// announced reports whether the kernel told when it began to listen.
func (l *listener) announced() bool { return !l.opened.IsZero() }

// A pacer asks for gathers: the first at once, the next ones no sooner than a pause later.
type pacer struct {
	changed func()
	pause   func() time.Duration

	mu      sync.Mutex
	last    time.Time
	waiting *time.Timer
}

func (p *pacer) ask() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting != nil {
		return
	}
	wait := p.pause() - time.Since(p.last)
	if wait <= 0 {
		p.last = time.Now()
		p.changed()
		return
	}
	p.waiting = time.AfterFunc(wait, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.waiting, p.last = nil, time.Now()
		p.changed()
	})
}

// stop drops a gather that waits for its pause.
func (p *pacer) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting != nil {
		p.waiting.Stop()
	}
}
