package changes

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// A pastScan is the model's record of what a scan found.
type pastScan struct {
	Moment
	sockets map[Endpoint][]pastSocket
}

// A pastSocket is one socket in one scan. owner is "" if it cannot be seen.
type pastSocket struct {
	id        SocketID
	owner     string
	searching bool
}

// A modelEvent is the part of an event that the model predicts.
type modelEvent struct {
	at   Endpoint
	kind string
	time time.Time

	waits  []wait   // opened and returned: since when; closed: since when in each boot
	owners []string // of these three kinds
}

// A wait is a period that begins in one boot.
type wait struct {
	boot   string
	mono   time.Duration
	settle time.Duration // closed: its length
}

func (e modelEvent) String() string {
	return fmt.Sprintf("%s %s %s:%d", e.time.UTC().Format(time.DateTime), e.kind, e.at.Address, e.at.Port)
}

// model returns the events of a history of scans. It works on the whole history: it reads each
// endpoint from beginning to end, knows what a search will find, and pairs endpoints that have
// closed with those that opened afterwards. It has no records and does not depend on the order
// of work.
func model(o Options, past []pastScan) (events []modelEvent) {
	endpoints := make(map[Endpoint]bool)
	for _, l := range past {
		for at := range l.sockets {
			endpoints[at] = true
		}
	}
	for at := range endpoints {
		events = append(events, (&modelReader{options: o, past: past, at: at}).read()...)
	}
	slices.SortFunc(events, func(a, b modelEvent) int {
		return cmp.Or(a.time.Compare(b.time), a.at.compare(b.at))
	})
	return pairMoves(events)
}

// pairMoves replaces closed and opened with exposure_changed if the owner has moved.
func pairMoves(events []modelEvent) []modelEvent {
	var gone []int
	for i := range events {
		o := &events[i]
		if o.kind != opened && o.kind != returned {
			continue
		}
		last := -1
		for j := range events {
			c := &events[j]
			if c.kind == closed && !slices.Contains(gone, j) && (last < 0 || c.time.After(events[last].time)) && c.at.Port == o.at.Port && c.at.Address != o.at.Address && sameNames(o.owners, c.owners) &&
				len(o.waits) > 0 && slices.ContainsFunc(c.waits, o.waits[0].within) {
				last = j
			}
		}
		if last >= 0 {
			o.kind = exposureChanged
			gone = append(gone, last)
		}
	}
	var kept []modelEvent
	for i, e := range events {
		if !slices.Contains(gone, i) {
			kept = append(kept, e)
		}
	}
	return kept
}

func (w wait) within(gone wait) bool {
	return w.boot == gone.boot && w.mono >= gone.mono && w.mono-gone.mono <= gone.settle
}

// sameNames reports whether all of a are in b. "" matches any name.
func sameNames(a, b []string) bool {
	return slices.Contains(b, "") || !slices.ContainsFunc(a, func(s string) bool { return s != "" && !slices.Contains(b, s) })
}

// A modelReader reads the history of one endpoint.
type modelReader struct {
	options Options
	past    []pastScan
	at      Endpoint
	events  []modelEvent

	reported bool                // it is present, or missing for less than settle
	closed   bool                // it was present before
	owners   []string            // "": never identified
	known    map[SocketID]string // the owners of the sockets
	assumed  map[SocketID]bool   // sockets whose owner is not certain
	event    map[SocketID]bool   // the sockets of the last event
	missing  int                 // the first scan without it; -1: it is present
	booted   bool                // not seen since a boot
	waits    []wait              // since it has been missing
	lost     *modelLoss          // nil while every owner has a socket
}

func (r *modelReader) read() []modelEvent {
	r.missing = -1
	r.known, r.assumed, r.event = map[SocketID]string{}, map[SocketID]bool{}, map[SocketID]bool{}
	for k := 0; k < len(r.past); k++ {
		if k > 0 && r.past[k].Boot != r.past[k-1].Boot {
			r.reboot(k)
		}
		sockets := r.past[k].sockets[r.at]
		switch {
		case k == 0:
			if len(sockets) > 0 {
				r.reported = true
				r.tellAll(k)
			}
		case len(sockets) == 0:
			r.absent(k)
		case !r.reported:
			k = r.open(k)
		default:
			k = r.compare(k)
		}
	}
	return r.events
}

