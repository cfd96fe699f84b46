package tcplisten

import (
	"context"
	"net/netip"
	"sync/atomic"
	"time"

	"sockwatch/inputs/internal/changes"
	"sockwatch/inputs/internal/inet"
	"sockwatch/inputs/internal/netns"
)

// Watch receives what the kernel reports about listeners, and scans the list of sockets every
// scan_interval. It requests a gather if either differs from the last gather.
func (in *input) Watch(ctx context.Context, changed func()) {
	defer in.watchKernel(ctx, changed)()
	interval := time.Duration(in.options.ScanInterval)
	if interval <= 0 {
		<-ctx.Done()
		return
	}
	ticks := time.NewTicker(interval)
	defer ticks.Stop()
	for {
		select {
		case <-ticks.C:
			if in.scan(ctx, readClocks()) {
				changed()
			}
		case <-ctx.Done():
			return
		}
	}
}

// scans is the state that scans and gathers share.
type scans struct {
	mu         mutex // held by a gather, by a scan between gathers, and briefly by Details
	shortLived shortLivedSet
	interrupt  atomic.Pointer[context.CancelFunc] // cancels the scan that is under way; nil if none is
}

// A mutex can be waited for until a context is done. It is a channel with a capacity of one.
type mutex chan struct{}

func (m mutex) Lock()   { m <- struct{}{} }
func (m mutex) Unlock() { <-m }

// LockWithin locks m, or returns the error of ctx.
func (m mutex) LockWithin(ctx context.Context) error {
	select {
	case m <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// beginGather locks mu. It interrupts a scan instead of waiting for it, since the gather sees
// whatever the scan would.
func (s *scans) beginGather() {
	if interrupt := s.interrupt.Load(); interrupt != nil {
		(*interrupt)()
	}
	s.mu.Lock()
}

// scanTimeout is the longest time that a scan may take.
const scanTimeout = time.Second

// scan lists the sockets and reports whether they differ from those of the last gather. It
// keeps new ones for the next gather, by which time they may have closed. A namespace that
// cannot be listed counts as unchanged. While a gather is in flight, scan does nothing.
func (in *input) scan(ctx context.Context, at changes.Moment) (differs bool) {
	soon, cancel := context.WithTimeout(ctx, 10*time.Millisecond) // longer than Details holds the lock
	defer cancel()
	if in.scans.mu.LockWithin(soon) != nil {
		return false
	}
	defer in.scans.mu.Unlock()
	if in.open == nil {
		return false
	}
	ctx, cancel = context.WithTimeout(ctx, scanTimeout)
	defer cancel()
	in.scans.interrupt.Store(&cancel)
	defer in.scans.interrupt.Store(nil)
	complete := true
	if in.open.cgroups != nil {
		in.open.cgroups.Begin()
	}
	for _, t := range in.listeners.tables {
		found, err := in.scanTable(ctx, t, at.Time)
		differs = differs || found
		complete = complete && err == nil
	}
	if complete && !differs {
		in.recorder.unchanged(at)
	}
	return differs
}

// scanTable lists the sockets of one namespace and reports whether they differ from those of
// the last gather.
func (in *input) scanTable(ctx context.Context, t *table, now time.Time) (differs bool, err error) {
	var seen int
	var unknown []inet.Socket
	begin := func() { seen, unknown, t.scan = 0, unknown[:0], t.scan+1 }
	begin()
	_, err = t.ns.Dump(ctx, netns.Listen, 0, begin, func(s *inet.Socket) {
		switch l := t.byCookie[s.Cookie]; {
		case l == nil || !l.is(s):
			unknown = append(unknown, *s)
		case l.scan != t.scan:
			l.scan = t.scan
			seen++
		}
	})
	if err != nil && !t.ns.Gone() {
		return false, err
	}
	for i := range unknown {
		if l, isNew := in.scans.shortLived.add(t, &unknown[i], in.newListener); isNew {
			l.seen = now
		}
	}
	return len(unknown) > 0 || seen < len(t.byCookie), nil
}

// A shortLivedSet holds the listeners that scans have seen since the last gather. They may have closed
// by the next gather.
type shortLivedSet struct {
	listeners []*listener
	known     map[shortLivedID]*listener
	dropped   bool // there were more than maxShortLived
}

// A shortLivedID identifies a listener, see listener.is.
type shortLivedID struct {
	table         *table
	cookie, inode uint64
	port          uint16
	addr          netip.Addr
}

// maxShortLived is the maximum number of listeners that open and close between two gathers and
// are reported.
const maxShortLived = 10_000

// add adds a listener that create returns, unless there is one of the socket since the last gather.
// It returns nil if there is no room for it.
func (g *shortLivedSet) add(t *table, s *inet.Socket, create func(*table, *inet.Socket) *listener) (l *listener, isNew bool) {
	id := shortLivedID{table: t, cookie: s.Cookie, inode: s.Inode, port: s.Port, addr: s.Addr}
	if l := g.known[id]; l != nil {
		return l, false
	}
	if len(g.listeners) >= maxShortLived {
		g.dropped = true
		return nil, false
	}
	if g.known == nil {
		g.known = make(map[shortLivedID]*listener)
	}
	l = create(t, s)
	g.known[id], g.listeners = l, append(g.listeners, l)
	return l, true
}

// closed returns the listeners that the gather did not find, reports whether there may be
// more, and empties the set.
func (g *shortLivedSet) closed() (closed []*listener, dropped bool) {
	for _, l := range g.listeners {
		if known := l.table.byCookie[l.socket.Cookie]; known == nil || !known.is(&l.socket) {
			l.closed()
			closed = append(closed, l)
		}
	}
	dropped = g.dropped
	*g = shortLivedSet{}
	return closed, dropped
}
