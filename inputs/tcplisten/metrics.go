package tcplisten

import "sockwatch/agent/metric"

// The names of the points.
const (
	pointListener = "tcp_listen"
	pointOverflow = "tcp_listen_overflow"
	pointExporter = "custom_port_exporter"
)

// descs describes every field of every point, in the order of the README.
func descs() []metric.Desc {
	gauge := func(name, field, unit, help string) metric.Desc {
		return metric.Desc{Name: name, Field: field, Type: metric.Gauge, Unit: unit, Help: help}
	}
	text := func(field, help string) metric.Desc {
		return metric.Desc{Name: pointListener, Field: field, Help: help}
	}
	return []metric.Desc{
		gauge(pointListener, "sockets", "count", "Listening sockets with this address, family and owner; an SO_REUSEPORT group has several"),
		gauge(pointListener, "processes", "count", "Processes that hold these sockets"),
		gauge(pointListener, "pid", "pid", "Process id of the owner named in the tag process"),
		gauge(pointListener, "backlog", "connections", "Established connections waiting for accept()"),
		gauge(pointListener, "backlog_limit", "connections", "Maximum number of connections waiting for accept(): the effective backlog of listen()"),
		gauge(pointListener, "established", "connections", "Established connections to the listener"),
		gauge(pointListener, "uid", "uid", "User id of the sockets"),
		gauge(pointListener, "first_seen_time_seconds", "seconds", "When the listener was first seen, in Unix time"),
		gauge(pointListener, "process_start_time_seconds", "seconds", "When the owner named in the tag process started, in Unix time"),
		text("exe", "Path of the program of the owner named in the tag process"),
		gauge(pointListener, "exe_deleted", "", "Whether the file of that program has been deleted or replaced since the process started"),
		text("cmdline", "Arguments of the owner named in the tag process, at most 256 bytes"),
		gauge(pointOverflow, "listeners", "count", "Listeners of the user that are beyond max_listeners and have no point of their own"),
		gauge(pointOverflow, "sockets", "count", "Listening sockets of these listeners"),
		gauge(pointOverflow, "backlog", "connections", "Established connections waiting for accept() at these listeners"),
		gauge(pointOverflow, "exporter_points", "count", "custom_port_exporter points of the user that are beyond max_listeners; absent unless custom_port_exporter is on"),
		{Name: pointExporter, Field: "value", Help: "custom_port_exporter scrape node port state info"},
	}
}

// tags returns the keys of the tags of all points.
func tags() []string {
	return []string{
		"address", "app", "container", "exposure", "family", "host", "netns", "owner", "pid", "pod", "port", "process",
		"state", "unit", "user", "user_unit",
	}
}
