package livepage

import (
	"fmt"
	"strings"
	"testing"

	"sockwatch/agent/metric"
)

// TestEveryEventIsOnThePageOfChanges: the page of listeners has the latest, and says how
// many more there are.
func TestEveryEventIsOnThePageOfChanges(t *testing.T) {
	t.Parallel()
	const n = 450
	board := boardOf(listener(1, "a"))
	for i := range n {
		board.events = append(board.events, change(float64(i), "opened", []string{"address", "0.0.0.0", "port", fmt.Sprint(1 + i%2), "process", "x"}, "sequence", fmt.Sprint(i)))
	}
	p := pageOf(board)
	main := parse(t, body(t, get(p, "/?q=port:1")))
	if got, want := textOf(byID(t, main, "earlier")), "205 earlier"; got != want {
		t.Errorf("the page of listeners says %q, want %q", got, want)
	}
	for search, want := range map[string]int{"": n, "port:1": n / 2, "event:closed": 0} {
		seen := map[string]bool{}
		for link := "/events?q=" + search; link != ""; {
			elements := parse(t, body(t, get(p, link)))
			link = ""
			for _, e := range elements {
				if id := attribute(e, "id"); e.Data == "li" && strings.HasPrefix(id, "e-") {
					seen[id] = true
				}
				if attribute(e, "rel") == "next" {
					link = attribute(e, "href")
				}
			}
		}
		if len(seen) != want {
			t.Errorf("%q: %d changes, want %d", search, len(seen), want)
		}
	}
}

// TestLatestChangeIsAboveTheTable, because what changed comes after up to 500 rows.
func TestLatestChangeIsAboveTheTable(t *testing.T) {
	board := boardOf(listener(443, "nginx"))
	if text := textOf(byID(t, parse(t, body(t, get(pageOf(board), "/"))), "latest")); text != "" {
		t.Errorf("without changes: %q", text)
	}
	board.events = []metric.Point{change(1, "opened", web), change(2, "closed", []string{"address", "::", "port", "53", "process", "dns"})}
	want := "Latest change 2026-11-22 10:00:02 closed [::]:53 dns"
	if text := textOf(byID(t, parse(t, body(t, get(pageOf(board), "/"))), "latest")); text != want {
		t.Errorf("%q, want %q", text, want)
	}
}

// The first gather recalls the changes from before the start.
func TestChangesBeforeTheFirstGatherAreNotKnown(t *testing.T) {
	for _, test := range []struct {
		name  string
		board *fakeBoard
		want  string
	}{
		{name: "starting", board: &fakeBoard{}, want: "Nothing has been gathered yet."},
		{name: "gathered", board: boardOf(listener(443, "nginx"))},
	} {
		if text := textOf(byID(t, parse(t, body(t, get(pageOf(test.board), "/events"))), "messages")); text != test.want {
			t.Errorf("%s: messages %q, want %q", test.name, text, test.want)
		}
	}
}
