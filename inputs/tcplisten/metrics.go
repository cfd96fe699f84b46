package tcplisten

import (
	"slices"

	"sockwatch/agent/metric"
	"sockwatch/inputs/internal/changes"
	"sockwatch/inputs/internal/expect"
)

// The names of the points.
const (
	pointListener = "tcp_listen"
	pointOverflow = "tcp_listen_overflow"
	pointExporter = "custom_port_exporter"

	pointHistory   = pointListener + "_history"
	pointSource    = pointListener + "_source"
	pointRuleEvent = pointListener + "_rule_event"

	// PointEvent is the name of the points of changes.
	PointEvent = pointListener + "_event"
)

// descs describes every field of every point, in the order of the README.
func descs() []metric.Desc {
	gauge := func(name, field, unit, help string) metric.Desc {
		return metric.Desc{Name: name, Field: field, Type: metric.Gauge, Unit: unit, Help: help}
	}
	text := func(field, help string) metric.Desc {
		return metric.Desc{Name: pointListener, Field: field, Help: help}
	}
	return slices.Concat([]metric.Desc{
		gauge(pointListener, "sockets", "count", "Listening sockets with this address, family and owner; an SO_REUSEPORT group has several"),
		gauge(pointListener, "processes", "count", "Processes that hold these sockets"),
		gauge(pointListener, "pid", "pid", "Process id of the owner named in the tag process"),
		gauge(pointListener, "backlog", "connections", "Established connections waiting for accept()"),
		gauge(pointListener, "backlog_limit", "connections", "Maximum number of connections waiting for accept(): the effective backlog of listen()"),
		gauge(pointListener, "established", "connections", "Established connections to the listener"),
		gauge(pointListener, "uid", "uid", "User id of the sockets"),
		gauge(pointListener, "first_seen_time_seconds", "seconds", "When the listener was first seen, in Unix time"),
		gauge(pointListener, "changed_time_seconds", "seconds", "When the listener opened, returned, or changed its owner or exposure, in Unix time; absent if that was more than 24 hours ago or before the first gather"),
		gauge(pointListener, "process_start_time_seconds", "seconds", "When the owner named in the tag process started, in Unix time"),
		text("exe", "Path of the program of the owner named in the tag process"),
		gauge(pointListener, "exe_deleted", "", "Whether the file of that program has been deleted or replaced since the process started"),
		text("cmdline", "Arguments of the owner named in the tag process, at most 256 bytes"),
		gauge(pointOverflow, "listeners", "count", "Listeners of the user that are beyond max_listeners and have no point of their own"),
		gauge(pointOverflow, "sockets", "count", "Listening sockets of these listeners"),
		gauge(pointOverflow, "backlog", "connections", "Established connections waiting for accept() at these listeners"),
		gauge(pointOverflow, "exporter_points", "count", "custom_port_exporter points of the user that are beyond max_listeners; absent unless custom_port_exporter is on"),
		gauge(pointHistory, "waiting_events", "count", "Events that not every output has yet"),
		{Name: pointHistory, Field: "dropped_events_total", Type: metric.Counter, Unit: "events", Help: "Events dropped because 10,000 others were waiting"},
		gauge(pointSource, "info", "", "Always 1; the tags say how listeners, their owners and events are found"),
		{Name: pointSource, Field: "lost_events_total", Type: metric.Counter, Unit: "events", Help: "Listeners that opened or closed unrecorded because sockwatch read the kernel's events too slowly; absent unless listen_events is on"},
		{Name: pointExporter, Field: "value", Help: "custom_port_exporter scrape node port state info"},
	}, changes.Descs(pointListener), expect.Descs(pointListener), ruleEventDescs())
}

// ruleEventDescs describes the fields of rule events. Events of listeners have most of them,
// too.
func ruleEventDescs() []metric.Desc {
	shared := []string{
		"history", "sequence", "window_seconds", "while_down", "pid", "uid", "listen_pid", "exe", "exe_deleted", "exe_sha256",
		"process_start_time_seconds", "parent_pid", "parent_process", "parent_exe", "login_uid", "cmdline",
	}
	descs := slices.DeleteFunc(changes.Descs(pointListener), func(d metric.Desc) bool { return !slices.Contains(shared, d.Field) })
	for i := range descs {
		descs[i].Name = pointRuleEvent
	}
	return append(descs,
		metric.Desc{Name: pointRuleEvent, Field: "verdict", Help: "violated, cleared: forbidden, or no for a listener that is not expected"},
		metric.Desc{Name: pointRuleEvent, Field: "why", Help: "What was missing, or which criterion of the nearest rule did not match"},
		metric.Desc{Name: pointRuleEvent, Field: "matches", Type: metric.Gauge, Unit: "count", Help: "failed: endpoints that match the rule"},
		metric.Desc{Name: pointRuleEvent, Field: "undecided", Type: metric.Gauge, Unit: "count", Help: "failed: endpoints that may match once their owner is known"},
		metric.Desc{Name: pointRuleEvent, Field: "lasted_seconds", Type: metric.Gauge, Unit: "seconds", Help: "restored, cleared: how long it lasted"},
		metric.Desc{Name: pointRuleEvent, Field: "count", Type: metric.Gauge, Unit: "count", Help: "violated: how many listeners of the user this event stands for, beyond the limit"},
	)
}

// tags returns the keys of the tags of all points.
func tags() []string {
	keys := slices.Concat([]string{
		"address", "app", "container", "exposure", "family", "host", "listen_events", "listener_source", "netns", "owner", "owner_source", "pid", "pod", "port", "process",
		"state", "unit", "user", "user_unit",
	}, changes.Tags(), expect.Tags())
	slices.Sort(keys)
	return slices.Compact(keys)
}
