package netns

import (
	"sockwatch/inputs/internal/host"
)

// A registry holds the known namespaces, by both of their numbers.
type registry struct {
	host     host.Host
	own      *location
	byNumber map[uint64]*location
	byTable  map[uint64]*location
}

func newRegistry(h host.Host, own *location) *registry {
	r := &registry{host: h, own: own, byNumber: make(map[uint64]*location), byTable: make(map[uint64]*location)}
	r.add(own)
	return r
}

// add adds a location under its numbers.
func (r *registry) add(p *location) {
	if p.number != 0 {
		r.byNumber[p.number] = p
	}
	if p.table != 0 {
		r.byTable[p.table] = p
	}
}

// remove removes a location.
func (r *registry) remove(p *location) {
	if r.byNumber[p.number] == p {
		delete(r.byNumber, p.number)
	}
	if r.byTable[p.table] == p {
		delete(r.byTable, p.table)
	}
}

// find returns the namespace of a process or thread, or nil if the process has ended or
// is hidden.
func (r *registry) find(pid int) (*location, error) {
	link := processRef(pid)
	number, err := link.number(r.host)
	if err == nil {
		if p := r.byNumber[number]; p != nil {
			return p, nil
		}
		table, err := tableNumber(r.host, pid)
		if again, e := link.number(r.host); err != nil || e != nil || again != number {
			return nil, err // the process is moving: it will be examined again
		}
		p := r.byTable[table]
		if p == nil || p.number != 0 {
			p = &location{host: r.host}
		}
		p.number, p.table = number, table
		r.add(p)
		return p, nil
	}
	if !isRefused(err) {
		return nil, err
	}
	table, err := tableNumber(r.host, pid)
	if err != nil {
		return nil, err
	}
	p := r.byTable[table]
	if p == nil {
		p = &location{host: r.host, table: table}
		r.add(p)
	}
	return p, nil
}

// locationOf returns the namespace with a number, and adds it if it is not known.
func (r *registry) locationOf(number uint64) *location {
	p := r.byNumber[number]
	if p == nil {
		p = &location{host: r.host, number: number}
		r.add(p)
	}
	return p
}

// all returns all known namespaces, in no particular order.
func (r *registry) all() []*location {
	all := make([]*location, 0, len(r.byNumber))
	for _, p := range r.byNumber {
		all = append(all, p)
	}
	for _, p := range r.byTable {
		if p.number == 0 {
			all = append(all, p)
		}
	}
	return all
}

// removeOthers removes the namespaces that are no longer held, since the kernel can give
// their numbers to others.
func (r *registry) removeOthers(held []*location) {
	isHeld := setOf(held)
	for _, p := range r.all() {
		if !isHeld[p] {
			r.remove(p)
		}
	}
}
