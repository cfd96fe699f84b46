// Package expect compares listeners with rules: what must listen, what may, and what
// must not. It knows no kernel, no file and no clock.
//
// Rules are compiled once. Rules.Verdict says of one listener what the rules make of it,
// and is called when something of the listener has changed, or Rules.Version. A Tracker
// makes points and events of the verdicts of all listeners, and remembers from one look to
// the next what has failed since when.
//
//	Options ▶ Compile ▶ Rules ─▶ Verdict of a listener ─▶ Judged ─▶ Tracker.Evaluate ─▶ points, events
//	                      └────▶ Why: the nearest rule                     Report ─▶ check --live
//	listeners ▶ Suggest ▶ Print: rules for what listens now
package expect

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"sockwatch/agent/plugin"
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
	Undecided = "undecided" // a rule matches in all that is known, and the owner is not
	No        = "no"        // none of these; only if Options.Unlisted applies
)

// The kinds of rules, as the tag rule spells them.
const (
	kindExpect = "expect"
	kindAllow  = "allow"
	kindForbid = "forbid"
)

// Rules are compiled rules. They do not change, and may be used concurrently.
type Rules struct {
	rules    []*rule            // forbid, expect, allow; each in the order of the configuration
	byPort   map[uint16][]*rule // those with few ports, by each of these
	others   []*rule            // those with many ports, or any
	unlisted bool               // a listener that no rule matches is not expected
	active   bool
	digest   string
}

// A rule is one compiled rule.
type rule struct {
	index    int // in Rules.rules
	kind     string
	name     string // as it is shown: that of an allow rule may be made up
	ports    Ports
	address  []addressPattern
	globs    []globCriterion
	criteria *Criteria // as written, for reasons
	min      int
	hold     time.Duration // the option for
	approval Approval
	expires  time.Time // the first moment after its last day; zero: never
	labels   map[string]string
}

// Compile compiles options that ValidateRules has found to be right; the error is that
// of the first that is not.
func Compile(o Options) (*Rules, error) {
	r := &Rules{byPort: make(map[uint16][]*rule), digest: digest(o)}
	for i := range o.Forbid {
		f := &o.Forbid[i]
		err := r.add(&rule{
			kind: kindForbid, name: f.Name, criteria: &f.Criteria, hold: time.Duration(f.For), approval: f.Approval, labels: f.Labels,
		})
		if err != nil {
			return nil, err
		}
	}
	for i := range o.Expect {
		e := &o.Expect[i]
		err := r.add(&rule{
			kind: kindExpect, name: e.Name, criteria: &e.Criteria, min: max(e.Min, 1), hold: time.Duration(e.For),
			approval: e.Approval, labels: e.Labels,
		})
		if err != nil {
			return nil, err
		}
	}
	for i := range o.Allow {
		a := &o.Allow[i]
		name := a.Name
		if name == "" {
			name = fmt.Sprintf("allow %d", i+1)
		}
		if err := r.add(&rule{kind: kindAllow, name: name, criteria: &a.Criteria, approval: a.Approval}); err != nil {
			return nil, err
		}
	}
	r.unlisted = o.Unlisted == UnlistedUnexpected || o.Unlisted != UnlistedIgnore && len(o.Allow) > 0
	r.active = len(r.rules) > 0 || len(o.ExpectFile) > 0 || o.Unlisted == UnlistedUnexpected
	return r, nil
}

// manyPorts is how many ports a rule may have to be found by them.
const manyPorts = 64

// add compiles a rule and adds it.
func (r *Rules) add(n *rule) (err error) {
	n.index, n.ports = len(r.rules), n.criteria.Port
	if n.expires, err = parseDate(n.approval.Expires); err != nil {
		return err
	}
	for _, a := range n.criteria.Address {
		p, err := parseAddress(a)
		if err != nil {
			return err
		}
		n.address = append(n.address, p)
	}
	for i, option := range globOptions {
		c := globCriterion{option: i}
		for _, pattern := range *option.patterns(n.criteria) {
			g, err := compileGlob(pattern)
			if err != nil {
				return err
			}
			c.globs = append(c.globs, g)
			c.any = c.any || pattern == "*"
		}
		if c.globs != nil {
			n.globs = append(n.globs, c)
		}
	}
	r.rules = append(r.rules, n)
	ports := 0
	for _, p := range n.ports {
		ports += int(p.Last-p.First) + 1
	}
	if ports == 0 || ports > manyPorts {
		r.others = append(r.others, n)
		return nil
	}
	for _, p := range n.ports {
		for port := int(p.First); port <= int(p.Last); port++ {
			if same := r.byPort[uint16(port)]; len(same) == 0 || same[len(same)-1] != n {
				r.byPort[uint16(port)] = append(same, n)
			}
		}
	}
	return nil
}

