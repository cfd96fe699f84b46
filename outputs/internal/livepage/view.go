package livepage

import (
	"html/template"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// pageRows is how many rows a page shows, and pageEntries how many entries of the
// timeline are below the table.
const (
	pageRows    = 500
	pageEntries = 20
)

// A view is what one reader sees of the board.
type view struct {
	query
	window  // of the rows
	Trusted bool

	Gathered time.Time // the latest gather; zero: none yet
	Total    int       // listeners
	Left     int       // listeners that match the query
	Rows     []*row    // at most pageRows of them
	Facets   []*facet
	Messages []string // about the query, and about what is missing
	Problems []string // of inputs, outputs and the configuration
	Alerts   []alert  // broken rules
	Entries  []*entry // of the timeline, latest first
	Earlier  int      // matching entries that are not in Entries
}

// A window is the part of a list that a page shows, with links to the parts before and after it.
type window struct {
	first, size, total int
	link               func(from int) string
}

// newWindow returns the window that begins at from, or else the last one.
func newWindow(from, size, total int, link func(from int) string) window {
	return window{min(from, max(0, (total-1)/size*size)), size, total, link}
}

func (w window) end() int { return min(w.total, w.first+w.size) }

// Remaining returns how many elements come after the window.
func (w window) Remaining() int { return w.total - w.end() }

// Previous returns the link to the elements before the window, or "".
func (w window) Previous() string {
	if w.first == 0 {
		return ""
	}
	return w.link(max(0, w.first-w.size))
}

// Next returns the link to the elements after the window, or "".
func (w window) Next() string {
	if w.Remaining() == 0 {
		return ""
	}
	return w.link(w.end())
}

// A facet is a tag or field with a count for each of its values.
type facet struct {
	Key    string
	Values []facetValue
	terms  int  // the index of the query's terms for the key, or -1
	some   bool // a listener has one of the values, even if it does not match
}

// A facetValue is one value of a facet. Its link adds it to the query or removes it.
type facetValue struct {
	Value  string
	Count  int // listeners that match the query without its terms for this key
	Active bool
	Link   string
}

// view returns what a reader sees. trusted readers see everything but arguments.
func (p *Page) view(q query, trusted bool) *view {
	snap, timeline := p.snapshot(), p.timeline()
	keys := snap.knownKeys(timeline, p.board.Sources())
	v := &view{query: q.restrict(keys, trusted), Trusted: trusted, Gathered: snap.gathered(), Total: len(snap.rows)}
	rows := v.selectRows(snap)
	v.Left = len(rows)
	sortRows(rows, v.Sort)
	v.window = newWindow(v.From, pageRows, v.Left, func(from int) string { return searchLink(rootPath, v.Text, v.Sort, from) })
	v.Rows = rows[v.first:v.end()]
	v.Entries = timeline.entries(&v.query, trusted)
	if n := len(v.Entries); n > pageEntries {
		v.Entries, v.Earlier = v.Entries[:pageEntries], n-pageEntries
	}
	v.Alerts = snap.alerts()
	v.Problems = problems(p.board, trusted)
	v.Messages = append(v.messages(), p.missing(snap, trusted)...)
	return v
}

// selectRows returns the rows that match, and counts the values of the facets.
func (v *view) selectRows(snap *snapshot) []*row {
	facets := []*facet{newFacet("exposure", exposures[:], &v.query), newFacet("expected", verdicts[:len(verdicts)-1], &v.query)}
	rows := make([]*row, 0, len(snap.rows))
	for _, r := range snap.rows {
		failed := v.evaluate(&r.searchable, v.Trusted)
		if failed == allMatch {
			rows = append(rows, r)
		}
		for _, f := range facets {
			f.count(r, failed)
		}
	}
	v.Facets = slices.DeleteFunc(facets, func(f *facet) bool { return !f.some })
	return rows
}

// newFacet returns a facet with all values that its key can have.
func newFacet(key string, values []string, q *query) *facet {
	f := &facet{Key: key, terms: slices.IndexFunc(q.terms, func(k keyTerms) bool { return k.key == key })}
	for _, value := range values {
		w := exactly(key, value)
		active := q.has(w)
		f.Values = append(f.Values, facetValue{Value: value, Active: active, Link: searchLink(rootPath, q.toggled(w), q.Sort, 0)})
		f.some = f.some || active
	}
	return f
}

// count counts a row that all terms of the query match, except, perhaps, those for the key
// of the facet. failed is the result of query.evaluate.
func (f *facet) count(r *row, failed int) {
	value := r.Get(f.Key)
	i := slices.IndexFunc(f.Values, func(v facetValue) bool { return v.Value == value })
	if i < 0 {
		return
	}
	f.some = true
	if failed == allMatch || failed == f.terms && f.terms >= 0 {
		f.Values[i].Count++
	}
}

// searchLink returns the URL of a page with a search.
func searchLink(path, search, sort string, from int) string {
	values := url.Values{}
	if search != "" {
		values.Set("q", search)
	}
	if sort != "" {
		values.Set("sort", sort)
	}
	if from > 0 {
		values.Set("from", strconv.Itoa(from))
	}
	if len(values) == 0 {
		return path
	}
	return path + "?" + values.Encode()
}

// Latest returns the latest matching entry of the timeline, or nil.
func (v *view) Latest() *entry {
	if len(v.Entries) == 0 {
		return nil
	}
	return v.Entries[0]
}

// EventsLink returns the link to all events that the query selects.
func (v *view) EventsLink() string { return searchLink(eventsPath, v.Text, "", 0) }

// ClearLink returns the link to all listeners in the same order.
func (v *view) ClearLink() string { return searchLink(rootPath, "", v.Sort, 0) }

// A columnHead is the head of a column: a link that sorts by it.
type columnHead struct {
	Name, Text, Link string
	Order            string // "ascending" or "descending": sorted by this column
}

// Columns returns the heads of the table.
func (v *view) Columns() []columnHead {
	var heads []columnHead
	for _, c := range columns() {
		h := columnHead{Name: c.Name, Text: c.Text}
		next := c.Name
		switch {
		case v.Sort == c.Name || v.Sort == "" && c.Name == defaultSort:
			h.Order, next = "ascending", "-"+c.Name
		case v.Sort == "-"+c.Name:
			h.Order = "descending"
		}
		h.Link = searchLink(rootPath, v.Text, next, 0)
		heads = append(heads, h)
	}
	return heads
}

// parts are the templates of the page that change while it is open, besides rows and
// events. Each is one element whose id is the name of the template. It is rendered from a
// view, and depends on nothing else: as long as nothing changes on the host, it is the same
// text.
var parts = [...]string{"messages", "alerts", "latest", "facets", "count", "more", "earlier", "health", "columns"}

// part renders one of parts.
func (p *Page) part(name string, v *view) (template.HTML, error) { return p.render(name, v) }

// row renders one row: a <tr>.
func (p *Page) row(r *row) (template.HTML, error) {
	r.once.Do(func() { r.html, r.err = p.render("row", r) })
	return r.html, r.err
}
