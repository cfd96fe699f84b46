package changes

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/inputs/internal/inet"
)

const benchListeners = 5000

// benchSnapshot returns a host with benchListeners listeners, whose owners started in the
// generation.
func benchSnapshot(m Moment, generation int) *Snapshot {
	s := &Snapshot{Moment: m, Namespaces: []Namespace{{View: "netlink"}}}
	for i := range benchListeners {
		s.Sockets = append(s.Sockets, benchSocket(i, generation))
	}
	return s
}

func benchSocket(i, generation int) Socket {
	port := strconv.Itoa(1000 + i)
	return Socket{
		Endpoint: Endpoint{Address: "0.0.0.0", Port: uint16(1000 + i)},
		ID:       SocketID{Netns: 4026531840, Cookie: uint64(generation*benchListeners + i), Inode: uint64(generation*benchListeners + i)},
		UID:      33, Exposure: inet.Public, Status: Known,
		Holders: []Holder{{
			PID: 1000 + i, Start: uint64(1 + generation*1000),
			Key: Key{Process: "service", UID: 33, Unit: fmt.Sprintf("service@%d.service", i)},
			Facts: Facts{
				Exe: "/usr/lib/service/bin/service", Start: time.UnixMilli(1_700_000_000_123),
				Parent: Parent{PID: 1, Process: "systemd", Exe: "/usr/lib/systemd/systemd"},
			},
		}},
		Tags: metric.NewTags("address", "0.0.0.0", "exposure", "public", "family", "ipv4", "owner", "resolved", "port", port,
			"process", "service", "unit", fmt.Sprintf("service@%d.service", i), "user", "www-data"),
	}
}

// step returns the moment of the next scan.
func (m Moment) step() Moment {
	const d = 10 * time.Second
	return Moment{Time: m.Time.Add(d), Mono: m.Mono + d, Uptime: m.Uptime + d, Boot: m.Boot}
}

func benchTracker() (*Tracker, Moment) {
	o := simOptions()
	o.MaxPerUser = benchListeners
	return New(o), Moment{Time: time.Unix(1_800_000_000, 0), Mono: time.Hour, Uptime: time.Hour, Boot: "b"}
}

func perListener(b *testing.B) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchListeners, "ns/listener")
	b.ReportAllocs()
}

// BenchmarkDescribe builds socket, holder and tags, as the input does to describe a listener
// again. It puts the other benchmarks in proportion.
func BenchmarkDescribe(b *testing.B) {
	for b.Loop() {
		for i := range benchListeners {
			s := benchSocket(i, 0)
			sink = len(s.Tags)
		}
	}
	perListener(b)
}

var sink int

// BenchmarkObserveRestarts measures scans in which all listeners were restarted.
func BenchmarkObserveRestarts(b *testing.B) {
	t, m := benchTracker()
	scans := []*Snapshot{benchSnapshot(m, 0), benchSnapshot(m, 1)}
	for i := 0; b.Loop(); i++ {
		m = m.step()
		scans[i%2].Moment = m
		if n := len(t.Observe(scans[i%2]).Events); i > 0 && n != benchListeners {
			b.Fatalf("%d events", n)
		}
	}
	perListener(b)
}

// BenchmarkObserveOpened measures one scan in which all listeners have opened.
func BenchmarkObserveOpened(b *testing.B) {
	_, m := benchTracker()
	scan := benchSnapshot(m.step(), 0)
	for b.Loop() {
		t, _ := benchTracker()
		t.Observe(&Snapshot{Moment: m, Namespaces: scan.Namespaces})
		if n := len(t.Observe(scan).Events); n != benchListeners {
			b.Fatalf("%d events", n)
		}
	}
	perListener(b)
}

// BenchmarkObserveNothing measures scans in which nothing has changed.
func BenchmarkObserveNothing(b *testing.B) {
	t, m := benchTracker()
	scan := benchSnapshot(m, 0)
	t.Observe(scan)
	for b.Loop() {
		m = m.step()
		scan.Moment = m
		t.Observe(scan)
	}
	perListener(b)
}

// BenchmarkUnchanged measures the cost of a gather without changes.
func BenchmarkUnchanged(b *testing.B) {
	t, m := benchTracker()
	t.Observe(benchSnapshot(m, 0))
	for b.Loop() {
		m = m.step()
		if t.Unchanged(m) {
			b.Fatal("something is due")
		}
	}
	b.ReportAllocs()
}

// BenchmarkShortLivedOfOnePort measures the cost of a program that opens and closes thousands
// of sockets on one port between two scans.
func BenchmarkShortLivedOfOnePort(b *testing.B) {
	_, m := benchTracker()
	scan := shortLivedOfOnePort(m, benchListeners)
	for b.Loop() {
		t := New(simOptions())
		t.Observe(&Snapshot{Moment: m, Namespaces: scan.Namespaces})
		if n := len(t.Observe(scan).Events); n != 1 {
			b.Fatalf("%d events", n)
		}
	}
	perListener(b)
}
