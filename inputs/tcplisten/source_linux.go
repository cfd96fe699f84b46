package tcplisten

import (
	"time"

	"sockwatch/agent/metric"
)

// A source says how the listeners and their owners are found.
type source struct {
	procfs bool // the host's listeners come from /proc/net/tcp
	bpf    bool // their owners come from the kernel
	events bool // the kernel reports when listeners open and close
	since  time.Time
	lost   uint64 // changes that it could not tell, since then
}

// source returns how the last gather found the listeners.
func (in *input) source() source {
	s := source{bpf: in.open.holders != nil, events: in.listenEvents.on.Load()}
	for _, t := range in.listeners.tables {
		s.procfs = s.procfs || t.ns.Host() && t.source.Procfs
	}
	if s.events {
		s.since, s.lost = in.listenEvents.since, in.listenEvents.lost.Load()
	}
	return s
}

// words returns where listeners and owners come from.
func (s source) words() (listeners, owners string) {
	listeners, owners = backendNetlink, ownerSourceProcfs
	if s.procfs {
		listeners = backendProcfs
	}
	if s.bpf {
		owners = ownerSourceBPF
	}
	return listeners, owners
}

func (s source) point() metric.Point {
	listeners, owners := s.words()
	events := "off"
	if s.events {
		events = "on"
	}
	p := metric.Point{
		Name: pointSource,
		Tags: metric.NewTags(
			"listen_events", events, "listener_source", listeners, "owner_source", owners,
		),
		Fields: []metric.Field{{Key: "info", Value: metric.Int(1)}},
	}
	if s.events {
		p.Start = s.since
		p.Fields = append(p.Fields, metric.Field{Key: "lost_events_total", Value: metric.Uint(s.lost)})
	}
	return p
}
