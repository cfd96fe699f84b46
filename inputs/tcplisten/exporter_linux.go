package tcplisten

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/inputs/internal/escape"
	"sockwatch/inputs/internal/lookup"
)

// An exporter makes the points custom_port_exporter of the exporter that this
// project grows from: one for each owner of each listener, its value the pid.
type exporter struct {
	host   string
	names  *lookup.Cache[netip.Addr] // nil: addresses are shown as they are
	groups []*group
	named  map[netip.Addr]bool // the addresses of groups that may have names
	points []metric.Point
}

// rename makes the points anew where the name of an address has changed.
func (e *exporter) rename(ctx context.Context, now time.Time) (changed bool) {
	if e.names == nil || !e.names.Update(ctx, e.named, now) {
		return false
	}
	e.build()
	return true
}

// show makes the points those of other groups.
func (e *exporter) show(groups []*group) {
	e.groups = groups
	e.named = make(map[netip.Addr]bool)
	for _, g := range groups {
		for _, l := range g.members {
			if a := l.socket.Addr; !a.Unmap().IsUnspecified() {
				e.named[a] = true
			}
		}
	}
	e.build()
}

func (e *exporter) build() {
	e.points = nil // those before are published
	var seen metric.SeriesSet
	add := func(l *listener, app, pid string, value int) {
		p := metric.Point{
			Name: pointExporter,
			Tags: metric.NewTags("app", app, "host", e.host, "pid", pid,
				"port", "tcp "+e.address(l)+":"+strconv.Itoa(int(l.socket.Port)), "state", "10"),
			Fields: []metric.Field{{Key: "value", Value: metric.Float(float64(value))}},
		}
		if seen.Add(&p) {
			e.points = append(e.points, p)
		}
	}
	for _, g := range e.groups {
		for _, l := range g.members {
			for _, h := range l.owner.Holders {
				add(l, h.Process.Comm, strconv.Itoa(h.Process.PID), h.Process.PID)
			}
			if l.owner.Named() == nil {
				add(l, "", "", 0)
			}
		}
	}
}

// address returns the listener's address as the ancestor prints it, which cuts
// what it takes for a name at 17 bytes.
func (e *exporter) address(l *listener) string {
	if e.names != nil {
		if name := e.names.Name(l.socket.Addr); name != "" {
			return escape.Cut([]byte(name), 17)
		}
		return escape.Cut([]byte(l.socket.Addr.String()), 17)
	}
	return l.socket.Addr.String()
}

// newNames returns the reverse names of addresses.
func newNames(lookupAddr func(ctx context.Context, address string) ([]string, error)) *lookup.Cache[netip.Addr] {
	return lookup.New(func(ctx context.Context, a netip.Addr) (string, error) {
		return reverseName(lookupAddr(ctx, a.String()))
	}, lookup.Options{
		Workers: 8, Timeout: 10 * time.Second, Wait: 50 * time.Millisecond, Again: 10 * time.Minute, Retry: 10 * time.Minute,
	})
}

// reverseName returns the first of the names that were found, as the ancestor does.
func reverseName(found []string, err error) (string, error) {
	if e := (*net.DNSError)(nil); errors.As(err, &e) && e.IsNotFound {
		return "", nil
	}
	if err != nil || len(found) == 0 {
		return "", err
	}
	return found[0], nil
}
