package push

import (
	"maps"
	"net/http"
	"slices"
	"strings"
)

// timeTexts are the words with which databases refuse samples because of their times.
var timeTexts = []string{
	// Prometheus
	"out of order sample", "out of bounds", "too old sample", "duplicate sample for timestamp",
	// Grafana Mimir and Grafana Cloud
	"err-mimir-sample-timestamp-too-old", "err-mimir-sample-out-of-order", "err-mimir-sample-duplicate-timestamp",
	"err-mimir-sample-out-of-bounds", "a sample whose timestamp is too far in the future", "a sample whose timestamp is too far in the past",
	// Cortex and Amazon Managed Prometheus
	"sample timestamp out of order", "sample with repeated timestamp but different value", "timestamp too old", "timestamp too new",
}

// RefusesTimes reports whether an answer with a status and a text says that samples are too
// old, too new, out of order or duplicate: sending them again, alone or with others, does
// not help. Thanos says no more than "conflict", with a status that it uses for nothing else.
func RefusesTimes(status int, text string) bool {
	text = ownWords(text)
	switch status {
	case http.StatusConflict:
		return true
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		return slices.ContainsFunc(timeTexts, func(t string) bool { return strings.Contains(text, t) })
	case http.StatusInternalServerError: // Prometheus 2.39 to 2.54 with an out-of-order window
		return strings.TrimSpace(text) == "too old sample"
	default:
		return false
	}
}

// ownWords returns a text up to the first series or quote in it: a label may contain any
// words.
func ownWords(text string) string {
	if i := strings.IndexAny(text, "{\"'`"); i >= 0 {
		return text[:i]
	}
	return text
}

// An Unanswered is how many bytes of records, from the oldest queued one on, a server may have
// stored without an answer that has arrived. Records are sent in the order of the queue: if
// the server stores one, it does not yet have those behind it.
type Unanswered int

// Failed is called when records of a size were sent, and no answer says what became of them.
func (u *Unanswered) Failed(size int) { *u = max(*u, Unanswered(size)) }

// Rejected is called when the server has rejected all records of a request.
func (u *Unanswered) Rejected(size int) { *u = max(0, *u-Unanswered(size)) }

// Stored is called when the server has stored records of a request.
func (u *Unanswered) Stored() { *u = 0 }

// ByTime splits records, given by their indexes, into groups of the same time, the earliest
// first. Outputs send each group by itself if a request is refused that repeats one without
// an answer, or one from before a restart: its older samples may be stored already, and
// Prometheus stores nothing of a request (of version 1.0) that has a sample older than the
// latest of its series. All newer samples would be lost.
func ByTime(indexes []int, timeOf func(int) int64) [][]int {
	groups := map[int64][]int{}
	for _, i := range indexes {
		t := timeOf(i)
		groups[t] = append(groups[t], i)
	}
	split := make([][]int, 0, len(groups))
	for _, t := range slices.Sorted(maps.Keys(groups)) {
		split = append(split, groups[t])
	}
	return split
}