// Active reports whether there is anything to report: rules, rule files, or
// unlisted = "unexpected". If not, no point gets fields and there are no points.
func (r *Rules) Active() bool { return r.active }

// Meaningful reports whether the rules may find fault with any host. Rule files that do not
// exist yet make rules active, and not meaningful.
func (r *Rules) Meaningful() bool { return r.unlisted || len(r.rules) > 0 }

// Digest returns 12 hexadecimal digits that rules of the same meaning share, in whatever
// files and order they are written.
func (r *Rules) Digest() string { return r.digest }

// Version changes when a rule expires: then all verdicts must be made again.
func (r *Rules) Version(now time.Time) uint32 {
	expired := uint32(0)
	for _, n := range r.rules {
		if n.expired(now) {
			expired++
		}
	}
	return expired
}

// A Verdict is what the rules make of one listener.
type Verdict struct {
	Expected string // Forbidden, Yes, Undecided, No, or "" for no verdict
	Rule     string // the name of the rule that decided; "" if none did

	by      *rule   // the rule that decided; nil if none did
	matches []match // expect and forbid rules
}

// A match is an expect or forbid rule that matches a listener, or may match it once the
// owner is known.
type match struct {
	rule      *rule
	undecided bool
}

// Verdict says what the rules make of a listener at that time. It costs what the
// rules for the listener's port cost.
func (r *Rules) Verdict(l *Listener, now time.Time) Verdict {
	var v Verdict
	owners := l.owners()
	var forbids, allows, may *rule // the first that forbids, that allows, that may match
	byPort := r.byPort[l.Port]
	for others := r.others; len(byPort)+len(others) > 0; {
		var n *rule // the next of both lists, in the order of the rules
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

// Worst returns the verdict of the point that several listeners share: the worst of
// theirs.
func Worst(a, b Verdict) Verdict {
	if slices.Index(severity, b.Expected) > slices.Index(severity, a.Expected) {
		return b
	}
	return a
}

// severity lists the verdicts, the worst last.
var severity = []string{"", Yes, Undecided, No, Forbidden}

// Expiring returns the rules whose approval ends within 14 days or has ended, in the
// order of the rules.
func (r *Rules) Expiring(now time.Time) []Expiry {
	var all []Expiry
	for _, n := range r.rules {
		if !n.expires.IsZero() && n.expires.Sub(now) <= expiryWarning {
			all = append(all, Expiry{Kind: n.kind, Rule: n.name, Expires: n.approval.Expires, Expired: n.expired(now)})
		}
	}
	return all
}

// expiryWarning is how long before the end of an approval warnings begin.
const expiryWarning = 14 * 24 * time.Hour

// An Expiry is the end of the approval of a rule.
type Expiry struct {
	Kind    string `json:"kind"` // "expect", "allow" or "forbid"
	Rule    string `json:"rule"`
	Expires string `json:"expires"` // the last day, "2027-03-31"
	Expired bool   `json:"expired"`
}

func (n *rule) expired(now time.Time) bool { return !n.expires.IsZero() && !now.Before(n.expires) }

// digest returns 12 hexadecimal digits of rules in a form that depends on their meaning
// alone.
func digest(o Options) string {
	lines := []string{"unlisted " + o.Unlisted}
	add := func(kind string, rule any) {
		text, err := json.Marshal(rule)
		if err != nil {
			panic(err) // plain data
		}
		lines = append(lines, kind+" "+string(text))
	}
	for _, r := range o.Expect {
		r.Criteria = r.canonical()
		add(kindExpect, r)
	}
	for _, r := range o.Allow {
		r.Criteria = r.canonical()
		add(kindAllow, r)
	}
	for _, r := range o.Forbid {
		r.Criteria = r.canonical()
		add(kindForbid, r)
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	return hex.EncodeToString(sum[:6])
}

// canonical returns the criteria with every list sorted.
func (c Criteria) canonical() Criteria {
	c.Port = slices.SortedFunc(slices.Values(c.Port), comparePorts)
	c.Address = sortedStrings(c.Address)
	for _, option := range globOptions {
		list := option.patterns(&c)
		*list = sortedStrings(*list)
	}
	return c
}

func sortedStrings(list plugin.Strings) plugin.Strings {
	return slices.Compact(slices.Sorted(slices.Values(list)))
}
