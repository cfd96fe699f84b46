package livepage

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// detailsTimeout is how long the page of a listener waits for its input.
const detailsTimeout = 5 * time.Second

// A listenerView is the page of one listener.
type listenerView struct {
	Trusted  bool
	Row      *row     // nil: it no longer listens, unless Unknown
	Unknown  bool     // listeners are missing, and it may be one of these
	Later    bool     // they are missing until a gather succeeds
	Missing  []string // without Row: what is missing from the listeners, one sentence each
	Facts    []fact
	Sections []section
	Hidden   bool   // trusted readers see more
	Failed   string // why the details are missing, or ""
	Entries  []*entry
	Events   string // link to all events of its endpoint
	Search   string // link to everything that listens on its endpoint
}

// A section is a part of the details of a listener.
type section struct {
	Title string
	Facts []fact
}

// listener returns the page of the listener with an identity. It may wait for a gather.
func (p *Page) listener(ctx context.Context, id string, trusted bool) *listenerView {
	snap := p.snapshot()
	v := &listenerView{Trusted: trusted, Row: snap.byID[id]}
	if v.Row == nil {
		v.Later, v.Missing = p.complete(snap) != nil, p.missing(snap, trusted)
		v.Unknown = v.Later || len(snap.limited()) > 0
		return v
	}
	point := v.Row.point
	i := slices.IndexFunc(snap.batches, func(b *metric.Batch) bool { return b.Source == v.Row.Source })
	v.Facts = pointFacts(point, trusted, snap.batches[i].Descs)
	v.Hidden = !trusted && v.Row.inner != ""

	details, err := p.readDetails(ctx, v.Row.Source, point)
	if err != nil {
		v.Failed = "The details cannot be read"
		if trusted {
			v.Failed += ": " + err.Error()
		}
	}
	for _, s := range details {
		v.addSection(s)
	}

	search := endpointSearch(point)
	q := parseQuery(url.Values{"q": {search}})
	v.Search, v.Events = searchLink(rootPath, search, "", 0), searchLink(eventsPath, search, "", 0)
	v.Entries = p.timeline().entries(&q, trusted)
	v.Entries = v.Entries[:min(len(v.Entries), pageEntries)]
	return v
}

// readDetails asks the input of a point for its details. Inputs answer maxDetails readers at
// the same time; the others wait.
func (p *Page) readDetails(ctx context.Context, source string, point *metric.Point) ([]plugin.DetailSection, error) {
	ctx, cancel := context.WithTimeout(ctx, detailsTimeout)
	defer cancel()
	select {
	case p.details <- struct{}{}:
		defer func() { <-p.details }()
		return p.board.Details(ctx, source, point)
	case <-ctx.Done():
		return nil, errors.New("too many readers ask for details")
	}
}

// addSection adds what the reader may see of a section.
func (v *listenerView) addSection(s plugin.DetailSection) {
	out := section{Title: s.Title}
	for _, d := range s.Details {
		audience := visibility(d.Name, metric.KindString, true)
		if d.Sensitive {
			audience = min(audience, trustedOnly)
		}
		if audience.includes(v.Trusted) {
			out.Facts = append(out.Facts, fact{Name: d.Name, Value: d.Value})
		} else if audience == trustedOnly {
			v.Hidden = true
		}
	}
	if len(out.Facts) > 0 {
		v.Sections = append(v.Sections, out)
	}
}

// title returns the title of the page.
func (v *listenerView) title() string {
	switch {
	case v.Row != nil:
		return v.Row.Address
	case v.Unknown:
		return "Not known"
	default:
		return "Not listening"
	}
}

// status returns the HTTP status of the page.
func (v *listenerView) status() int {
	switch {
	case v.Row != nil:
		return http.StatusOK
	case v.Later:
		return http.StatusServiceUnavailable
	default:
		return http.StatusNotFound
	}
}
