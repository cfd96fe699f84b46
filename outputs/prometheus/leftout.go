package prometheus

import (
	"fmt"
	"log/slog"
	"strings"
)

// A reason says why something is not on the page.
type reason string

const (
	duplicate reason = "duplicate" // a series that is there already
	folded    reason = "folded"    // more series than max_series, or than scrapers take
	invalid   reason = "invalid"   // a point that breaks its promises
	clash     reason = "clash"     // a tag whose label another tag has; its series are there
)

// counted are the reasons that leave series out.
var counted = [...]reason{duplicate, folded, invalid}

// A leftOut is what a page leaves out, by reason.
type leftOut map[reason]*omission

// An omission counts, and names the first.
type omission struct {
	count                 int
	source, name, example string
}

func (l leftOut) add(r reason, source, name, example string, count int) {
	o := l[r]
	if o == nil {
		o = &omission{source: source, name: name, example: example}
		l[r] = o
	}
	o.count += count
}

// A reporter says what pages leave out: in the counters always, in one line of the
// log where it is news.
type reporter struct{ said map[string]bool }

// maxSaid bounds the reporter's memory; names come from configurations.
const maxSaid = 1000

func (r *reporter) report(l leftOut, own *ownMetrics, log *slog.Logger) {
	if r.said == nil {
		r.said = map[string]bool{}
	}
	var news []any
	for _, why := range [...]reason{duplicate, folded, invalid, clash} {
		o := l[why]
		if o == nil {
			continue
		}
		if why != clash {
			own.leftOut.WithLabelValues(string(why)).Add(float64(o.count))
		}
		key := strings.Join([]string{string(why), o.source, o.name}, "\xff")
		if !r.said[key] && len(r.said) < maxSaid {
			r.said[key] = true
			news = append(news, string(why), fmt.Sprintf("%d, the first: %s, of %s", o.count, o.example, o.source))
		}
	}
	if len(news) > 0 {
		log.Warn("not all that was gathered is on the page", news...)
	}
}
