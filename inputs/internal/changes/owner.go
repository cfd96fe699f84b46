package changes

import (
	"path"
	"slices"
	"strings"

	"sockwatch/agent/metric"
)

// An owner is one key of an endpoint, and who was last seen to have it.
type owner struct {
	// Keys are the generalized keys that it had: a process that renames itself stays who it
	// is. Without any it has not been found out yet, and equals everybody.
	Keys      []Key `json:"k"`
	FirstSeen int64 `json:"f"` // Unix time; 0: at a baseline
	Shown     shown `json:"s"`
	// Reported is what Shown was at the last event, if that was another process; else nil. A
	// rolling update shows its new processes before the event that reports it.
	Reported *shown `json:"b"`

	latest Key // as it was last seen, not generalized; zero after Restore
}

// maxKeys limits owner.Keys: the oldest are dropped.
const maxKeys = 4

// shown is what an event says of an owner.
type shown struct {
	UID     uint32       `json:"u"` // of the socket
	Process process      `json:"p"`
	Facts   Facts        `json:"f"`
	Tags    []metric.Tag `json:"t"`
	Verdict Verdict      `json:"v"`
}

// A process is one of this boot; its start is 0 if it was of another one.
type process struct {
	PID   int    `json:"p"`
	Start uint64 `json:"s"`
}

func (p process) is(h *Holder) bool { return p.Start != 0 && p.PID == h.PID && p.Start == h.Start }

func (o *owner) named() bool { return len(o.Keys) > 0 }

// name returns the process of the latest key, "" if there is none.
func (o *owner) name() string {
	if !o.named() {
		return ""
	}
	return o.Keys[len(o.Keys)-1].Process
}

// adoptable reports whether a process that takes a socket of the owner takes it from nobody.
func (o *owner) adoptable() bool { return o.name() == "" }

// learn adds a key, in place of which another process may come back.
func (o *owner) learn(key Key) (news bool) {
	if key == o.latest && o.named() {
		return false
	}
	o.latest = key
	general := key.Generalized()
	if slices.Contains(o.Keys, general) {
		return false
	}
	kept := o.Keys[max(0, len(o.Keys)+1-maxKeys):]
	o.Keys = append(slices.Clip(kept), general) // others may share the old ones
	return true
}

// equals reports whether two owners are the same, as far as is known.
func (o *owner) equals(other *owner) bool {
	if !o.named() || !other.named() {
		return true
	}
	if o.Shown.Process.Start != 0 && o.Shown.Process == other.Shown.Process {
		return true
	}
	return slices.ContainsFunc(o.Keys, func(k Key) bool { return slices.Contains(other.Keys, k) })
}

// show makes a socket what events say of the owner. It reports whether that is news:
// setting the clock moves all start times, which is none.
func (o *owner) show(s *Socket) (news bool) {
	now := s.shown()
	before := o.Shown
	o.Shown = now
	if o.Reported == nil && before.Process.PID != 0 && before.Process != now.Process {
		reported := before
		o.Reported = &reported
	}
	before.Facts.Start = now.Facts.Start
	return before.UID != now.UID || before.Process != now.Process || before.Facts != now.Facts ||
		before.Verdict != now.Verdict || !sameTags(before.Tags, now.Tags)
}

// replaced returns the process that was there at the last event, if the last one that was
// seen is still there.
func (o *owner) replaced(sockets []*Socket) *shown {
	here := func(s *Socket) bool { return s.holder(o.Shown.Process) != nil }
	if o.Reported != nil && slices.ContainsFunc(sockets, here) {
		return o.Reported
	}
	return &o.Shown
}

func sameTags(a, b []metric.Tag) bool {
	if len(a) > 0 && len(a) == len(b) && &a[0] == &b[0] {
		return true
	}
	return slices.Equal(a, b)
}

// shown returns what an event says of the socket now.
func (s *Socket) shown() shown {
	v := shown{UID: s.UID, Tags: s.Tags, Verdict: s.Verdict}
	if len(s.Holders) > 0 {
		h := s.named()
		v.Process, v.Facts = process{PID: h.PID, Start: h.Start}, h.Facts
	}
	return v
}

// service returns the first holder that can be an owner, or nil.
func (s *Socket) service() *Holder {
	for i := range s.Holders {
		if h := &s.Holders[i]; h.service() {
			return h
		}
	}
	return nil
}

// named returns the holder that names the socket: a service, or else a manager.
func (s *Socket) named() *Holder {
	if h := s.service(); h != nil {
		return h
	}
	return &s.Holders[0]
}

// hasService reports whether an owner is known.
func (s *Socket) hasService() bool { return s.Status == Known && s.service() != nil }

// hasManager reports whether a manager holds the socket.
func (s *Socket) hasManager() bool {
	for i := range s.Holders {
		if s.Holders[i].Manager {
			return s.Status == Known
		}
	}
	return false
}

// startedAfter orders the sockets of an endpoint by which of them events name: the one
// whose named process started last.
func (s *Socket) startedAfter(other *Socket) bool {
	if other == nil || len(other.Holders) == 0 {
		return true
	}
	if len(s.Holders) == 0 {
		return false
	}
	a, b := s.named(), other.named()
	if a.Start != b.Start {
		return a.Start > b.Start
	}
	return a.PID > b.PID
}

// service reports whether the process can be an owner. A manager holds sockets for
// others, and so does its child that is about to execute a service: systemd calls it
// "(name)".
func (h *Holder) service() bool {
	return !h.Manager && !(strings.HasPrefix(h.Key.Process, "(") && ofSystemd(h.Facts.Exe))
}

func ofSystemd(exe string) bool {
	switch path.Dir(exe) {
	case "/usr/lib/systemd", "/lib/systemd":
		return true
	}
	return false
}
