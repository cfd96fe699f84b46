package health

import "sockwatch/agent/metric"

// Descs documents the agent's own points. It is read-only.
var Descs = []metric.Desc{
	{Name: "sockwatch_input", Field: "up", Type: metric.Gauge, Help: "Whether the last gather of the input succeeded"},
	{Name: "sockwatch_input", Field: "gathers_total", Type: metric.Counter, Unit: "gathers", Help: "Gathers of the input that ended or timed out"},
	{Name: "sockwatch_input", Field: "gather_errors_total", Type: metric.Counter, Unit: "gathers", Help: "Gathers of the input that failed or timed out"},
	{Name: "sockwatch_input", Field: "gathers_skipped_total", Type: metric.Counter, Unit: "gathers", Help: "Gathers skipped because the previous one was still in flight"},
	{Name: "sockwatch_input", Field: "gathers_partial_total", Type: metric.Counter, Unit: "gathers", Help: "Gathers of the input that succeeded with secondary data missing, because of a deadline or an error"},
	{Name: "sockwatch_input", Field: "panics_total", Type: metric.Counter, Unit: "panics", Help: "Panics of the input that were recovered"},
	{Name: "sockwatch_input", Field: "gather_duration_seconds", Type: metric.Gauge, Unit: "seconds", Help: "How long the last gather of the input took"},
	{Name: "sockwatch_input", Field: "points", Type: metric.Gauge, Unit: "points", Help: "Points in the last batch of the input"},
	{Name: "sockwatch_output", Field: "up", Type: metric.Gauge, Help: "Whether the output delivered at its last attempt, or serves"},
	{Name: "sockwatch_output", Field: "panics_total", Type: metric.Counter, Unit: "panics", Help: "Panics of the output that were recovered"},
	{Name: "sockwatch_output", Field: "written_points_total", Type: metric.Counter, Unit: "points", Help: "Points that the destination has stored"},
	{Name: "sockwatch_output", Field: "rejected_points_total", Type: metric.Counter, Unit: "points", Help: "Points that the destination or the encoder rejected for good"},
	{Name: "sockwatch_output", Field: "dropped_points_total", Type: metric.Counter, Unit: "points", Help: "Points dropped because the queue was full"},
	{Name: "sockwatch_output", Field: "damaged_points_total", Type: metric.Counter, Unit: "points", Help: "Points lost because the queue on disk was damaged, since it was opened"},
	{Name: "sockwatch_output", Field: "retried_points_total", Type: metric.Counter, Unit: "points", Help: "Points of failed attempts, each to be retried"},
	{Name: "sockwatch_output", Field: "write_errors_total", Type: metric.Counter, Unit: "attempts", Help: "Failed attempts to deliver"},
	{Name: "sockwatch_output", Field: "queue_points", Type: metric.Gauge, Unit: "points", Help: "Points waiting for delivery"},
	{Name: "sockwatch_output", Field: "queue_bytes", Type: metric.Gauge, Unit: "bytes", Help: "Bytes of the points waiting for delivery"},
	{Name: "sockwatch_output", Field: "oldest_queued_seconds", Type: metric.Gauge, Unit: "seconds", Help: "How long the oldest point has waited for delivery"},
	{Name: "sockwatch_config", Field: "last_reload_successful", Type: metric.Gauge, Help: "Whether the last reload of the configuration succeeded"},
	{Name: "sockwatch_config", Field: "last_reload_success_time_seconds", Type: metric.Gauge, Unit: "Unix seconds", Help: "When the configuration in force was loaded"},
	{Name: "sockwatch_config", Field: "reload_failures_total", Type: metric.Counter, Unit: "reloads", Help: "Reloads of the configuration that failed"},
	{Name: "sockwatch_build_info", Field: "value", Type: metric.Gauge, Help: "Always 1; the labels carry the versions of the program and of Go"},
}
