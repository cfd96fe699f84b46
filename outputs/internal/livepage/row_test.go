package livepage

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestRowSaysWhyItHasNoProcess, and leads to the reason if sockwatch may not read it.
func TestRowSaysWhyItHasNoProcess(t *testing.T) {
	got := map[string][]string{}
	for _, owner := range []string{"resolved", "none", "pending", "exited", "unreadable", ""} {
		process := ""
		if owner == "resolved" {
			process = "nginx"
		}
		for _, e := range parse(t, body(t, get(pageOf(boardOf(listener(80, process, "owner", owner))), "/"))) {
			if e.Data == "td" && attribute(e, "class") == "process" {
				got[owner] = []string{textOf(e), attribute(e.FirstChild, "href")}
			}
		}
	}
	want := map[string][]string{
		"resolved": {"nginx 1080", ""}, "none": {"no process", ""}, "pending": {"owner pending", ""}, "exited": {"owner exited", ""},
		"unreadable": {"owner unreadable", "/health#limits"}, "": {"unknown", ""},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("text and link of the cell (-want +got):\n%s", diff)
	}
}
