package tcplisten

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/inputs/internal/escape"
	"sockwatch/inputs/internal/lookup"
	"sockwatch/inputs/internal/owner"
)

// An exporter builds the custom_port_exporter points, like the exporter of that name: one for
// each owner of each listener, with the pid as its value. It includes only the owners of a
// socket that package owner keeps, at most 64.
type exporter struct {
	host      string
	names     *lookup.Cache[netip.Addr] // nil: addresses are not resolved
	groups    []*group
	addresses map[netip.Addr]bool // addresses of groups to resolve
	points    []metric.Point
}

func newExporter(host string, resolve bool) *exporter {
	e := &exporter{host: host}
	if resolve {
		e.names = newReverseNames()
	}
	return e
}

func (e *exporter) close() {
	if e.names != nil {
		e.names.Close()
	}
}

// updateNames updates the names of addresses. If one has changed, it builds the points
// again and returns true.
func (e *exporter) updateNames(ctx context.Context, now time.Time) (changed bool) {
	if e.names == nil || !e.names.Update(ctx, e.addresses, now) {
		return false
	}
	e.build()
	return true
}

// setGroups builds the points for groups.
func (e *exporter) setGroups(groups []*group) {
	e.groups = groups
	e.addresses = make(map[netip.Addr]bool)
	for _, g := range groups {
		for _, l := range g.members {
			if a := l.socket.Addr; !a.Unmap().IsUnspecified() {
				e.addresses[a] = true
			}
		}
	}
	e.build()
}

func (e *exporter) build() {
	e.points = nil // the old ones are published, so they must not change
	var series metric.SeriesSet
	for _, g := range e.groups {
		port := "tcp " + e.address(g.members[0].socket.Addr) + ":" + strconv.Itoa(int(g.members[0].socket.Port))
		for _, p := range g.exported[:g.exporterLimit] {
			app, pid := "", ""
			if p != nil {
				app, pid = p.Comm, strconv.Itoa(p.PID)
			}
			point := metric.Point{
				Name:   pointExporter,
				Tags:   metric.NewTags("app", app, "host", e.host, "pid", pid, "port", port, "state", "10"),
				Fields: []metric.Field{{Key: "value", Value: metric.Float(pidOf(p))}},
			}
			if series.Add(&point) { // false if two addresses have the same name
				e.points = append(e.points, point)
			}
		}
	}
}

func pidOf(p *owner.Process) float64 {
	if p == nil {
		return 0
	}
	return float64(p.PID)
}

// exporterProcesses returns the processes that get a point each. It is a single nil if
// the owner of the group is unknown.
func (g *group) exporterProcesses() (processes []*owner.Process) {
	for _, l := range g.members {
		for _, h := range l.owner.Holders {
			processes = append(processes, h.Process)
		}
	}
	if len(processes) == 0 {
		return []*owner.Process{nil}
	}
	slices.SortFunc(processes, owner.Compare)
	return slices.Compact(processes)
}

// address returns the listener's address as the original exporter prints it. That cuts
// names, and addresses in place of names, at 17 bytes.
func (e *exporter) address(a netip.Addr) string {
	if e.names == nil {
		return a.String()
	}
	if name := e.names.Name(a); name != "" {
		return escape.Cut([]byte(name), 17)
	}
	return escape.Cut([]byte(a.String()), 17)
}

// newReverseNames returns a cache that resolves addresses to names.
func newReverseNames() *lookup.Cache[netip.Addr] {
	ask := func(ctx context.Context, a netip.Addr) (string, error) {
		return firstName(net.DefaultResolver.LookupAddr(ctx, a.String()))
	}
	return lookup.New(ask, lookup.Options{
		Workers: 8, Timeout: 10 * time.Second, Wait: 50 * time.Millisecond, Again: 10 * time.Minute, Retry: time.Minute,
	})
}

// firstName returns the first of the names that were found, as the original exporter
// does. An address without a name is not an error.
func firstName(found []string, err error) (string, error) {
	if e, ok := errors.AsType[*net.DNSError](err); ok && e.IsNotFound {
		return "", nil
	}
	if err != nil || len(found) == 0 {
		return "", err
	}
	return found[0], nil
}
