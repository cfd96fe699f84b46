package livepage

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sockwatch/agent/metric"
)

// A timeline is the events of the board, latest first. It never changes.
type timeline struct {
	board  []metric.Point // that it was made from
	events []*event
	keys   map[string]audience // of tags and fields of all events
}

// An event is one event of the board as a query sees it.
type event struct {
	searchable
	cause string // events with the same cause are one entry; "": it is alone
}

// timeline returns the timeline of the board's events. It is the same pointer until there
// is a new event.
func (p *Page) timeline() *timeline {
	board := p.board.Events()
	return p.timelines.get(
		func(last *timeline) bool { return sameEvents(last.board, board) },
		func(last *timeline) *timeline { return newTimeline(board, last) })
}

// sameEvents reports whether two results of Board.Events are the same.
func sameEvents(a, b []metric.Point) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.EqualFunc(a, b, sameEvent))
}

func sameEvent(a, b metric.Point) bool { return a.Time.Equal(b.Time) && same(&a, &b) }

// newTimeline returns the timeline of events. The order is that of their times: an event
// that was published late comes where it belongs.
func newTimeline(board []metric.Point, last *timeline) *timeline {
	t := &timeline{board: board, events: make([]*event, len(board)), keys: map[string]audience{}}
	if last == nil {
		last = &timeline{}
	}
	known := make(map[*metric.Point]*event, len(last.events))
	for _, e := range last.events {
		known[e.point] = e
	}
	for i := range board {
		e := known[&board[i]]
		if e == nil {
			e = newEvent(&board[i])
		}
		t.events[len(board)-1-i] = e
		addKeys(t.keys, e.point)
	}
	slices.SortStableFunc(t.events, func(a, b *event) int { return b.point.Time.Compare(a.point.Time) })
	return t
}

func newEvent(p *metric.Point) *event {
	e := &event{searchable: newSearchable(p)}
	if isAbout(p) {
		e.lower += strings.ToLower(hostPort(p.Tag("address"), p.Tag("port"))) + "\n"
	}
	if p.Tag("event") == "exposure_changed" && fieldText(p, "cause") == "host_address" {
		e.cause = fmt.Sprintf("%s was %s", p.Tag("exposure"), fieldText(p, "previous_exposure"))
	}
	return e
}

// isAbout reports whether an event is about one listener.
func isAbout(p *metric.Point) bool { return p.Tag("address") != "" && p.Tag("port") != "" }

// sameCause is how far the times of events may be apart that have one cause: those of one
// gather differ by nanoseconds.
const sameCause = time.Second

// entries returns the entries of the events that a query selects, latest first.
func (t *timeline) entries(q *query, trusted bool) (entries []*entry) {
	byCause := map[string]*entry{} // the last one
	for _, e := range t.events {
		if !q.matches(&e.searchable, trusted) {
			continue
		}
		if other := byCause[e.cause]; other != nil && e.cause != "" && other.Time().Sub(e.point.Time) <= sameCause {
			other.events = append(other.events, e)
			continue
		}
		entry := &entry{events: []*event{e}, trusted: trusted}
		entries = append(entries, entry)
		byCause[e.cause] = entry
	}
	return entries
}
