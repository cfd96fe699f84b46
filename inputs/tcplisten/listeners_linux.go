package tcplisten

import (
	"context"
	"slices"

	"sockwatch/inputs/internal/changes"
	"sockwatch/inputs/internal/inet"
	"sockwatch/inputs/internal/netns"
)

// A listenerSet holds the listeners of all network namespaces.
type listenerSet struct {
	tables  []*table // one for each namespace, the host's first
	ended   []*table // of the namespaces that have ended since the last gather
	all     []*listener
	changed bool // listeners were added or removed since the last describe

	usersVersion uint32 // grows when the name of a user changes
}

// A table holds the listeners of one network namespace.
type table struct {
	ns         *netns.Namespace
	name       string // ns.Name() in this gather
	byCookie   map[uint64]*listener
	source     netns.Source // of the last successful listing
	failed     bool         // a listing of this gather failed: new listeners may be missing
	generation uint64       // of the last listing
	seen       int          // number of listeners that the last listing has seen
	pass       uint64       // number of the last pass; each listing has several
	seenByPass int          // number of listeners that the last pass has seen
	scan       uint64       // number of the last scan
	local      *netns.Local // its addresses; nil until they have been read

	established map[*listener]int // number of connections; nil if they are not counted
}

// begin starts a gather of the namespaces, with a table for each.
func (ls *listenerSet) begin(namespaces []*netns.Namespace) {
	ls.ended = nil
	if !slices.EqualFunc(ls.tables, namespaces, func(t *table, ns *netns.Namespace) bool { return t.ns == ns }) {
		ls.replaceTables(namespaces)
	}
	for _, t := range ls.tables {
		t.name, t.failed = t.ns.Name(), false
	}
}

// replaceTables adds tables for new namespaces and removes those of namespaces that have
// ended, whose listeners are missing from now on.
func (ls *listenerSet) replaceTables(namespaces []*netns.Namespace) {
	before := make(map[*netns.Namespace]*table, len(ls.tables))
	for _, t := range ls.tables {
		before[t.ns] = t
	}
	ls.tables = make([]*table, 0, len(namespaces))
	for _, ns := range namespaces {
		t := before[ns]
		if t == nil {
			t = newTable(ns)
		}
		delete(before, ns)
		ls.tables = append(ls.tables, t)
	}
	for _, t := range before {
		t.generation++
		ls.ended = append(ls.ended, t)
	}
}

func newTable(ns *netns.Namespace) *table {
	return &table{ns: ns, name: ns.Name(), byCookie: make(map[uint64]*listener)}
}

// byNamespace returns the tables by the inode numbers of their namespaces.
func (ls *listenerSet) byNamespace() map[uint64]*table {
	tables := make(map[uint64]*table, len(ls.tables)+len(ls.ended))
	for _, t := range slices.Concat(ls.ended, ls.tables) {
		tables[t.ns.Inode()] = t
	}
	return tables
}

// gathered records that a gather has succeeded.
func (ls *listenerSet) gathered() {
	for _, l := range ls.all {
		l.isNew = false
	}
}

// maxPasses limits how often list reads the sockets if listeners never stop opening and
// closing. A socket is skipped by one pass in some twenty in the worst case.
const maxPasses = 8

// list calls observe for each listening socket of the namespace; observe marks the
// listeners that are open. If listeners have opened or closed, the kernel may have
// skipped others. Then list reads the sockets again, in other pieces, until a pass finds all
// that the passes before have found, and nothing new. After an error the listeners stay as
// they were; a namespace that has ended has none.
func (t *table) list(ctx context.Context, observe func(*table, *inet.Socket)) (source netns.Source, err error) {
	known := len(t.byCookie)
	t.beginListing()
	begin := t.beginListing // again if the first pass has to begin again
	for pass, stable := 0, false; !stable && pass < maxPasses; pass++ {
		seen := t.seen
		source, err = t.ns.Dump(ctx, netns.Listen, pass, begin, func(s *inet.Socket) { observe(t, s) })
		if err != nil && t.ns.Gone() {
			t.beginListing()
			return source, nil
		}
		if err != nil {
			t.keepAll()
			return source, err
		}
		stable = t.seen == seen && t.seenByPass == seen
		if pass == 0 {
			stable = t.seen == known && len(t.byCookie) == known
			begin = t.beginPass // a listener that any pass has seen is open
		}
	}
	return source, nil
}

func (t *table) beginListing() {
	t.generation, t.seen = t.generation+1, 0
	t.beginPass()
}

func (t *table) beginPass() { t.pass, t.seenByPass = t.pass+1, 0 }

// keepAll marks all listeners as open, since the listing failed.
func (t *table) keepAll() {
	for _, l := range t.byCookie {
		l.generation = t.generation
	}
	t.seen = len(t.byCookie)
}

// mark records that a listener is open, and the current state of its socket.
func (t *table) mark(l *listener, s *inet.Socket) {
	if l.generation != t.generation {
		l.generation = t.generation
		t.seen++
	}
	if l.pass != t.pass { // a pass may list a socket twice
		l.pass = t.pass
		t.seenByPass++
	}
	l.socket = *s
}

// ofNamespace returns the words that name the namespace in a note, "" for the host's.
func (t *table) ofNamespace() string {
	if t.ns.Host() {
		return ""
	}
	return " of netns " + t.name
}

// readAddresses reads the namespace's addresses if they may have changed.
func (t *table) readAddresses(ctx context.Context) error {
	local, err := t.ns.Local(ctx)
	if err == nil {
		t.local = local
	}
	return err
}

// isOpen reports whether a listener with that cookie was found by the last listing, in any
// namespace.
func (ls *listenerSet) isOpen(cookie uint64) bool {
	return slices.ContainsFunc(ls.tables, func(t *table) bool { return t.byCookie[cookie] != nil })
}

// add adds a new listener.
func (ls *listenerSet) add(l *listener) {
	l.table.byCookie[l.socket.Cookie] = l
	ls.all, ls.changed = append(ls.all, l), true
}

// remove forgets the listeners for which gone returns true, and calls removed for each.
func (ls *listenerSet) remove(gone func(*listener) bool, removed func(*listener)) {
	ls.all = slices.DeleteFunc(ls.all, func(l *listener) bool {
		if !gone(l) {
			return false
		}
		ls.changed = true
		removed(l)
		if l.table.byCookie[l.socket.Cookie] == l {
			delete(l.table.byCookie, l.socket.Cookie)
		}
		return true
	})
}

// describe updates the tags of all listeners. It reports whether the groups have to be
// arranged again.
func (ls *listenerSet) describe(names userNames) (changed bool) {
	changed, ls.changed = ls.changed, false
	for _, l := range ls.all {
		if l.describe(names, ls.usersVersion) {
			changed = true
		}
	}
	return changed
}

// namespaces returns the namespaces, and how they were listed.
func (ls *listenerSet) namespaces() []changes.Namespace {
	all := make([]changes.Namespace, 0, len(ls.tables))
	for _, t := range ls.tables {
		view := backendNetlink
		if t.source.Procfs {
			view = backendProcfs
		}
		all = append(all, changes.Namespace{Name: t.name, View: view, Failed: t.failed})
	}
	return all
}

// uids returns the user ids of all listeners.
func (ls *listenerSet) uids() map[uint32]bool {
	uids := make(map[uint32]bool)
	for i, l := range ls.all {
		if i == 0 || l.socket.UID != ls.all[i-1].socket.UID {
			uids[l.socket.UID] = true
		}
	}
	return uids
}
