package main

// A row is a row of the dashboard.
type row struct {
	title  string
	panels []panel
}

// A panel shows the results of one or more queries.
type panel struct {
	kind    string // "stat", "timeseries", "table" or "bargauge"
	title   string
	help    string
	unit    string // of Grafana; "" is a plain number
	width   int    // of 24
	queries []query
	alarm   bool   // stat: anything above 0 is red
	value   string // table: the title of the column of values; "": it is not shown
}

// A query is one expression and how its series are called.
type query struct{ expr, legend string }

// fleet selects all hosts of the chosen jobs, selected those that are chosen too. A host
// that pushes has no job: the job "All" matches it too.
const (
	fleet    = `job=~"$job"`
	selected = `job=~"$job",host=~"$host"`
)

// rows returns the dashboard from top to bottom.
func rows() []row {
	return []row{
		{"Fleet", []panel{
			{kind: "stat", title: "Hosts", width: 4, queries: one(`count(group by (host) (sockwatch_build_info{` + fleet + `}))`),
				help: "Hosts that are reporting now."},
			{kind: "stat", title: "Silent hosts", width: 4, alarm: true,
				queries: one(`count(group by (host) (present_over_time(sockwatch_build_info{` + fleet + `}[1d])) unless group by (host) (sockwatch_build_info{` + fleet + `})) or vector(0)`),
				help:    "Hosts that reported in the last 24 hours, but not now."},
			{kind: "stat", title: "Listeners", width: 4, queries: one(`count(tcp_listen_sockets{` + fleet + `})`)},
			{kind: "stat", title: "Public listeners", width: 4, queries: one(`count(tcp_listen_sockets{` + fleet + `,exposure="public"}) or vector(0)`),
				help: "Listeners that peers can reach at a public address. Firewalls are not taken into account."},
			{kind: "stat", title: "Expected, and missing", width: 4, alarm: true, queries: one(`count(tcp_listen_expect_up{` + fleet + `,rule="expect"} == 0) or vector(0)`)},
			{kind: "stat", title: "Not allowed", width: 4, alarm: true, queries: one(`sum(tcp_listen_violation_active{` + fleet + `}) or vector(0)`),
				help: "Listeners that a rule forbids, or that no rule allows."},
			{kind: "timeseries", title: "Listeners by exposure", width: 12, queries: []query{{`count by (exposure) (tcp_listen_sockets{` + fleet + `})`, "{{exposure}}"}}},
			{kind: "timeseries", title: "Changes per hour", width: 12, queries: []query{{`sum by (event) (increase(tcp_listen_events_total{` + fleet + `}[1h]))`, "{{event}}"}}},
			{kind: "table", title: "Public listeners", width: 24,
				queries: one(`group by (host, address, port, process, user, unit, container) (tcp_listen_sockets{` + fleet + `,exposure="public"})`)},
		}},
		{"Host $host", []panel{
			{kind: "table", title: "Listeners", width: 24,
				queries: one(`group by (host, netns, address, port, exposure, process, user, unit, container, owner) (tcp_listen_sockets{` + selected + `})`)},
			{kind: "timeseries", title: "Processes that hold listening sockets", width: 12,
				queries: []query{{`sum by (host, process) (tcp_listen_processes{` + selected + `})`, "{{host}} {{process}}"}}},
			{kind: "table", title: "Programs that were deleted or replaced since they started", width: 12,
				help:    "Either the service still runs an old version: restart it. Or somebody has deleted a program to hide it.",
				queries: one(`group by (host, address, port, process, unit) (tcp_listen_exe_deleted{` + selected + `} == 1)`)},
		}},
		{"Changes", []panel{
			{kind: "timeseries", title: "Changes", width: 12, queries: []query{{`sum by (host, event) (increase(tcp_listen_events_total{` + selected + `}[$__rate_interval]))`, "{{host}} {{event}}"}}},
			{kind: "stat", title: "Public within a day", width: 6, queries: one(`count(tcp_listen_changed_time_seconds{` + selected + `,exposure="public"}) or vector(0)`),
				help: "Public listeners that opened, or changed their owner or exposure, within 24 hours."},
			{kind: "stat", title: "Owners changed within a day", width: 6, queries: one(`sum(increase(tcp_listen_events_total{` + selected + `,event="owner_changed"}[1d]))`)},
			{kind: "table", title: "Changed within a day", width: 24, unit: "dateTimeAsIso",
				help:    "When the listener opened, returned, or changed its owner or exposure. The events themselves are in the logs: they also show what closed, and who owned it before.",
				value:   "changed",
				queries: one(`sort_desc(1000 * max by (host, netns, address, port, exposure, process, user, unit, container) (tcp_listen_changed_time_seconds{` + selected + `}))`)},
		}},
		{"Accept queues", []panel{
			{kind: "bargauge", title: "Fullest accept queues", width: 12, unit: "percentunit",
				help:    "When an accept queue is full, the kernel drops new connections.",
				queries: []query{{`topk(15, max by (host, address, port, process) (tcp_listen_backlog{` + selected + `} / (tcp_listen_backlog_limit{` + selected + `} > 0)))`, "{{host}} {{address}}:{{port}} {{process}}"}}},
			{kind: "timeseries", title: "Connections waiting for accept()", width: 12,
				queries: []query{{`max by (host, address, port, process) (tcp_listen_backlog{` + selected + `}) > 0`, "{{host}} {{address}}:{{port}} {{process}}"}}},
			{kind: "timeseries", title: "Established connections", width: 24, help: "Only with established = true.",
				queries: []query{{`topk(15, sum by (host, address, port, process) (tcp_listen_established{` + selected + `}))`, "{{host}} {{address}}:{{port}} {{process}}"}}},
		}},
		{"Expectations", []panel{
			{kind: "table", title: "Rules that fail", width: 12, queries: one(`group by (host, rule, name) (tcp_listen_expect_up{` + selected + `} == 0)`)},
			{kind: "table", title: "Listeners that are not allowed", width: 12,
				queries: one(`group by (host, verdict, rule, address, port, exposure, process, user, unit) (tcp_listen_violation_active{` + selected + `})`)},
			{kind: "timeseries", title: "Listeners that no rule allows, by exposure", width: 12,
				queries: []query{{`sum by (exposure) (tcp_listen_unexpected_listeners{` + selected + `})`, "{{exposure}}"}}},
			{kind: "timeseries", title: "Rules that cannot be decided", width: 12, help: "Their owner is not known.",
				queries: []query{{`sum by (host, name) (tcp_listen_expect_undecided{` + selected + `})`, "{{host}} {{name}}"}}},
			{kind: "table", title: "Rules in force", width: 12, value: "hosts", help: "Two hosts have the same digest if their rules mean the same.",
				queries: one(`count by (digest) (tcp_listen_rules_expect{` + selected + `})`)},
			{kind: "table", title: "Time until the first approval ends", width: 12, unit: "s", value: "left",
				queries: one(`sort(min by (host) (tcp_listen_rules_expires_time_seconds{` + selected + `}) - time())`)},
		}},
		{"Agent", []panel{
			{kind: "timeseries", title: "Inputs up", width: 6, queries: []query{{`min by (host, input) (sockwatch_input_up{` + selected + `})`, "{{host}} {{input}}"}}},
			{kind: "timeseries", title: "Outputs up", width: 6, queries: []query{{`min by (host, output) (sockwatch_output_up{` + selected + `})`, "{{host}} {{output}}"}}},
			{kind: "timeseries", title: "Duration of gathers", width: 6, unit: "s", queries: []query{{`max by (host, input) (sockwatch_input_gather_duration_seconds{` + selected + `})`, "{{host}} {{input}}"}}},
			{kind: "timeseries", title: "Gathers that failed, were incomplete or skipped", width: 6, queries: []query{
				{`sum by (host) (increase(sockwatch_input_gather_errors_total{` + selected + `}[$__rate_interval]))`, "{{host}} failed"},
				{`sum by (host) (increase(sockwatch_input_gathers_partial_total{` + selected + `}[$__rate_interval]))`, "{{host}} incomplete"},
				{`sum by (host) (increase(sockwatch_input_gathers_skipped_total{` + selected + `}[$__rate_interval]))`, "{{host}} skipped"},
			}},
			{kind: "timeseries", title: "Queued points", width: 8, queries: []query{{`sum by (host, output) (sockwatch_output_queue_points{` + selected + `})`, "{{host}} {{output}}"}}},
			{kind: "timeseries", title: "Age of the oldest queued point", width: 8, unit: "s", queries: []query{{`max by (host, output) (sockwatch_output_oldest_queued_seconds{` + selected + `})`, "{{host}} {{output}}"}}},
			{kind: "timeseries", title: "Points written, retried and lost per second", width: 8, queries: []query{
				{`sum(rate(sockwatch_output_written_points_total{` + selected + `}[$__rate_interval]))`, "written"},
				{`sum(rate(sockwatch_output_retried_points_total{` + selected + `}[$__rate_interval]))`, "retried"},
				{`sum(rate(sockwatch_output_dropped_points_total{` + selected + `}[$__rate_interval]))`, "dropped"},
				{`sum(rate(sockwatch_output_rejected_points_total{` + selected + `}[$__rate_interval]))`, "rejected"},
				{`sum(rate(sockwatch_output_damaged_points_total{` + selected + `}[$__rate_interval]))`, "damaged"},
			}},
			{kind: "timeseries", title: "Memory", width: 8, unit: "bytes", help: "Only of hosts that are scraped.",
				queries: []query{{`process_resident_memory_bytes and on (job, instance) sockwatch_build_info{` + selected + `}`, "{{instance}}"}}},
			{kind: "timeseries", title: "CPU", width: 8, unit: "percentunit", help: "Of one core; only of hosts that are scraped.",
				queries: []query{{`rate(process_cpu_seconds_total[$__rate_interval]) and on (job, instance) sockwatch_build_info{` + selected + `}`, "{{instance}}"}}},
			{kind: "table", title: "Versions", width: 8, value: "hosts", queries: one(`count by (version) (sockwatch_build_info{` + selected + `})`)},
		}},
	}
}

func one(expr string) []query { return []query{{expr, ""}} }
