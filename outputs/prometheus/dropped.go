package prometheus

import (
	"cmp"
	"log/slog"
	"maps"
	"slices"
)

// A dropReason is why something is not on the page.
type dropReason string

const (
	duplicate dropReason = "duplicate"  // a series that is already on the page
	maxSeries dropReason = "max_series" // more series than max_series, or more bytes than scrapers accept
	invalid   dropReason = "invalid"    // a point that fails metric.Point.Check
	clash     dropReason = "label_name" // a tag whose label name belongs to another tag; its series are on the page
)

// dropReasons are the reasons for which series are dropped and counted.
var dropReasons = [...]dropReason{duplicate, maxSeries, invalid}

// A dropKind is logged once. It is one name of one source, dropped for one reason.
type dropKind struct {
	reason       dropReason
	source, name string
}

// A drop counts the dropped series of one kind, and names the first.
type drop struct {
	count int
	first string
}

// drops counts what a page drops, by kind.
type drops map[dropKind]drop

// add counts n more series. It calls first only for the first of a kind.
func (d drops) add(kind dropKind, n int, first func() string) {
	before, ok := d[kind]
	if !ok {
		before.first = first()
	}
	before.count += n
	d[kind] = before
}

// count returns the number of series that were dropped for a reason.
func (d drops) count(why dropReason) (n int) {
	for kind, drop := range d {
		if kind.reason == why {
			n += drop.count
		}
	}
	return n
}

// maxLogged bounds the memory for kinds that were logged.
const maxLogged = 1000

// log logs each kind that is not in logged yet.
func (d drops) log(log *slog.Logger, logged map[dropKind]bool) {
	kinds := slices.SortedFunc(maps.Keys(d), func(a, b dropKind) int {
		return cmp.Or(cmp.Compare(a.source, b.source), cmp.Compare(a.name, b.name), cmp.Compare(a.reason, b.reason))
	})
	for _, k := range kinds {
		if !logged[k] && len(logged) < maxLogged {
			logged[k] = true
			log.Warn("dropped series or tags from the page", "reason", string(k.reason), "source", k.source, "name", k.name, "count", d[k].count, "first", d[k].first)
		}
	}
}
