package livepage

import "net/url"

// A query is what a reader asks for: which listeners and events, in which order, from
// which one on.
type query struct {
	Text  string // of the search box
	Sort  string // name of a column, with "-" before it: descending; "": by port
	From  int    // index of the first row
	terms []term
}

// A term is one condition of the search box.
type term struct {
	key     string // "": free text
	text    string // as typed
	exclude bool
}

// parseQuery parses the parameters q, sort and from. It never fails: what it does not
// understand becomes a message of the view.
func parseQuery(values url.Values) query {
	return query{Text: values.Get("q"), Sort: values.Get("sort")}
}
