package livepage

import (
	"html/template"
	"net/url"
	"slices"
	"strconv"
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
	Trusted bool

	Total    int    // listeners
	Left     int    // listeners that match the query
	Rows     []*row // at most pageRows of them, from the row query.From on
	Facets   []facet
	Messages []string // about the query, and about what is missing
	Problems []string // of inputs, outputs and the configuration
	Alerts   []alert  // broken rules
	Entries  []*entry // of the timeline, latest first
	Earlier  int      // matching entries that are not in Entries
}

// A facet is a tag with a count for each of its values.
type facet struct {
	Key    string
	Values []facetValue
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
	v := &view{query: q.restrict(keys, trusted), Trusted: trusted, Total: len(snap.rows)}
	rows := v.selectRows(snap)
	v.Left = len(rows)
	sortRows(rows, v.Sort)
	v.From = min(v.From, max(0, (v.Left-1)/pageRows*pageRows))
	v.Rows = rows[v.From:min(v.Left, v.From+pageRows)]
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
	facets := newFacets(&v.query)
	rows := make([]*row, 0, len(snap.rows))
	for _, r := range snap.rows {
		failed := v.evaluate(&r.searchable, v.Trusted)
		if failed == allMatch {
			rows = append(rows, r)
		}
		for i := range facets {
			facets[i].count(r, failed)
		}
	}
	for _, f := range facets {
		v.Facets = append(v.Facets, f.facet(&v.query)...)
	}
	return rows
}

// A facetCounter counts the values of one facet.
type facetCounter struct {
	key    string
	values []string // all that it can have
	terms  int      // the index of the query's terms for the key, or -1
	counts []int
	some   bool // a listener has one of the values, even if it does not match
}

func newFacets(q *query) []*facetCounter {
	facets := []*facetCounter{
		{key: "exposure", values: exposures[:]},
		{key: "expected", values: verdicts[:len(verdicts)-1]},
	}
	for _, f := range facets {
		f.terms = slices.IndexFunc(q.terms, func(k keyTerms) bool { return k.key == f.key })
		f.counts = make([]int, len(f.values))
	}
	return facets
}

// count counts a row that all terms of the query match, except, perhaps, those for the key
// of the facet. failed is the result of query.evaluate.
func (f *facetCounter) count(r *row, failed int) {
	i := slices.Index(f.values, r.Get(f.key))
	if i < 0 {
		return
	}
	f.some = true
	if failed == allMatch || failed == f.terms && f.terms >= 0 {
		f.counts[i]++
	}
}

// facet returns the facet with its links, or nothing if no listener has a value.
func (f *facetCounter) facet(q *query) []facet {
	values := make([]facetValue, 0, len(f.values))
	for i, value := range f.values {
		w := exactly(f.key, value)
		active := q.has(w)
		f.some = f.some || active
		values = append(values, facetValue{value, f.counts[i], active, searchLink(rootPath, q.toggled(w), q.Sort, 0)})
	}
	if !f.some {
		return nil
	}
	return []facet{{f.key, values}}
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

// Previous and Next return the links to the rows before and after those that are shown,
// or "".
func (v *view) Previous() string {
	if v.From == 0 {
		return ""
	}
	return searchLink(rootPath, v.Text, v.Sort, max(0, v.From-pageRows))
}

// Next: see Previous.
func (v *view) Next() string {
	if v.Remaining() == 0 {
		return ""
	}
	return searchLink(rootPath, v.Text, v.Sort, v.From+pageRows)
}

// Remaining returns how many matching rows come after those that are shown.
func (v *view) Remaining() int { return v.Left - v.From - len(v.Rows) }

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
