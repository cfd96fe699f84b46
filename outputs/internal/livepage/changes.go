package livepage

// changesEntries is how many entries the page of changes shows at once.
const changesEntries = 200

// A changesView is the page of all changes.
type changesView struct {
	query
	Total   int // entries that match
	Entries []*entry
}

// changes returns the page of all changes that a query selects.
func (p *Page) changes(q query, trusted bool) *changesView {
	snap, t := p.snapshot(), p.timeline()
	v := &changesView{query: q.restrict(snap.knownKeys(t, p.board.Sources()), trusted)}
	all := t.entries(&v.query, trusted)
	v.Total = len(all)
	v.From = min(v.From, max(0, (v.Total-1)/changesEntries*changesEntries))
	v.Entries = all[v.From:min(v.Total, v.From+changesEntries)]
	return v
}

// Messages returns what is ignored of the search.
func (v *changesView) Messages() []string { return v.messages() }

// Later and Earlier return the links to the entries after and before those that are shown,
// or "".
func (v *changesView) Later() string {
	if v.From == 0 {
		return ""
	}
	return searchLink(eventsPath, v.Text, "", max(0, v.From-changesEntries))
}

// Earlier: see Later.
func (v *changesView) Earlier() string {
	if v.From+len(v.Entries) == v.Total {
		return ""
	}
	return searchLink(eventsPath, v.Text, "", v.From+changesEntries)
}
