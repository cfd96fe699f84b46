package prometheus

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"

	"sockwatch/agent/metric"
)

// maxPageBytes keeps a page below what scrapers accept: 16 MiB by default
// (VictoriaMetrics' -promscrape.maxScrapeSize). The rest is for HELP, TYPE and the
// program's own metrics.
const maxPageBytes = 15 << 20

// A page is the state of the board as metric families. It is immutable.
type page struct {
	board    []*metric.Batch
	sources  []*source            // in the order of board
	families []*dto.MetricFamily  // sorted by name
	byName   map[string][]*family // the families of the sources
	series   int
	drops    drops
}

// newPage makes the page of a board, from as many points as fit. It reuses the sources
// of the previous page whose points have not changed.
func newPage(board []*metric.Batch, most size, before *page) *page {
	p := &page{board: board, byName: map[string][]*family{}, drops: drops{}}
	for _, b := range board {
		p.sources = append(p.sources, before.source(b))
	}
	for i, n := range fit(p.sources, most) {
		s := p.sources[i]
		s.make(n)
		maps.Copy(p.drops, s.invalid) // no two sources share a kind
		maps.Copy(p.drops, s.drops)
		for _, f := range s.families {
			p.byName[f.GetName()] = append(p.byName[f.GetName()], f)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.byName)) {
		f := p.join(name)
		p.families = append(p.families, f)
		p.series += len(f.Metric)
	}
	return p
}

// source returns the source of a batch: that of this page if its points are equal, else
// a new one.
func (p *page) source(b *metric.Batch) *source {
	if p != nil {
		i := slices.IndexFunc(p.sources, func(s *source) bool { return s.name == b.Source })
		if i >= 0 && p.sources[i].equals(b) {
			return p.sources[i]
		}
	}
	return newSource(b)
}

// fit returns how many points of each source fit on the page. While there are too many,
// the source with the largest part loses its last point, because a batch begins with its
// most important points.
func fit(sources []*source, most size) []int {
	points, parts, total := make([]int, len(sources)), make([]size, len(sources)), size{}
	for i, s := range sources {
		points[i], parts[i], total = len(s.valid), s.size, total.plus(s.size)
	}
	for !total.within(most) {
		largest := 0
		for i, part := range parts {
			if total.series > most.series && part.series > parts[largest].series ||
				total.series <= most.series && part.bytes > parts[largest].bytes {
				largest = i
			}
		}
		points[largest]--
		last := sizeOf(sources[largest].valid[points[largest]])
		parts[largest], total = parts[largest].minus(last), total.minus(last)
	}
	return points
}

// join returns the family with a name. It is the family of one source, unless several
// sources have that name, or its type conflicts with another metric.
func (p *page) join(name string) *dto.MetricFamily {
	parts := p.byName[name]
	f := parts[0]
	if i := slices.IndexFunc(parts, func(f *family) bool { return f.documented }); i >= 0 {
		f = parts[i]
	}
	kind := f.GetType()
	// OpenMetrics calls the counter x_total "x", so there must be no other x.
	if base, ok := strings.CutSuffix(name, "_total"); ok && kind == dto.MetricType_COUNTER && p.byName[base] != nil {
		kind = dto.MetricType_UNTYPED
	}
	if len(parts) == 1 && kind == f.GetType() {
		return f.MetricFamily
	}
	joined := &dto.MetricFamily{Name: &name, Help: f.Help, Type: &kind}
	seen := map[string]bool{}
	for _, part := range parts {
		for _, m := range part.Metric {
			v := cmp.Or(m.GetGauge().GetValue(), m.GetCounter().GetValue(), m.GetUntyped().GetValue())
			if kind == dto.MetricType_COUNTER && math.IsNaN(v) {
				continue // not allowed in OpenMetrics
			}
			key := string(appendLabels(nil, m.Label))
			if seen[key] {
				p.drops.add(dropKind{duplicate, part.source, name}, 1, func() string { return seriesName(name, m.Label) })
				continue
			}
			seen[key] = true
			joined.Metric = append(joined.Metric, newMetric(kind, m.Label, v))
		}
	}
	return joined
}
