package livepage

// changesEntries is how many entries the page of changes shows at once.
const changesEntries = 200

// A changesView is the page of all changes.
type changesView struct {
	query
	window
	Total   int // entries that match
	Entries []*entry
	missing []string // why nothing is known to have changed, one sentence each
}

// changes returns the page of all changes that a query selects.
func (p *Page) changes(q query, trusted bool) *changesView {
	snap, t := p.snapshot(), p.timeline()
	v := &changesView{query: q.restrict(snap.knownKeys(t, p.board.Sources()), trusted)}
	all := t.entries(&v.query, trusted)
	v.Total = len(all)
	v.window = newWindow(v.From, changesEntries, v.Total, func(from int) string { return searchLink(eventsPath, v.Text, "", from) })
	v.Entries = all[v.first:v.end()]
	if len(t.events) == 0 && p.complete(snap) != nil {
		v.missing = p.missing(snap, trusted)
	}
	return v
}

// Messages returns what is ignored of the search, and what is missing.
func (v *changesView) Messages() []string { return append(v.messages(), v.missing...) }
