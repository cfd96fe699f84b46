package livepage

import "html/template"

// pageRows is how many rows a page shows.
const pageRows = 500

// A view is what one reader sees of the board.
type view struct {
	query
	Trusted bool
	page    *Page

	Total    int    // listeners
	Left     int    // listeners that match the query
	Rows     []*row // at most pageRows of them, from the row query.From on
	Facets   []facet
	Messages []string // about the query, and about sources that are missing
	Alerts   []alert  // rules that do not hold
	Entries  []*entry // of the timeline, latest first
	Earlier  int      // matching entries that are not in Entries
	Problems []string // of inputs, outputs and the configuration
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

// view returns what a reader sees. trusted readers may see everything but arguments.
func (p *Page) view(q query, trusted bool) *view {
	return &view{query: q, Trusted: trusted, page: p}
}

// parts are the templates of the page that change while it is open, besides rows and
// events. Each is one element whose id is the name of the template. It is rendered from a
// view, and depends on nothing else: as long as nothing changes on the host, it is the same
// text.
var parts = [...]string{"messages", "alerts", "facets", "count", "more", "health", "columns"}

// part renders one of parts.
func (p *Page) part(name string, v *view) (template.HTML, error) { return p.render(name, v) }

// row renders one row: a <tr>.
func (p *Page) row(r *row) (html template.HTML, err error) {
	r.once.Do(func() { r.html, err = p.render("row", r) })
	return r.html, err
}
