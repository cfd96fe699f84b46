package livepage

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
)

func rule(kind, name string, up int64) metric.Point {
	return metric.Point{Name: "tcp_listen_expect", Tags: metric.NewTags("rule", kind, "name", name), Fields: []metric.Field{
		{Key: "matches", Value: metric.Int(0)}, {Key: "up", Value: metric.Int(up)}}}
}

func violated(tags ...string) metric.Point {
	return metric.Point{Name: "tcp_listen_violation", Tags: metric.NewTags(tags...), Fields: []metric.Field{{Key: "active", Value: metric.Int(1)}}}
}

func TestBrokenRules(t *testing.T) {
	undecided := rule("expect", "undecided", 0)
	undecided.Fields = undecided.Fields[:1]
	points := []metric.Point{
		violated("verdict", "no", "address", "::", "port", "9", "process", "nc", "user", "bob", "exposure", "public"),
		rule("expect", "web", 1), rule("expect", "db", 0), undecided, rule("forbid", "telnet", 0),
		violated("verdict", "forbidden", "rule", "telnet", "address", "0.0.0.0", "port", "23", "exposure", "private"),
		violated("verdict", "no", "user", "bob"),
		listener(80, "nginx"),
	}
	want := []alert{
		{Kind: "missing", Text: "rule db: expected listener not found", Link: "/events?q=db"},
		{Kind: "forbidden", Text: "0.0.0.0:23 no known process (rule telnet), exposure private", Link: "/?q=port%3A23+address%3A0.0.0.0"},
		{Kind: "unexpected", Text: "[::]:9 nc, bob, exposure public", Link: "/?q=port%3A9+address%3A%3A%3A"},
		{Kind: "unexpected", Text: "more of user bob", Link: "/?q=user%3Abob"},
	}
	if diff := cmp.Diff(want, newSnapshot(boardOf(points...).latest, nil).alerts()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestManyAlertsOfAKindSayHowManyMoreThereAre(t *testing.T) {
	var points []metric.Point
	for i := range 25 {
		points = append(points, violated("verdict", "no", "address", "::", "port", fmt.Sprint(i)))
	}
	points = append(points, rule("expect", "db", 0))
	alerts := newSnapshot(boardOf(points...).latest, nil).alerts()
	want := []alert{{Kind: "unexpected", Text: "15 more", Link: "/?q=expected%3Ano"}}
	if diff := cmp.Diff(want, alerts[11:]); diff != "" || alerts[0].Kind != "missing" {
		t.Errorf("%+v first; the rest (-want +got):\n%s", alerts[0], diff)
	}
}
