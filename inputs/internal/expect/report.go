package expect

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Report is the outcome of one evaluation, for `sockwatch check --live`.
type Report struct {
	Host       string            `json:"host"`
	MachineID  string            `json:"machine_id"`
	BootID     string            `json:"boot_id"`
	Input      string            `json:"input"` // the input that has these rules
	Time       time.Time         `json:"time"`
	Digest     string            `json:"digest"`               // of the rules
	OK         bool              `json:"ok"`                   // nothing is missing, unexpected, forbidden or undecided, and the scan was complete
	Incomplete string            `json:"incomplete,omitempty"` // what could not be inspected
	Rules      []RuleOutcome     `json:"rules"`
	Listeners  []ListenerOutcome `json:"listeners"`
	Expiring   []Expiry          `json:"expiring"`
}

// A RuleOutcome says whether a rule holds.
type RuleOutcome struct {
	Rule      string `json:"rule"`
	Kind      string `json:"kind"`          // "expect", "allow" or "forbid"
	Outcome   string `json:"outcome"`       // "holds", "missing", "violated", "undecided", or "" for an allow rule
	Why       string `json:"why,omitempty"` // what is missing
	Matches   int    `json:"matches"`       // matching endpoints; for an allow rule, the listeners that it decided on
	Undecided int    `json:"undecided"`

	Justification string `json:"justification,omitempty"` // the option why
	Ticket        string `json:"ticket,omitempty"`
	ApprovedBy    string `json:"approved_by,omitempty"`
	Expires       string `json:"expires,omitempty"`
}

// A ListenerOutcome is a listener and its verdict.
type ListenerOutcome struct {
	Verdict string            `json:"verdict"` // "forbidden", "yes", "undecided", "no", or "" if it is not listed and need not be
	Rule    string            `json:"rule"`    // the rule that decided, or the nearest one; "" if none is near
	Why     string            `json:"why"`
	Exe     string            `json:"exe,omitempty"` // of the process in the tag process
	Tags    map[string]string `json:"tags"`          // of its point

	title string
}

// NewReport evaluates rules once and ignores `for`: what must listen must do so now. The
// caller sets Host, MachineID, BootID and Input, and calls SetIncomplete if necessary.
func NewReport(r *Rules, listeners []*Listener, now time.Time) *Report {
	report := &Report{
		Time: now.UTC(), Digest: r.digest, OK: true,
		Rules: []RuleOutcome{}, Listeners: []ListenerOutcome{}, Expiring: append([]Expiry{}, r.Expiring(now)...),
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

// worstOfEach returns one listener for each point: the first one with the worst verdict.
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

// SetIncomplete records what could not be inspected. The report is then not OK.
func (r *Report) SetIncomplete(what string) {
	r.Incomplete = what
	r.OK = r.OK && what == ""
}

// Text returns the report for people, worst first: what is missing, forbidden, unexpected
// and undecided, with the nearest rule and the criteria that do not match.
func (r *Report) Text() string {
	var b strings.Builder
	line := func(what, subject, why string) { fmt.Fprintf(&b, "%-10s  %s: %s\n", what, subject, why) }
	rules := func(outcome string) {
		for _, o := range r.Rules {
			if o.Kind == kindExpect && o.Outcome == outcome {
				line(outcome, o.Rule, o.because())
			}
		}
	}
	listeners := func(verdict, shown string) {
		for _, l := range r.Listeners {
			if l.Verdict == verdict {
				line(shown, l.title+l.whose(), l.Why)
			}
		}
	}
	rules("missing")
	listeners(Forbidden, "forbidden")
	listeners(No, "unexpected")
	rules("undecided")
	listeners(Undecided, "undecided")
	if r.Incomplete != "" {
		fmt.Fprintf(&b, "%-10s  %s\n", "incomplete", r.Incomplete)
	}
	for _, e := range r.Expiring {
		what, why := "expiring", e.Expires+" is the last day of its approval"
		if e.Expired {
			what, why = "expired", e.Expires+" was the last day of its approval"
		}
		line(what, e.Kind+" rule "+e.Rule, why)
	}
	return b.String() + r.Summary() + "\n"
}

// because returns what is missing, and the rule's justification to say why that matters.
func (o *RuleOutcome) because() string {
	if o.Justification == "" {
		return o.Why
	}
	return o.Why + " (" + o.Justification + ")"
}

// whose returns the user of a listener, and its unit or container.
func (l *ListenerOutcome) whose() string {
	var all []string
	if user := l.Tags["user"]; user != "" {
		all = append(all, user)
	}
	switch container := cmp.Or(l.Tags["container"], l.Tags["pod"]); {
	case l.Tags["user_unit"] != "":
		all = append(all, l.Tags["user_unit"]+" of the user")
	case l.Tags["unit"] != "":
		all = append(all, l.Tags["unit"])
	case container != "":
		all = append(all, container)
	}
	if all == nil {
		return ""
	}
	return " (" + strings.Join(all, ", ") + ")"
}

// Summary returns the numbers of listeners, rules and problems, as one line without a
// newline.
func (r *Report) Summary() string {
	counts := make(map[string]int)
	for _, o := range r.Rules {
		if o.Kind == kindExpect {
			counts[o.Outcome]++
		}
	}
	for _, l := range r.Listeners {
		counts[l.Verdict]++
	}
	var faults []string
	for _, c := range []struct{ outcome, shown string }{{"missing", "missing"}, {Forbidden, "forbidden"}, {No, "unexpected"}, {Undecided, "undecided"}} {
		if n := counts[c.outcome]; n > 0 {
			faults = append(faults, fmt.Sprintf("%d %s", n, c.shown))
		}
	}
	if r.Incomplete != "" {
		faults = append(faults, "incomplete")
	}
	if len(faults) == 0 {
		faults = []string{"ok"}
	}
	listeners := counted(len(r.Listeners), "listener")
	if n := counts[""]; n > 0 { // the option unlisted does not require one
		listeners += fmt.Sprintf(" (%d without a rule)", n)
	}
	return fmt.Sprintf("%s, %s (digest %s): %s", listeners, counted(len(r.Rules), "rule"), r.Digest, strings.Join(faults, ", "))
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// JSON returns the report as one line of JSON, without a newline.
func (r *Report) JSON() ([]byte, error) { return json.Marshal(r) }
