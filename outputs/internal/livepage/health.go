package livepage

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// problems returns what is wrong with inputs, outputs and the configuration, one sentence
// each. Trusted readers see the reasons.
func problems(board plugin.Board, trusted bool) (problems []string) {
	add := func(err error, format string, args ...any) {
		s := fmt.Sprintf(format, args...)
		if trusted {
			s += ": " + err.Error()
		}
		problems = append(problems, s)
	}
	for _, s := range board.Sources() {
		if s.Err != nil {
			add(s.Err, "Input %s has failed since %s", s.Name, clock(s.Since))
		}
	}
	health := board.Health()
	for _, o := range health.Outputs {
		if o.Err != nil {
			add(o.Err, "Output %s has failed since %s", o.Name, clock(o.Since))
		}
	}
	if health.Config.Err != nil {
		add(health.Config.Err, "The reload of the configuration failed at %s, the previous one is in use", clock(health.Config.Failed))
	}
	return problems
}

// missing returns what is missing from the table, one sentence each.
func (p *Page) missing(snap *snapshot, trusted bool) (messages []string) {
	if len(snap.batches) == 0 {
		return []string{"Nothing has been gathered yet."}
	}
	sources, failed, listed := p.board.Sources(), false, false
	for _, s := range sources {
		if !listsListeners(s) {
			continue
		}
		listed = true
		if s.Err != nil || snap.sources[s.Name] == nil {
			failed = true
			messages = append(messages, fmt.Sprintf("The listeners of %s are not known: %s.", s.Name, whyMissing(s)))
		}
	}
	switch {
	case len(snap.rows) > 0 || failed:
	case listed:
		messages = append(messages, "There are no listeners, or the filters of this output drop them.")
	default:
		messages = append(messages, "No input of the configuration lists listeners.")
	}
	for _, b := range snap.batches {
		if n := snap.beyond(b.Source); n > 0 {
			messages = append(messages, fmt.Sprintf("%d more listeners of %s are not shown: it reports at most max_listeners.", n, b.Source))
		}
		if b.Partial == "" {
			continue
		}
		m := fmt.Sprintf("Some data of %s is missing", b.Source)
		if trusted {
			m += ": " + b.Partial
		}
		messages = append(messages, m+".")
	}
	return messages
}

// listsListeners reports whether the points of a source can be listeners.
func listsListeners(s plugin.SourceState) bool {
	return slices.Contains(s.Tags, "address") && slices.Contains(s.Tags, "port")
}

func whyMissing(s plugin.SourceState) string {
	if s.Err != nil {
		return "its last gather failed"
	}
	return "its first gather has not ended"
}

// A healthView is the page about the agent itself.
type healthView struct {
	Trusted  bool
	Inputs   []inputHealth
	Outputs  []plugin.OutputState
	Config   plugin.ConfigState
	Problems []string
}

// An inputHealth is one input with its last batch.
type inputHealth struct {
	plugin.SourceState
	Batch *metric.Batch // nil: none
}

// Points returns how many points the input has.
func (i inputHealth) Points() int {
	if i.Batch == nil {
		return 0
	}
	return len(i.Batch.Points)
}

// A methodsView says how an input finds listeners.
type methodsView struct {
	Listeners string // "netlink" or "procfs"
	Owners    string // "bpf" or "procfs"
	Events    string // whether the kernel reports each listener as it opens: "on" or "off"
	Lost      string // how many of these reports were lost; "" without them
}

// Methods returns how the input finds listeners, or nil if its points do not say so.
func (i inputHealth) Methods() *methodsView {
	if i.Batch == nil {
		return nil
	}
	for n := range i.Batch.Points {
		if p := &i.Batch.Points[n]; p.Tag("owner_source") != "" && p.Tag("listen_events") != "" {
			return &methodsView{p.Tag("listener_source"), p.Tag("owner_source"), p.Tag("listen_events"), fieldText(p, "lost_events_total")}
		}
	}
	return nil
}

func (p *Page) health(trusted bool) *healthView {
	h := p.board.Health()
	v := &healthView{Trusted: trusted, Outputs: h.Outputs, Config: h.Config, Problems: problems(p.board, trusted)}
	latest := p.board.Latest()
	for _, s := range p.board.Sources() {
		in := inputHealth{SourceState: s}
		if i := slices.IndexFunc(latest, func(b *metric.Batch) bool { return b.Source == s.Name }); i >= 0 {
			in.Batch = latest[i]
		}
		v.Inputs = append(v.Inputs, in)
	}
	return v
}

// Limited reports whether an input cannot see everything.
func (v *healthView) Limited() bool {
	return slices.ContainsFunc(v.Inputs, func(i inputHealth) bool { return len(i.Limits) > 0 })
}

// HasMethods reports whether an input says how it finds listeners.
func (v *healthView) HasMethods() bool {
	return slices.ContainsFunc(v.Inputs, func(i inputHealth) bool { return i.Methods() != nil })
}

// clock formats a time for people.
func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }

// version returns the version of the program, which is one of its points, or "".
func version(latest []*metric.Batch) string {
	for _, b := range latest {
		for i := range b.Points {
			if p := &b.Points[i]; strings.HasSuffix(p.Name, "build_info") && p.Tag("version") != "" {
				return p.Tag("version")
			}
		}
	}
	return ""
}
