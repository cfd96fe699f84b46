package expect

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Report is the outcome of one evaluation, for `sockwatch check --live`.
type Report struct {
	Host      string            `json:"host"`
	MachineID string            `json:"machine_id"`
	BootID    string            `json:"boot_id"`
	Time      time.Time         `json:"time"`
	Digest    string            `json:"digest"` // of the rules
	OK        bool              `json:"ok"`     // nothing is missing, unexpected, forbidden or undecided
	Rules     []RuleOutcome     `json:"rules"`
	Listeners []ListenerOutcome `json:"listeners"`
	Expiring  []Expiry          `json:"expiring"`
}

// A RuleOutcome is a rule, and whether it holds.
type RuleOutcome struct {
	Rule      string `json:"rule"`
	Kind      string `json:"kind"`          // "expect", "allow" or "forbid"
	Outcome   string `json:"outcome"`       // "holds", "missing", "violated", "undecided", or "" of an allow rule
	Why       string `json:"why,omitempty"` // what is missing
	Matches   int    `json:"matches"`       // endpoints; of an allow rule listeners that it decided on
	Undecided int    `json:"undecided"`

	Justification string `json:"justification,omitempty"` // the option why
	Ticket        string `json:"ticket,omitempty"`
	ApprovedBy    string `json:"approved_by,omitempty"`
	Expires       string `json:"expires,omitempty"`
}

// A ListenerOutcome is a listener, and its verdict.
type ListenerOutcome struct {
	Verdict string            `json:"verdict"` // "forbidden", "yes", "undecided", "no", or "" if it is not listed and need not be
	Rule    string            `json:"rule"`    // that decided, or the nearest one; "" if none is near
	Why     string            `json:"why"`
	Exe     string            `json:"exe,omitempty"` // of the holder that the tag process names
	Tags    map[string]string `json:"tags"`          // of its point

	title string
}

// NewReport evaluates rules once: what must listen must do so now, without `for`. The
// caller fills in Host, MachineID and BootID.
func NewReport(r *Rules, listeners []*Listener, now time.Time) *Report {
	report := &Report{
		Time: now.UTC(), Digest: r.digest, OK: true,
		Rules: []RuleOutcome{}, Listeners: []ListenerOutcome{}, Expiring: slices.Concat([]Expiry{}, r.Expiring(now)),
	}
	judged := make([]Judged, len(listeners))
	for i, l := range listeners {
		judged[i] = Judged{l, r.Verdict(l, now)}
	}
	slices.SortStableFunc(judged, func(a, b Judged) int { return compareListeners(a.Listener, b.Listener) })
	counts := r.count(judged)
	decided := make(map[*rule]int)
	for _, j := range worstOfEach(judged) {
		why := r.Why(j.Listener, now)
		if j.by != nil {
			decided[j.by]++
		}
		o := ListenerOutcome{Verdict: j.Expected, Rule: why.Rule, Why: why.Why, Tags: make(map[string]string), title: j.title()}
		for _, t := range j.Tags {
			o.Tags[t.Key] = t.Value
		}
		if len(j.Holders) > 0 {
			o.Exe = j.Holders[0].Exe
		}
		report.Listeners = append(report.Listeners, o)
		report.OK = report.OK && (j.Expected == Yes || j.Expected == "")
	}
	for _, n := range r.rules {
		c := counts[n.index]
		o := RuleOutcome{
			Rule: n.name, Kind: n.kind, Matches: c.matches, Undecided: c.undecided,
			Justification: n.approval.Why, Ticket: n.approval.Ticket, ApprovedBy: n.approval.ApprovedBy, Expires: n.approval.Expires,
		}
		switch up, known := n.up(c); {
		case n.kind == kindAllow:
		case !known:
			o.Outcome = "undecided"
		case up:
			o.Outcome = "holds"
		case n.kind == kindForbid:
			o.Outcome = "violated"
		default:
			o.Outcome = "missing"
		}
		if n.kind == kindAllow {
			o.Matches = decided[n]
		}
		if n.kind == kindExpect && o.Outcome != "holds" {
			o.Why = r.missing(n, c, judged)
			report.OK = false
		}
		report.Rules = append(report.Rules, o)
	}
	return report
}

// worstOfEach returns one listener of each point: the first of those with the worst
// verdict.
func worstOfEach(judged []Judged) []Judged {
	var worst []Judged
	index := make(map[string]int)
	for _, j := range judged {
		key := seriesKey(j.Tags)
		i, known := index[key]
		switch {
		case !known:
			index[key] = len(worst)
			worst = append(worst, j)
		case slices.Index(severity, j.Expected) > slices.Index(severity, worst[i].Expected):
			worst[i] = j
		}
	}
	return worst
}

// Text returns the report for people: what is missing, unexpected, forbidden and
// undecided, with the nearest rule and what of it does not match.
func (r *Report) Text() string {
	var b strings.Builder
	counts := make(map[string]int)
	line := func(what, subject, why string) {
		counts[what]++
		fmt.Fprintf(&b, "%-10s  %s: %s\n", what, subject, why)
	}
	for _, o := range r.Rules {
		if o.Kind == kindExpect && o.Outcome != "holds" {
			line(o.Outcome, o.Rule, o.Why)
		}
	}
	for _, verdict := range []struct{ verdict, shown string }{{Forbidden, "forbidden"}, {No, "unexpected"}, {Undecided, "undecided"}} {
		for _, l := range r.Listeners {
			if l.Verdict == verdict.verdict {
				line(verdict.shown, l.title, l.Why)
			}
		}
	}
	for _, e := range r.Expiring {
		what, why := "expiring", e.Expires+" is the last day of its approval"
		if e.Expired {
			what, why = "expired", e.Expires+" was the last day of its approval"
		}
		line(what, e.Kind+" rule "+e.Rule, why)
	}
	fmt.Fprintf(&b, "%d listeners, %d rules (digest %s): ", len(r.Listeners), len(r.Rules), r.Digest)
	var summary []string
	for _, what := range []string{"missing", "forbidden", "unexpected", "undecided"} {
		if counts[what] > 0 {
			summary = append(summary, fmt.Sprintf("%d %s", counts[what], what))
		}
	}
	if len(summary) == 0 {
		summary = []string{"ok"}
	}
	return b.String() + strings.Join(summary, ", ") + "\n"
}

// JSON returns the report as one JSON object.
func (r *Report) JSON() ([]byte, error) { return json.MarshalIndent(r, "", "  ") }
