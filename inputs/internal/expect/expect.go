// Package expect checks listeners against rules that say what must listen, what may, and
// what must not. It does not use the kernel, files or clocks.
//
// Rules are compiled once. Rules.Verdict classifies one listener. It is called when the
// listener or Rules.Version has changed. A Tracker turns the verdicts of all listeners into
// points and events, and remembers which rules fail, and since when.
//
//	Options ▶ Compile ▶ Rules ─▶ Verdict of a listener ─▶ Judged ─▶ Tracker.Evaluate ─▶ points, events
//	                      └────▶ Why: the nearest rule                     Report ─▶ check --live
//	listeners ▶ Suggest ▶ Print: rules for what listens now
package expect

import (
	"slices"
	"time"
)

// The values of Options.Unlisted.
const (
	UnlistedAuto       = "auto"
	UnlistedUnexpected = "unexpected"
	UnlistedIgnore     = "ignore"
)

// The values of Verdict.Expected and of the field expected.
const (
	Forbidden = "forbidden" // a forbid rule matches
	Yes       = "yes"       // an expect or allow rule matches
	Undecided = "undecided" // a rule matches everything that is known, but something is unknown, such as the owner
	No        = "no"        // none of these; only if Options.Unlisted applies
)

// The kinds of rules, as spelled in the tag rule.
const (
	kindExpect = "expect"
	kindAllow  = "allow"
	kindForbid = "forbid"
)

// Rules are compiled rules. They are immutable and safe for concurrent use.
type Rules struct {
	rules    []*rule            // forbid, expect, then allow rules; each kind in the order of the configuration
	byPort   map[uint16][]*rule // the rules with few ports, by port
	others   []*rule            // the rules with many ports, or without a port
	unlisted bool               // a listener that no rule matches is unexpected
	active   bool
	digest   string
}

// Active reports whether there is anything to report: rules, rule files, or
// unlisted = "unexpected". If not, this package adds neither fields nor points.
func (r *Rules) Active() bool { return r.active }

// Meaningful reports whether a host can violate the rules at all. If the only rules are in
// files that do not exist yet, the rules are active but not meaningful.
func (r *Rules) Meaningful() bool { return r.unlisted || len(r.rules) > 0 }

// Digest returns 12 hexadecimal digits. They are the same for rules with the same meaning,
// whatever their order and the files that they are in.
func (r *Rules) Digest() string { return r.digest }

// Version changes when a rule expires. All verdicts must then be computed again.
func (r *Rules) Version(now time.Time) uint32 {
	expired := uint32(0)
	for _, n := range r.rules {
		if n.expired(now) {
			expired++
		}
	}
	return expired
}

// A Verdict is the outcome of the rules for one listener.
type Verdict struct {
	Expected string // Forbidden, Yes, Undecided, No, or "" for no verdict
	Rule     string // the name of the rule that decided; "" if none did

	by      *rule   // the rule that decided; nil if none did
	matches []match // expect and forbid rules
}

// A match is an expect or forbid rule that matches a listener, or may match it once its
// owner is known.
type match struct {
	rule      *rule
	undecided bool
}

// Verdict returns the verdict on a listener at that time. Its cost depends only on the rules
// that can apply to the listener's port.
func (r *Rules) Verdict(l *Listener, now time.Time) Verdict {
	var v Verdict
	owners := l.owners()
	var forbids, allows, may *rule // the first rules that forbid, allow, or may match
	byPort := r.byPort[l.Port]
	for others := r.others; len(byPort)+len(others) > 0; {
		var n *rule // the next rule of the two lists, in the order of the rules
		if len(others) == 0 || len(byPort) > 0 && byPort[0].index < others[0].index {
			n, byPort = byPort[0], byPort[1:]
		} else {
			n, others = others[0], others[1:]
			if n.ports != nil && !n.ports.contain(l.Port) {
				continue
			}
		}
		truth := n.match(l, owners)
		if truth == falsely {
			continue
		}
		if n.kind != kindAllow {
			v.matches = append(v.matches, match{n, truth == unknown})
		}
		switch {
		case n.kind != kindForbid && n.expired(now): // it allows nothing
		case truth == unknown:
			may = firstOf(may, n)
		case n.kind == kindForbid:
			forbids = firstOf(forbids, n)
		default:
			allows = firstOf(allows, n)
		}
	}
	switch {
	case forbids != nil:
		v.Expected, v.by = Forbidden, forbids
	case allows != nil:
		v.Expected, v.by = Yes, allows
	case may != nil:
		v.Expected, v.by = Undecided, may
	case r.unlisted:
		v.Expected = No
	}
	if v.by != nil {
		v.Rule = v.by.name
	}
	return v
}

func firstOf(a, b *rule) *rule {
	if a != nil {
		return a
	}
	return b
}

// A Judged is a listener with its verdict.
type Judged struct {
	*Listener
	Verdict
}

// Worst returns the worst of several verdicts. It applies to a point that several listeners
// share.
func Worst(a, b Verdict) Verdict {
	if slices.Index(severity, b.Expected) > slices.Index(severity, a.Expected) {
		return b
	}
	return a
}

// severity lists the verdicts, worst last.
var severity = []string{"", Yes, Undecided, No, Forbidden}
