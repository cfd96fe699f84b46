package tcplisten

import "sockwatch/agent/metric"

// The names of the points.
const (
	pointListener = "tcp_listen"
	pointOverflow = "tcp_listen_overflow"
	pointExporter = "custom_port_exporter"
)

// descs documents every field of every point, in the order of the README.
func descs() []metric.Desc {
	gauge := func(name, field, unit, help string) metric.Desc {
		return metric.Desc{Name: name, Field: field, Type: metric.Gauge, Unit: unit, Help: help}
	}
	text := func(field, help string) metric.Desc {
		return metric.Desc{Name: pointListener, Field: field, Help: help}
	}
	return []metric.Desc{
		gauge(pointListener, "sockets", "count", "Listening sockets of this address, family and owner; an SO_REUSEPORT group has several"),
		gauge(pointListener, "processes", "count", "Processes that hold the sockets"),
		gauge(pointListener, "pid", "pid", "Process id of the owner that the tag process names"),
		gauge(pointListener, "backlog", "connections", "Established connections that wait for accept()"),
		gauge(pointListener, "backlog_limit", "connections", "Connections that may wait for accept(): the limit of listen() in force"),
		gauge(pointListener, "established", "connections", "Established connections to the listener"),
		gauge(pointListener, "uid", "uid", "User id of the sockets"),
		gauge(pointListener, "first_seen_time_seconds", "seconds", "When the listener was first seen, in Unix time"),
		gauge(pointListener, "process_start_time_seconds", "seconds", "When the owner that the tag process names started, in Unix time"),
		text("exe", "Path of the program of the owner that the tag process names"),
		gauge(pointListener, "exe_deleted", "", "Whether the file of that program has been deleted or replaced since it was started"),
		text("cmdline", "Arguments of the owner that the tag process names, 256 bytes at most"),
		gauge(pointOverflow, "listeners", "count", "Listeners of the user that are beyond max_listeners and have no points of their own"),
		gauge(pointOverflow, "sockets", "count", "Listening sockets of these listeners"),
		gauge(pointOverflow, "backlog", "connections", "Established connections that wait for accept() at these listeners"),
		gauge(pointOverflow, "exporter_points", "count", "Points custom_port_exporter of the user that are beyond max_listeners; absent without custom_port_exporter"),
		{Name: pointExporter, Field: "value", Help: "custom_port_exporter scrape node port state info"},
	}
}

// tags are the keys of the tags of all points.
func tags() []string {
	return []string{
		"address", "app", "container", "exposure", "family", "host", "netns", "owner", "pid", "pod", "port", "process",
		"state", "unit", "user", "user_unit",
	}
}