func (r *modelReader) reboot(k int) {
	clear(r.known)
	clear(r.event)
	r.lost = nil
	if r.reported {
		r.miss(k)
		r.booted = true
		r.waits = append(r.waits, wait{boot: r.past[k].Boot, mono: r.past[k].Mono, settle: r.settle()})
	}
}

// tellAll records that all sockets of the scan have been reported.
func (r *modelReader) tellAll(k int) {
	clear(r.event)
	clear(r.known)
	for _, s := range r.past[k].sockets[r.at] {
		r.event[s.id] = true
		r.known[s.id] = s.owner
	}
	r.owners = r.names()
	r.missing, r.booted = -1, false
	r.lost = nil
}

// names returns the owners of the known sockets.
func (r *modelReader) names() (names []string) {
	for _, name := range r.known {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (r *modelReader) settle() time.Duration {
	if r.booted {
		return r.options.SettleBoot
	}
	return r.options.Settle
}

func (r *modelReader) absent(k int) {
	if !r.reported {
		return
	}
	r.miss(k)
	r.lost = nil
	if r.past[k].Mono-r.waits[len(r.waits)-1].mono >= r.settle() {
		r.reported, r.closed = false, true
		r.events = append(r.events, modelEvent{
			at: r.at, kind: closed, time: r.past[r.missing].Time, waits: slices.Clone(r.waits), owners: r.owners,
		})
	}
}

func (r *modelReader) miss(k int) {
	if r.missing < 0 {
		r.missing = k
		r.waits = []wait{{boot: r.past[k].Boot, mono: r.past[k].Mono, settle: r.settle()}}
	}
}

// decision returns the scan by which a search that is under way in scan k has ended or
// owner_wait is over, or the last scan that has the endpoint.
func (r *modelReader) decision(k int, searching func(pastSocket) bool) int {
	for j := k; ; j++ {
		waited := r.past[j].Mono-r.past[k].Mono >= r.options.OwnerWait
		if waited || !slices.ContainsFunc(r.past[j].sockets[r.at], searching) || j+1 == len(r.past) {
			return j
		}
		if next := r.past[j+1]; len(next.sockets[r.at]) == 0 || next.Boot != r.past[j].Boot {
			return j
		}
	}
}

// undecided reports whether a search that began in scan k was still under way in scan j, the
// last one that had the endpoint.
func (r *modelReader) undecided(k, j int, searching func(pastSocket) bool) bool {
	return slices.ContainsFunc(r.past[j].sockets[r.at], searching) && r.past[j].Mono-r.past[k].Mono < r.options.OwnerWait
}

func (r *modelReader) open(k int) (decided int) {
	searching := func(s pastSocket) bool { return s.searching }
	start, j := k, r.decision(k, searching)
	for r.undecided(start, j, searching) && j+1 < len(r.past) && len(r.past[j+1].sockets[r.at]) > 0 {
		start = j + 1 // after a boot the search begins again
		j = r.decision(start, searching)
	}
	e := modelEvent{at: r.at, kind: opened, time: r.past[k].Time, waits: []wait{{boot: r.past[start].Boot, mono: r.past[start].Mono}}}
	if r.closed {
		e.kind = returned
	}
	r.reported = true
	r.tellAll(j)
	for _, l := range slices.Backward(r.past[start:j]) { // seen in the meantime
		for _, s := range l.sockets[r.at] {
			if r.event[s.id] && r.known[s.id] == "" {
				r.known[s.id] = s.owner
			}
		}
	}
	for _, s := range r.past[j].sockets[r.at] {
		r.assumed[s.id] = s.searching
	}
	r.owners = r.names()
	e.owners = r.owners
	if r.undecided(start, j, searching) {
		e.waits = nil // it is gone before a move can be recognized
	}
	r.events = append(r.events, e)
	return j
}

// compare determines what has changed in scan k and those up to the one in which that is
// decided.
func (r *modelReader) compare(k int) (decided int) {
	booted, settle := r.booted, r.settle()
	if !r.differs(k) {
		r.takeOver(k)
		r.lose(k, settle, true)
		return k
	}
	j := r.decision(k, r.matters)
	if r.undecided(k, j, r.matters) {
		return j
	}
	left := slices.ContainsFunc(r.past[j].sockets[r.at], func(s pastSocket) bool { return r.event[s.id] })
	another := slices.ContainsFunc(r.past[j].sockets[r.at], func(s pastSocket) bool { return r.another(j, s) })
	switch {
	case another:
		r.events = append(r.events, modelEvent{at: r.at, kind: ownerChanged, time: r.past[k].Time})
		r.takeOver(j)
		r.owners = r.names()
		r.eventIs(j)
		r.lost = nil
		return j
	case !left && !booted:
		r.events = append(r.events, modelEvent{at: r.at, kind: restarted, time: r.past[k].Time})
		r.takeOver(j)
		r.eventIs(j)
	case !left:
		r.takeOver(j)
		r.eventIs(j)
	default:
		r.takeOver(j)
	}
	r.lose(j, settle, left || booted)
	return j
}

// another reports whether a socket has an owner that is new to the endpoint, or a different
// one from before.
func (r *modelReader) another(k int, s pastSocket) bool {
	before, known := r.known[s.id]
	isNew := !slices.Contains(r.owners, s.owner)
	switch {
	case s.owner == "":
		return false
	case known && before == "":
		return false // it was never identified
	case known:
		return isNew || before != s.owner && !r.assumed[s.id]
	case slices.Equal(r.owners, []string{""}):
		return false
	case slices.Contains(r.owners, ""):
		// It may replace one that was never identified and is gone.
		return isNew && slices.ContainsFunc(r.past[k].sockets[r.at], func(s pastSocket) bool {
			before, known := r.known[s.id]
			return known && before == "" && s.owner == ""
		})
	}
	return isNew
}

// matters reports whether the search for the owner of a socket may find another one.
func (r *modelReader) matters(s pastSocket) bool {
	name, known := r.known[s.id]
	return s.searching && (!known || name != "" && !r.assumed[s.id])
}

func (r *modelReader) differs(k int) bool {
	left := false
	for _, s := range r.past[k].sockets[r.at] {
		left = left || r.event[s.id]
		if r.matters(s) || r.another(k, s) {
			return true
		}
	}
	return !left
}

func (r *modelReader) eventIs(k int) {
	clear(r.event)
	for _, s := range r.past[k].sockets[r.at] {
		r.event[s.id] = true
	}
}

// takeOver records the owners of the sockets. A socket whose owner cannot be seen belongs to
// an owner without another socket.
func (r *modelReader) takeOver(k int) {
	known, assumed := make(map[SocketID]string), make(map[SocketID]bool)
	heirs := slices.Sorted(slices.Values(r.owners))
	var unseen []SocketID
	for _, s := range r.past[k].sockets[r.at] {
		before, was := r.known[s.id]
		switch {
		case s.owner != "":
			known[s.id] = s.owner
			if !slices.Contains(r.owners, s.owner) {
				r.owners = append(r.owners, s.owner)
			}
		case was:
			known[s.id], assumed[s.id] = before, r.assumed[s.id] || s.searching
		default:
			unseen = append(unseen, s.id)
		}
	}
	for _, id := range unseen {
		heir, best := "", -1
		for _, name := range heirs {
			used := slices.Contains(slices.Collect(maps.Values(known)), name)
			if fit := 2*btoi(!used) + btoi(name != ""); fit > best {
				heir, best = name, fit
			}
		}
		known[id], assumed[id] = heir, true
	}
	r.known, r.assumed = known, assumed
	r.missing, r.booted = -1, false
}

// A modelLoss records since when an owner has had no socket.
type modelLoss struct {
	wait
	time  time.Time
	named bool // it was ever identified
}

// lose reports that an owner has had no socket for long enough, if it was ever identified and
// the scan reports nothing else.
func (r *modelReader) lose(k int, settle time.Duration, tell bool) {
	names := r.names()
	lost, named := false, false
	for _, name := range r.owners {
		if !slices.Contains(names, name) {
			lost, named = true, named || name != ""
		}
	}
	if !lost {
		r.lost = nil
		return
	}
	if r.lost == nil || named && !r.lost.named {
		r.lost = &modelLoss{wait{mono: r.past[k].Mono, settle: settle}, r.past[k].Time, named}
	}
	if !tell || r.past[k].Mono-r.lost.mono < r.lost.settle {
		return
	}
	if named {
		r.events = append(r.events, modelEvent{at: r.at, kind: ownerChanged, time: r.lost.time})
		r.eventIs(k)
	}
	r.owners, r.lost = names, nil
}
