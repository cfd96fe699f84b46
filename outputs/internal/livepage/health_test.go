package livepage

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// ill is a board on which everything has a problem.
func ill() *fakeBoard {
	board := boardOf(listener(80, "nginx"))
	board.latest = append([]*metric.Batch{{Source: "sockwatch", Time: at, Points: []metric.Point{
		{Name: "sockwatch_build_info", Tags: metric.NewTags("version", "1.2.3"), Fields: []metric.Field{{Key: "value", Value: metric.Int(1)}}}}}}, board.latest...)
	board.sources[0].Limits = []string{"no CAP_SYS_PTRACE: owners of other users are unreadable"}
	board.sources = append([]plugin.SourceState{{Name: "cpu", Gathered: true, Err: errorText("no cpu"), Since: at}}, board.sources...)
	board.sources = append(board.sources, plugin.SourceState{Name: "z"})
	board.health = plugin.Health{
		Outputs: []plugin.OutputState{
			{Name: "influxdb", Since: at, Err: errorText("connection refused"), QueuedPoints: 12, QueuedBytes: 3456, OldestQueued: at, WrittenPoints: 7, DroppedPoints: 5, RejectedPoints: 3, DamagedPoints: 1},
			{Name: "prometheus", Endpoint: true, Since: at},
		},
		Config: plugin.ConfigState{Loaded: at, Err: errorText("line 3"), Failed: at},
	}
	return board
}

func TestProblemsAreOnThePageOfListeners(t *testing.T) {
	want := []string{
		"Input cpu has failed since 2026-11-22 10:00:00",
		"Output influxdb has failed since 2026-11-22 10:00:00",
		"The reload of the configuration failed at 2026-11-22 10:00:00, the previous one is in use",
	}
	p := pageOf(ill())
	if diff := cmp.Diff(want, p.view(search(""), false).Problems); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for i, reason := range []string{": no cpu", ": connection refused", ": line 3"} {
		want[i] += reason
	}
	if diff := cmp.Diff(want, p.view(search(""), true).Problems); diff != "" {
		t.Errorf("trusted (-want +got)\n%s", diff)
	}
	healthy := byID(t, parse(t, body(t, get(pageOf(five()), "/"))), "health")
	if attribute(healthy, "class") != "good" || textOf(healthy) != "healthy" {
		t.Errorf("without problems the page says %q (%s)", textOf(healthy), attribute(healthy, "class"))
	}
}

func TestPageOfTheAgent(t *testing.T) {
	var rows [][]string
	elements := parse(t, body(t, get(pageOf(ill()), "/health", "Authorization", "x")))
	for _, e := range elements {
		if e.Data != "tr" || e.Parent.Data != "tbody" {
			continue
		}
		var cells []string
		for c := range e.ChildNodes() {
			if c.Data == "td" || c.Data == "th" {
				cells = append(cells, textOf(c))
			}
		}
		rows = append(rows, cells)
	}
	const time = "2026-11-22 10:00:00"
	want := [][]string{
		{"cpu", "failed: no cpu", time, "", "0", ""},
		{"tcp_listen", "up", time, time, "1", ""},
		{"z", "has not gathered yet", "", "", "0", ""},
		{"influxdb", "failed: connection refused", time, "12", "3456", time, "7", "5", "3", "1"},
		{"prometheus", "up", time, "answers requests, has no queue"},
	}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if got, want := textOf(byID(t, elements, "limits")), "What cannot be seen tcp_listen no CAP_SYS_PTRACE: owners of other users are unreadable"; got != want {
		t.Errorf("limits: %q, want %q", got, want)
	}
	if page := body(t, get(pageOf(ill()), "/health")); !strings.Contains(page, "sockwatch 1.2.3.") || !strings.Contains(page, "<p>1 limit</p>") {
		t.Errorf("without the version, or the number of limits:\n%s", page)
	}
}

func TestPageWithoutAVersionNamesTheProgram(t *testing.T) {
	page := body(t, get(pageOf(boardOf(listener(80, "nginx"))), "/")) // a filter may drop build_info
	if want := "<footer><p>sockwatch. Times are in UTC.</p></footer>"; !strings.Contains(page, want) {
		t.Errorf("no %q in\n%s", want, page)
	}
}

func TestHealthPageSaysHowListenersAreFound(t *testing.T) {
	board := boardOf(listener(80, "nginx"),
		metric.Point{Name: "tcp_listen_source", Tags: metric.NewTags("listen_events", "on", "listener_source", "netlink", "owner_source", "bpf"),
			Fields: []metric.Field{{Key: "info", Value: metric.Int(1)}, {Key: "lost_events_total", Value: metric.Uint(7)}}})
	methods := byID(t, parse(t, body(t, get(pageOf(board), "/health"))), "methods")
	if got, want := textOf(methods), "Input Listeners Owners Listen events Lost events tcp_listen netlink bpf on 7"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if page := body(t, get(pageOf(boardOf(listener(80, "nginx"))), "/health")); strings.Contains(page, "How listeners are found") {
		t.Errorf("without a point that says it, it is on the page:\n%s", page)
	}
}
