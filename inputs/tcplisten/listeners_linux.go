package tcplisten

import (
	"context"
	"slices"
	"time"

	"sockwatch/inputs/internal/inet"
	"sockwatch/inputs/internal/netns"
	"sockwatch/inputs/internal/owner"
)

// A listenerSet holds the listeners of all network namespaces.
type listenerSet struct {
	tables  []*table // one for each namespace, the host's first
	all     []*listener
	changed bool // listeners have come or gone since the last describe

	baseline     bool   // a gather has succeeded: what is new from now on has opened
	since        int64  // when what is new now was first seen, Unix time; 0 in the first gather
	usersVersion uint32 // changes with the name of a user

	inherited []*table // of a predecessor, until a gather has succeeded
}

// A table holds the listeners of one network namespace.
type table struct {
	ns         *netns.Namespace
	name       string // ns.Name() in this gather
	byCookie   map[uint64]*listener
	generation uint64       // of the last listing
	seen       int          // listeners that the last listing has seen
	local      *netns.Local // its addresses; nil as long as they cannot be read

	established map[*listener]int // connections, if they are counted
}

// begin makes the tables those of the namespaces that there are.
func (ls *listenerSet) begin(namespaces []*netns.Namespace, now time.Time) {
	if ls.baseline {
		ls.since = now.Unix()
	}
	if !slices.EqualFunc(ls.tables, namespaces, func(t *table, ns *netns.Namespace) bool { return t.ns == ns }) {
		ls.replaceTables(namespaces)
	}
	for _, t := range ls.tables {
		t.name = t.ns.Name()
	}
}

// replaceTables makes the tables those of namespaces. The listeners of one that has
// ended are missing from now on.
func (ls *listenerSet) replaceTables(namespaces []*netns.Namespace) {
	before := make(map[*netns.Namespace]*table, len(ls.tables))
	for _, t := range ls.tables {
		before[t.ns] = t
	}
	ls.tables = make([]*table, 0, len(namespaces))
	for _, ns := range namespaces {
		t := before[ns]
		if t == nil {
			t = &table{ns: ns, byCookie: make(map[uint64]*listener)}
		}
		delete(before, ns)
		ls.tables = append(ls.tables, t)
	}
	for _, t := range before {
		t.generation++
	}
}

// gathered ends a gather that has succeeded.
func (ls *listenerSet) gathered() {
	ls.baseline, ls.inherited = true, nil
	for _, l := range ls.all {
		l.isNew = false
	}
}

// inherit takes over what a predecessor knew. sameView: it saw the same host in
// the same way, so that what it did not know has opened since.
func (ls *listenerSet) inherit(old *listenerSet, sameView bool) {
	ls.inherited = old.tables
	if old.inherited != nil { // it has not gathered, and has inherited itself
		ls.inherited = old.inherited
	}
	ls.baseline = old.baseline && sameView
}

// list calls observe for the listening sockets of the namespace, which marks those
// that are there. If some have come or gone, the kernel may have passed over others: then
// it is asked again, in other pieces, until nothing is new. After an error the
// listeners are those of before; a namespace that has ended has none.
func (t *table) list(ctx context.Context, observe func(*table, *inet.Socket)) (source netns.Source, err error) {
	known := len(t.byCookie)
	begin := func() { t.generation, t.seen = t.generation+1, 0 }
	begin()
	for pass, stable := 0, false; !stable && pass < 8; pass++ {
		seen := t.seen
		source, err = t.ns.Dump(ctx, netns.Listen, pass, begin, func(s *inet.Socket) { observe(t, s) })
		if err != nil && t.ns.Gone() {
			begin()
			return source, nil
		}
		if err != nil {
			t.keepAll()
			return source, err
		}
		stable = t.seen == seen
		if pass == 0 {
			stable = t.seen == known && len(t.byCookie) == known
			begin = func() {} // what any pass has seen is there
		}
	}
	return source, nil
}

// keepAll notes that all listeners are there, as far as is known.
func (t *table) keepAll() {
	for _, l := range t.byCookie {
		l.generation = t.generation
	}
	t.seen = len(t.byCookie)
}

// mark notes that a listener is there, and what the kernel says of it now.
func (t *table) mark(l *listener, s *inet.Socket) {
	if l.generation != t.generation {
		l.generation = t.generation
		t.seen++
	}
	l.socket = *s
}

// ofNamespace returns the words that name the namespace in a note; "" of the host's.
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

// add adds a listener that is new.
func (ls *listenerSet) add(t *table, s *inet.Socket) *listener {
	l := &listener{table: t, isNew: true, since: ls.sinceOf(t, s)}
	l.owner.Inode = s.Inode
	t.byCookie[s.Cookie] = l
	ls.all, ls.changed = append(ls.all, l), true
	return l
}

// sinceOf returns when a socket was first seen that is new to this input: the
// predecessor may have known it.
func (ls *listenerSet) sinceOf(t *table, s *inet.Socket) int64 {
	for _, old := range ls.inherited {
		if l := old.byCookie[s.Cookie]; old.ns.Inode() == t.ns.Inode() && l != nil && l.is(s) {
			return l.since
		}
	}
	return ls.since
}

// remove forgets the listeners that are gone, and calls removed for each.
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

// describe makes the tags of all listeners of which something has changed. It
// reports whether groups are to be made again.
func (ls *listenerSet) describe(names userNames) (changed bool) {
	changed, ls.changed = ls.changed, false
	for _, l := range ls.all {
		if l.describe(names, ls.usersVersion) {
			changed = true
		}
	}
	return changed
}

// uids returns the users of all listeners.
func (ls *listenerSet) uids() map[uint32]bool {
	uids := make(map[uint32]bool)
	for i, l := range ls.all {
		if i == 0 || l.socket.UID != ls.all[i-1].socket.UID {
			uids[l.socket.UID] = true
		}
	}
	return uids
}

// ownersPending reports whether the owners of some listeners are still searched.
func (ls *listenerSet) ownersPending() bool {
	return slices.ContainsFunc(ls.all, func(l *listener) bool { return l.owner.Status == owner.Pending })
}
