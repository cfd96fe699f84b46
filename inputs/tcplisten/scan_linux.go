package tcplisten

import (
	"context"
	"slices"
	"time"

	"sockwatch/inputs/internal/inet"
	"sockwatch/inputs/internal/netns"
)

// Watch scans the list of sockets every scan_interval, and asks for a gather if it
// differs from the last one.
func (in *input) Watch(ctx context.Context, changed func()) {
	interval := time.Duration(in.options.ScanInterval)
	if interval <= 0 {
		return
	}
	ticks := time.NewTicker(interval)
	defer ticks.Stop()
	for {
		select {
		case <-ticks.C:
			if in.scan(ctx) {
				changed()
			}
		case <-ctx.Done():
			return
		}
	}
}

// scanTimeout bounds a scan, and how long it can delay a gather.
const scanTimeout = time.Second

// scan lists the sockets and reports whether any has opened or closed since the last
// gather. It keeps the new ones for the next gather, by which they may have closed. A
// namespace that cannot be listed counts as unchanged. While a gather is in flight, scan
// does nothing.
func (in *input) scan(ctx context.Context) (differs bool) {
	if !in.mu.TryLock() {
		return false
	}
	defer in.mu.Unlock()
	if in.open == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, scanTimeout)
	defer cancel()
	m, complete := readClocks(), true
	if in.open.cgroups != nil {
		in.open.cgroups.Begin()
	}
	for _, t := range in.listeners.tables {
		found, err := in.scanTable(ctx, t)
		differs = differs || found
		complete = complete && err == nil
	}
	if complete && !differs {
		in.recorder.unchanged(m)
	}
	return differs
}

// scanTable lists the sockets of one namespace and reports whether any has opened or closed
// since the last gather.
func (in *input) scanTable(ctx context.Context, t *table) (differs bool, err error) {
	var seen int
	var unknown []*listener
	begin := func() { seen, unknown, t.scan = 0, nil, t.scan+1 }
	begin()
	_, err = t.ns.Dump(ctx, netns.Listen, 0, begin, func(s *inet.Socket) {
		switch l := t.byCookie[s.Cookie]; {
		case l == nil || !l.is(s):
			unknown = append(unknown, in.newListener(t, s))
		case l.scan != t.scan:
			l.scan = t.scan
			seen++
		}
	})
	if err != nil && !t.ns.Gone() {
		return false, err
	}
	for _, l := range unknown {
		l.glimpsed = time.Now()
		in.glimpsed.add(l)
	}
	return len(unknown) > 0 || seen < len(t.byCookie), nil
}

// A glimpse is a list of listeners that scans have seen since the last gather. The next
// gather may find them closed.
type glimpse []*listener

// maxGlimpsed is how many listeners that open and close between two gathers are
// reported.
const maxGlimpsed = 10_000

func (g *glimpse) add(l *listener) {
	if len(*g) < maxGlimpsed && !slices.ContainsFunc(*g, func(other *listener) bool {
		return other.table == l.table && other.is(&l.socket)
	}) {
		*g = append(*g, l)
	}
}

// closed returns the listeners that the gather did not find, and empties the list.
func (g *glimpse) closed() (closed []*listener) {
	for _, l := range *g {
		if known := l.table.byCookie[l.socket.Cookie]; known == nil || !known.is(&l.socket) {
			closed = append(closed, l)
		}
	}
	*g = nil
	return closed
}
