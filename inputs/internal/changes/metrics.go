package changes

import "sockwatch/agent/metric"

// Descs returns the descriptions of the fields, for an input whose points are called point.
func Descs(point string) []metric.Desc {
	event := point + "_event"
	number := func(field, unit, help string) metric.Desc {
		return metric.Desc{Name: event, Field: field, Type: metric.Gauge, Unit: unit, Help: help}
	}
	text := func(field, help string) metric.Desc { return metric.Desc{Name: event, Field: field, Help: help} }
	return []metric.Desc{
		text("history", "Random id of the history; with host and sequence it identifies an event"),
		number("sequence", "count", "Number of the event in the history, growing by one"),
		number("window_seconds", "seconds", "How exact the time is: the time since the last complete scan before it, or 0 if the kernel reported the time (listen_events)"),
		number("while_down", "", "Whether it happened while sockwatch was not running"),
		number("pid", "pid", "Process id of the owner"),
		number("uid", "uid", "User id of the socket"),
		number("listen_pid", "pid", "Process id of the process that called listen, if listen_events is on"),
		text("exe", "Path of the owner's program"),
		number("exe_deleted", "", "Whether the file of that program has been deleted or replaced since the process started"),
		text("exe_sha256", "SHA-256 sum of that program, if exe_sha256 is on"),
		number("process_start_time_seconds", "seconds", "When the owner started, in Unix time"),
		number("parent_pid", "pid", "Process id of the owner's parent"),
		text("parent_process", "Name of the parent"),
		text("parent_exe", "Path of the parent's program"),
		number("login_uid", "uid", "User id of the login that led to the owner; absent for services"),
		text("cmdline", "Arguments of the owner, if cmdline is on"),
		number("age_seconds", "seconds", "closed: how long the listener was open"),
		number("down_seconds", "seconds", "restarted, owner_changed: how long nobody listened, at most; 0 if old and new overlapped"),
		number("previous_pid", "pid", "restarted, owner_changed: process id of the previous owner"),
		text("previous_process", "owner_changed: name of the previous owner"),
		text("previous_user", "owner_changed: user of the previous owner"),
		text("previous_unit", "owner_changed: systemd unit of the previous owner"),
		text("previous_user_unit", "owner_changed: the previous owner's unit of a user's service manager"),
		text("previous_container", "owner_changed: container of the previous owner"),
		text("previous_exe", "restarted, owner_changed: path of the previous owner's program"),
		number("exe_changed", "", "restarted, owner_changed: whether the program is at another path than before, or has another SHA-256 sum"),
		text("previous_exposure", "exposure_changed: the previous exposure"),
		text("previous_address", "exposure_changed: the previous address, if the listener was bound to another"),
		text("cause", "exposure_changed: host_address (the host's addresses have changed) or rebound"),
		text("rule", "Name of the deciding rule, if there are rules"),
		text("why", "Reason for the verdict of the rules"),
		number("count", "count", "How many events of the user this one stands for, beyond the limit of one gather"),
		{Name: point + "_events", Field: "total", Type: metric.Counter, Unit: "events", Help: "Events by kind, since the history was created"},
	}
}

// Tags returns the keys of tags that only the points of this package have.
func Tags() []string { return []string{"event", "expected"} }
