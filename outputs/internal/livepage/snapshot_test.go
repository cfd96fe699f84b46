package livepage

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
)

func TestUnchangedListenersKeepTheirRows(t *testing.T) {
	gather := func(points ...metric.Point) []*metric.Batch {
		return []*metric.Batch{{Source: "tcp_listen", Time: at, Points: points}}
	}
	first := newSnapshot(gather(listener(1, "a"), listener(2, "b"), listener(3, "c")), nil)
	for _, test := range []struct {
		name   string
		points []metric.Point
		same   []bool // whether the row of each port is the one of the first snapshot
	}{
		{name: "nothing", points: []metric.Point{listener(1, "a"), listener(2, "b"), listener(3, "c")}, same: []bool{true, true, true}},
		{name: "another order", points: []metric.Point{listener(3, "c"), listener(1, "a"), listener(2, "b")}, same: []bool{true, true, true}},
		{name: "a field", points: []metric.Point{listener(1, "a"), with(listener(2, "b"), "pid", metric.Int(7)), listener(3, "c")}, same: []bool{true, false, true}},
		{name: "one opened", points: []metric.Point{listener(4, "d"), listener(1, "a"), listener(2, "b"), listener(3, "c")}, same: []bool{true, true, true, false}},
		{name: "one closed", points: []metric.Point{listener(1, "a"), listener(3, "c")}, same: []bool{true, true}},
		{name: "another owner", points: []metric.Point{listener(1, "x"), listener(2, "b"), listener(3, "c")}, same: []bool{false, true, true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			next := newSnapshot(gather(test.points...), first)
			var same []bool
			for _, r := range next.rows {
				same = append(same, first.byID[r.ID] == r)
			}
			if diff := cmp.Diff(test.same, same); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestIdentitySurvivesARestartOnly(t *testing.T) {
	p := listener(80, "nginx")
	restarted := with(with(p, "pid", metric.Int(2)), "process_start_time_seconds", metric.Float(1))
	if identity("tcp_listen", &p) != identity("tcp_listen", &restarted) {
		t.Error("a restart changes the identity")
	}
	seen := map[string]bool{identity("tcp_listen", &p): true}
	for _, other := range []struct {
		source string
		point  metric.Point
	}{
		{"tcp_listen-b", p}, {"tcp_listen", listener(81, "nginx")}, {"tcp_listen", listener(80, "apache")},
		{"tcp_listen", listener(80, "nginx", "exposure", "private")},
	} {
		id := identity(other.source, &other.point)
		if seen[id] || len(id) != 32 {
			t.Errorf("%s of %s is not an identity of its own: %s", other.point.Series(), other.source, id)
		}
		seen[id] = true
	}
}

// If filters remove the tags that distinguish listeners, each still has a row, a page and an
// element of its own.
func TestListenersWithTheSameTagsHaveRowsOfTheirOwn(t *testing.T) {
	pid := func(n int64) metric.Point { return with(listener(80, "a"), "pid", metric.Int(n)) }
	var last *snapshot
	for _, pids := range [][]int64{{1, 2, 3}, {1, 2, 3}, {2, 3}, {3, 2}, {4, 3, 2}, {4, 5, 3, 2}, {2}} {
		b := &metric.Batch{Source: "tcp_listen", Time: at}
		for _, n := range pids {
			b.Points = append(b.Points, pid(n))
		}
		last = newSnapshot([]*metric.Batch{b}, last)
		found := map[string]bool{}
		for _, r := range last.byID {
			found[r.Get("pid")] = true
		}
		if len(last.rows) != len(pids) || len(last.byID) != len(pids) || len(found) != len(pids) {
			t.Errorf("pids %v: %d rows with %d IDs of %d listeners", pids, len(last.rows), len(last.byID), len(found))
		}
	}
}

func TestSnapshotIsMadeOncePerBatch(t *testing.T) {
	board := boardOf(listener(80, "nginx"))
	p := pageOf(board)
	first := p.snapshot()
	if p.snapshot() != first {
		t.Error("the same batches are another snapshot")
	}
	board.latest = []*metric.Batch{{Source: "tcp_listen", Time: at.Add(1), Points: board.latest[0].Points}}
	if next := p.snapshot(); next == first || next.rows[0] != first.rows[0] {
		t.Errorf("the next batch with the same points: the snapshot is new: %v, its row is the same: %v", next != first, next.rows[0] == first.rows[0])
	}
}

func TestOnlyListenersAreRows(t *testing.T) {
	violation := metric.Point{Name: "tcp_listen_violation", Tags: metric.NewTags("verdict", "no", "address", "::", "port", "1"), Fields: []metric.Field{{Key: "active", Value: metric.Int(1)}}}
	exporter := metric.Point{Name: "custom_port_exporter", Tags: metric.NewTags("port", "80", "app", "nginx"), Fields: []metric.Field{{Key: "value", Value: metric.Int(1)}}}
	s := newSnapshot(boardOf(violation, listener(80, "nginx"), exporter).latest, nil)
	if diff := cmp.Diff([]string{"0.0.0.0:80"}, addresses(s.rows)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestRowsAreOrderedByPortThenAddress(t *testing.T) {
	s := newSnapshot(boardOf(
		listener(443, "a", "address", "::"), listener(80, "a", "address", "10.0.0.10"), listener(80, "a", "address", "10.0.0.9"), listener(8080, "a"),
		listener(80, "a", "address", "fe80::1%eth0"), listener(80, "a", "address", "0.0.0.0%eth0"), listener(80, "a", "address", "0.0.0.0"),
		listener(80, "a", "address", "0.0.0.0", "netns", "blue"),
	).latest, nil)
	want := []string{"0.0.0.0:80", "0.0.0.0:80", "0.0.0.0%eth0:80", "10.0.0.9:80", "10.0.0.10:80", "[fe80::1%eth0]:80", "[::]:443", "0.0.0.0:8080"}
	if diff := cmp.Diff(want, addresses(s.rows)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
