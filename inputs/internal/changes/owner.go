package changes

import (
	"path"
	"slices"
	"strings"

	"sockwatch/agent/metric"
)

// An owner is one of the owners of an endpoint, and the process that was last seen as it.
type owner struct {
	// Keys are the generalized keys that it had: a process that renames itself remains the same
	// owner. An owner without keys has not been identified yet, and equals every other.
	Keys      []Key `json:"k,omitzero"`
	FirstSeen int64 `json:"f,omitzero"` // Unix time; 0: at a baseline
	Shown     shown `json:"s,omitzero"`
	// Reported is the value of Shown at the last event if that was another process; else nil.
	// In a rolling update, new processes are seen before the event that reports it.
	Reported *shown `json:"b,omitzero"`

	latest Key // last seen, not generalized; zero after Restore
}

// maxKeys limits owner.Keys. The oldest are dropped.
const maxKeys = 4

// shown is what an event reports about an owner.
type shown struct {
	UID     uint32       `json:"u,omitzero"` // of the socket
	Listen  int          `json:"l,omitzero"` // the process that called listen, 0 if it is not known
	Process process      `json:"p,omitzero"`
	Facts   Facts        `json:"f,omitzero"`
	Tags    []metric.Tag `json:"t,omitzero"`
	Verdict Verdict      `json:"v,omitzero"`
}

// A process is one of this boot. Its start is 0 if it is from an earlier one.
type process struct {
	PID   int    `json:"p,omitzero"`
	Start uint64 `json:"s,omitzero"`
}

func (p process) is(h *Holder) bool { return p.Start != 0 && p.PID == h.PID && p.Start == h.Start }

func (o *owner) named() bool { return len(o.Keys) > 0 }

// name returns the process name of the latest key, or "" if there is none.
func (o *owner) name() string {
	if !o.named() {
		return ""
	}
	return o.Keys[len(o.Keys)-1].Process
}

// adoptable reports whether another process can take over a socket of the owner without a change
// of owner.
func (o *owner) adoptable() bool { return o.name() == "" }

// learn adds a key, by which a later process may be recognized.
func (o *owner) learn(key Key) (news bool) {
	if key == o.latest && o.named() {
		return false
	}
	o.latest = key
	general := key.generalized()
	if slices.Contains(o.Keys, general) {
		return false
	}
	kept := o.Keys[max(0, len(o.Keys)+1-maxKeys):]
	o.Keys = append(slices.Clip(kept), general) // the old slice may be shared
	return true
}

// equals reports whether, as far as is known, two owners are the same.
func (o *owner) equals(other *owner) bool {
	if !o.named() || !other.named() {
		return true
	}
	if o.Shown.Process.Start != 0 && o.Shown.Process == other.Shown.Process {
		return true
	}
	return slices.ContainsFunc(o.Keys, func(k Key) bool { return slices.Contains(other.Keys, k) })
}

// show sets what events report about the owner from a socket. It reports whether that has
// changed; start times do not count, because setting the clock moves them all.
func (o *owner) show(s *Socket) (news bool) {
	now := s.shown()
	before := o.Shown
	if now.Listen == 0 && now.Process == before.Process {
		now.Listen = before.Listen // known to an earlier run
	}
	o.Shown = now
	if o.Reported == nil && before.Process.PID != 0 && before.Process != now.Process {
		reported := before
		o.Reported = &reported
	}
	before.Facts.Start = now.Facts.Start
	return before.UID != now.UID || before.Listen != now.Listen || before.Process != now.Process || before.Facts != now.Facts ||
		before.Verdict != now.Verdict || !sameTags(before.Tags, now.Tags)
}

// replaced returns the process of the last event, if the last one that was seen still exists.
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

// shown returns what an event reports about the socket now.
func (s *Socket) shown() shown {
	v := shown{UID: s.UID, Listen: s.ListenPID, Tags: s.Tags, Verdict: s.Verdict}
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

// named returns the holder that events name: a service, or else a manager.
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

// startedAfter orders the sockets of an endpoint. Events name the one whose named process
// started last.
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

// service reports whether the process can be an owner. A manager holds sockets for others,
// and so does its child that is about to execute a service, which systemd calls "(name)".
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
