package otlp

import (
	"testing"

	"sockwatch/agent/metric"
)

// TestEventsReadLikeWatch in cmd/sockwatch compares the sentences of changes with the lines
// of `sockwatch watch`.
func TestSentencesOfRuleEvents(t *testing.T) {
	listener := []string{"address", "::", "family", "dual", "port", "23", "exposure", "public", "process", "in.telnetd", "user", "root"}
	ruled := append([]string{"name", "telnet", "rule", "forbid"}, listener...)
	for _, test := range []struct {
		event metric.Point
		want  string
	}{
		{change("failed", []string{"name", "web", "rule", "expect"}, "why", "nothing listens at 443", "matches", 0), "failed rule web; nothing listens at 443"},
		{change("restored", []string{"name", "web", "rule", "expect"}, "lasted_seconds", 75.0), "restored rule web; lasted 1m15s"},
		{change("violated", ruled, "pid", 5, "verdict", "forbidden", "why", "port 23"), "violated *:23 public in.telnetd[5] root; forbidden by rule telnet; port 23"},
		{change("violated", listener, "verdict", "no"), "violated *:23 public in.telnetd root; not expected"},
		{change("violated", []string{"user", "bob"}, "count", 500, "verdict", "no"), "violated 500 more of user bob; not expected"},
		{change("cleared", listener, "verdict", "no", "lasted_seconds", 5.0, "why", "the listener is gone"), "cleared *:23 public in.telnetd root; lasted 5.0s; not expected; the listener is gone"},
		{change("odd", []string{"a", "b"}), `odd tcp_listen_event{a="b",event="odd"}`},
		{metric.Point{Name: "other", Tags: metric.NewTags("a", "b\x1b")}, `other{a="b\x1b"}`},
		{change("opened", append([]string{"netns", "\u202e"}, listener...)), `opened *:23 public in.telnetd root in netns \xe2\x80\xae`},
	} {
		if got := sentence(&test.event); got != test.want {
			t.Errorf("sentence of %s\n got %q\nwant %q", test.event.Series(), got, test.want)
		}
	}
}
