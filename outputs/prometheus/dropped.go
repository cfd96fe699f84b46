package prometheus

import (
	"fmt"
	"log/slog"
	"strings"
)

// A dropReason is why something is not on the page.
type dropReason string

const (
	duplicate dropReason = "duplicate"  // a series that the page has already
	maxSeries dropReason = "max_series" // more series than max_series, or more bytes than scrapers take
	invalid   dropReason = "invalid"    // a point that breaks the promises of metric.Point
	clash     dropReason = "clash"      // a tag whose label name another tag has; its series are on the page
)

// dropReasons are the reasons that drop series, which are counted.
var dropReasons = [...]dropReason{duplicate, maxSeries, invalid}

// drops is what a page drops, by reason.
type drops map[dropReason]*drop

// A drop counts, and names the first.
type drop struct {
	count                 int
	source, name, example string
}

// add counts one more drop of n series. example is called for the first alone.
func (d drops) add(why dropReason, n int, source, name string, example func() string) {
	if d[why] == nil {
		d[why] = &drop{source: source, name: name, example: example()}
	}
	d[why].count += n
}

// join adds what another part of the page drops.
func (d drops) join(other drops) {
	for why, o := range other {
		d.add(why, o.count, o.source, o.name, func() string { return o.example })
	}
}

// A dropLog logs what pages drop, each kind once.
type dropLog struct{ logged map[string]bool }

// maxLogged bounds the memory of a dropLog. Names come from configurations.
const maxLogged = 1000

func (l *dropLog) log(d drops, log *slog.Logger) {
	if l.logged == nil {
		l.logged = map[string]bool{}
	}
	var attrs []any
	for _, why := range [...]dropReason{duplicate, maxSeries, invalid, clash} {
		o := d[why]
		if o == nil {
			continue
		}
		key := strings.Join([]string{string(why), o.source, o.name}, "\xff")
		if !l.logged[key] && len(l.logged) < maxLogged {
			l.logged[key] = true
			attrs = append(attrs, string(why), fmt.Sprintf("%d, the first: %s, of %s", o.count, o.example, o.source))
		}
	}
	if len(attrs) > 0 {
		log.Warn("the page does not show all that was gathered", attrs...)
	}
}
