package main

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"
)

// An alert is one alerting rule.
type alert struct {
	name     string
	expr     string
	hold     string // how long expr must hold; "" is not at all
	severity string // label
	summary  string // annotation, a template
	todo     string // what to do, in Markdown: annotation, and for docs/alerts.md
	first    bool   // shown in README.md
}

// alerts returns all alerting rules. A host that Prometheus scrapes is in the job
// "sockwatch"; every other one pushes.
func alerts() []alert {
	return []alert{
		{
			name:     "NewPublicListener",
			expr:     `max without (owner, family) (tcp_listen_changed_time_seconds{exposure="public"}) > time() - 3600`,
			severity: "warning",
			summary:  `New or changed public listener on {{ $labels.host }}: {{ $labels.process }} ({{ $labels.user }}) at {{ $labels.address }} port {{ $labels.port }}`,
			todo:     "Find out who opened it: the event has the program, its parent and the login. Close it, or add a rule that expects it.",
			first:    true,
		}, {
			name: "ExpectedListenerMissing",
			expr: `tcp_listen_expect_up{rule="expect"} == 0`,
			hold: "2m", severity: "critical",
			summary: `Expected listener missing on {{ $labels.host }}: {{ $labels.name }}`,
			todo:    "Start the service, or correct the rule. `sockwatch check --live` on the host names the nearest listener and what differs.",
			first:   true,
		}, {
			name: "ListenerNotAllowed",
			expr: `max by (job, instance, host, address, port) (tcp_listen_violation_active) == 1`,
			hold: "2m", severity: "warning",
			summary: `Listener that is not allowed on {{ $labels.host }}: {{ range printf "tcp_listen_violation_active{host=%q,address=%q,port=%q}" $labels.host $labels.address $labels.port | query }}` +
				`{{ .Labels.process }} ({{ .Labels.user }}) {{ end }}at {{ $labels.address }} port {{ $labels.port }}`,
			todo:  "Close it, or approve it with a rule. `sockwatch check --live` on the host names the nearest rule and what differs.",
			first: true,
		}, {
			name:     "ListenerChanged",
			expr:     `sum by (job, instance, host, event) (increase(tcp_listen_events_total{event=~"owner_changed|exposure_changed"}[10m])) > 0`,
			severity: "info",
			summary:  `Listener changed on {{ $labels.host }}: {{ $labels.event }}`,
			todo:     "Look up the event at that time ([logs.md](logs.md)): it names the old and the new owner.",
			first:    true,
		}, {
			name: "SockwatchDown",
			expr: `up{job="sockwatch"} == 0`,
			hold: "5m", severity: "critical",
			summary: `{{ $labels.instance }} cannot be scraped`,
			todo:    "Until it is back, nothing is known about the host. Run `systemctl status sockwatch` there.",
		}, {
			name:     "SockwatchSilent",
			expr:     `group by (host) (present_over_time(sockwatch_build_info{job!="sockwatch"}[1d])) unless group by (host) (present_over_time(sockwatch_build_info[10m]))`,
			severity: "critical",
			summary:  `{{ $labels.host }} has pushed nothing for 10 minutes`,
			todo:     "Until it is back, nothing is known about the host. Run `systemctl status sockwatch` there. A retired host needs no silence: the alert resolves a day after the last point.",
		}, {
			name: "SockwatchInputDown",
			expr: `sockwatch_input_up == 0`,
			hold: "5m", severity: "critical",
			summary: `{{ $labels.input }} on {{ $labels.host }} cannot gather`,
			todo:    "The log on the host says why: `journalctl -u sockwatch`. Its listeners are unknown meanwhile.",
		}, {
			name: "SockwatchReloadFailed",
			expr: `sockwatch_config_last_reload_successful == 0`,
			hold: "5m", severity: "warning",
			summary: `The last reload of sockwatch on {{ $labels.host }} failed: an older configuration is in force`,
			todo:    "Correct what the log names: `journalctl -u sockwatch`. `sockwatch check` finds everything but addresses, certificates and directories that cannot be used. Then run `systemctl reload sockwatch`.",
		}, {
			name: "AcceptQueueFilling",
			expr: `max without (owner) (tcp_listen_backlog / (tcp_listen_backlog_limit > 0)) > 0.8`,
			hold: "2m", severity: "warning",
			summary: `Accept queue {{ $value | humanizePercentage }} full on {{ $labels.host }}: {{ $labels.process }} at {{ $labels.address }} port {{ $labels.port }}`,
			todo:    "Find out why the service does not accept: it hangs or is overloaded. When the queue is full, the kernel drops connections; a larger backlog only delays that.",
		}, {
			name: "OwnerUnreadable",
			expr: `count by (job, instance, host) (tcp_listen_sockets{owner="unreadable"}) > 0`,
			hold: "15m", severity: "info",
			summary: `Listeners on {{ $labels.host }} whose owner sockwatch cannot read: {{ $value }}`,
			todo:    "Grant what the log names: `journalctl -u sockwatch` has the missing capability, or the security module that is in the way. Rules about processes are undecided meanwhile.",
		}, {
			name: "QueueGrowing",
			expr: `sockwatch_output_oldest_queued_seconds > 300 and deriv(sockwatch_output_queue_points[10m]) > 0`,
			hold: "5m", severity: "warning",
			summary: `{{ $labels.output }} on {{ $labels.host }} is {{ $value | humanizeDuration }} behind, and falling further behind`,
			todo:    "Check the destination, which is down or too slow: `journalctl -u sockwatch` has its errors. Nothing is lost before the queue reaches `buffer_limit`.",
		}, {
			name:     "PointsLost",
			expr:     `increase(sockwatch_output_dropped_points_total[15m]) + increase(sockwatch_output_rejected_points_total[15m]) + increase(sockwatch_output_damaged_points_total[15m]) > 0`,
			severity: "warning",
			summary:  `{{ $labels.output }} on {{ $labels.host }} has lost points: dropped, rejected or damaged`,
			todo:     "Rejected points are in `NAME.rejected.jsonl` in the state directory, with the reply of the server. Dropped points did not fit into the queue: raise `buffer_limit`. Damaged ones were in a queue file that is damaged.",
		}, {
			name:     "RuleExpiring",
			expr:     `min by (job, instance, host) (tcp_listen_rules_expires_time_seconds) - time() < 14 * 86400`,
			severity: "info",
			summary:  `The approval of a rule on {{ $labels.host }} {{ if gt $value 0.0 }}ends in {{ $value | humanizeDuration }}{{ else }}has ended{{ end }}`,
			todo:     "Renew the approval, or remove the rule. The log names it. After its last day an allow rule allows nothing.",
		},
	}
}

