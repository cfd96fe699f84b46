package livepage

import (
	"fmt"
	"strings"
	"testing"
)

// TestEveryEventIsOnThePageOfChanges: the page of listeners has the latest, and says how
// many more there are.
func TestEveryEventIsOnThePageOfChanges(t *testing.T) {
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