// firstAlerts returns the rules that README.md shows.
func firstAlerts() []alert {
	var first []alert
	for _, a := range alerts() {
		if a.first {
			first = append(first, a)
		}
	}
	return first
}

// description returns what to do as plain text.
func (a *alert) description() string {
	text := regexp.MustCompile(`\[(.*?)\]\(.*?\)`).ReplaceAllString(a.todo, "docs/$1")
	return strings.ReplaceAll(text, "`", "")
}

// renderRules returns a rule file of Prometheus, with or without descriptions.
func renderRules(alerts []alert, descriptions bool) string {
	var b strings.Builder
	b.WriteString("groups:\n  - name: sockwatch\n    rules:\n")
	for _, a := range alerts {
		fmt.Fprintf(&b, "      - alert: %s\n        expr: %s\n", a.name, quote(a.expr))
		if a.hold != "" {
			fmt.Fprintf(&b, "        for: %s\n", a.hold)
		}
		fmt.Fprintf(&b, "        labels: {severity: %s}\n        annotations:\n          summary: %s\n", a.severity, quote(a.summary))
		if descriptions {
			fmt.Fprintf(&b, "          description: %s\n", quote(a.description()))
		}
	}
	return b.String()
}

// quote returns a YAML scalar in single quotes.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// renderTable returns the table of docs/alerts.md.
func renderTable(alerts []alert) string {
	var b strings.Builder
	b.WriteString("| alert | fires if | after | severity | what to do |\n|---|---|---|---|---|\n")
	for _, a := range alerts {
		fmt.Fprintf(&b, "| %s | `%s` | %s | %s | %s |\n",
			a.name, strings.ReplaceAll(a.expr, "|", `\|`), cmp.Or(a.hold, "at once"), a.severity, a.todo)
	}
	return b.String()
}
