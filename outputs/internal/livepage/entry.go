package livepage

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"sockwatch/agent/metric"
)

// An entry of the timeline is one event, or several with one cause.
type entry struct {
	events  []*event // latest first
	trusted bool
}

func (e *entry) first() *metric.Point { return e.events[0].point }

func (e *entry) isGroup() bool { return len(e.events) > 1 }

// ID returns the identity of the entry: that of its earliest event.
func (e *entry) ID() string {
	p := e.events[len(e.events)-1].point
	return identity(strconv.FormatInt(p.Time.UnixNano(), 10), p)[:16]
}

// Time returns when it happened.
func (e *entry) Time() time.Time { return e.first().Time }

// Event returns what happened: "opened", "violated", ...
func (e *entry) Event() string { return e.first().Tag("event") }

// Title returns what it happened to.
func (e *entry) Title() string {
	p := e.first()
	switch count, many := p.Field("count"); {
	case e.isGroup():
		return fmt.Sprintf("%d listeners", len(e.events))
	case many:
		return fmt.Sprintf("%s more of user %s", count, isolate(p.Tag("user")))
	case isAbout(p):
		return hostPort(p.Tag("address"), p.Tag("port"))
	default:
		return "rule " + isolate(p.Tag("name"))
	}
}

// Link returns the search for what it happened to, or "".
func (e *entry) Link() string {
	p := e.first()
	switch {
	case e.isGroup() || !isAbout(p):
		return ""
	default:
		return searchLink(rootPath, endpointSearch(p), "", 0)
	}
}

// endpointSearch returns the search for the listeners and events of one endpoint.
func endpointSearch(p *metric.Point) string {
	s := exactly("port", p.Tag("port")).String() + " " + exactly("address", p.Tag("address")).String()
	if n := p.Tag("netns"); n != "" {
		s += " " + exactly("netns", n).String()
	}
	return s
}

// Owner returns who listens, or listened.
func (e *entry) Owner() string {
	if p := e.first(); !e.isGroup() && isAbout(p) {
		return ownerText(p.Tag("process"), fieldText(p, "pid"), p.Tag("user"), p.Tag("unit"), p.Tag("user_unit"), p.Tag("container"))
	}
	return ""
}

// ownerText returns an owner as text: "nginx[812], www-data, nginx.service".
func ownerText(process, pid, user string, units ...string) string {
	s := isolate(process)
	if s == "" {
		s = "no known process"
	}
	if pid != "" {
		s += "[" + pid + "]"
	}
	for _, more := range append([]string{user}, units...) {
		if more != "" {
			s += ", " + isolate(more)
		}
	}
	return s
}

// isolate returns a name for a text that is read from left to right: a name with letters that
// are written from right to left does not change the order of what is beside it.
func isolate(name string) string {
	if strings.ContainsFunc(name, func(r rune) bool { return r >= 0x590 }) {
		return "\u2068" + name + "\u2069" // FIRST STRONG ISOLATE, POP DIRECTIONAL ISOLATE
	}
	return name
}

// Before returns the previous state, and how the change came about.
func (e *entry) Before() string {
	p := e.first()
	field := func(key string) string { return fieldText(p, key) }
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	switch e.Event() {
	case "owner_changed":
		add("was %s", ownerText(field("previous_process"), field("previous_pid"), field("previous_user"),
			field("previous_unit"), field("previous_user_unit"), field("previous_container")))
	case "exposure_changed":
		switch address := field("previous_address"); {
		case address != "":
			add("was %s at %s", field("previous_exposure"), hostPort(address, p.Tag("port")))
		case field("cause") == "host_address":
			add("%s, was %s: the addresses of the host have changed", orNone(p.Tag("exposure")), orNone(field("previous_exposure")))
		default:
			add("%s, was %s", orNone(p.Tag("exposure")), orNone(field("previous_exposure")))
		}
	case "restarted":
		if pid := field("previous_pid"); pid != "" && pid != field("pid") {
			add("was pid %s", pid)
		}
	case "opened":
		if isAbout(p) {
			add("nothing listened here before")
		}
	case "returned":
		add("had been closed")
	}
	if e.isGroup() {
		return strings.Join(parts, "; ")
	}
	if down := fieldNumber(p, "down_seconds"); down > 0 {
		add("down for at most %s", duration(down))
	}
	if field("exe_changed") == "true" {
		if e.trusted {
			add("runs %s, was %s", field("exe"), field("previous_exe"))
		} else {
			add("runs another program")
		}
	}
	if age := fieldNumber(p, "age_seconds"); age > 0 {
		add("had been open for %s", duration(age))
	}
	if lasted := fieldNumber(p, "lasted_seconds"); lasted > 0 {
		add("lasted %s", duration(lasted))
	}
	if why := field("why"); why != "" && e.Event() != "closed" && visibility("why", metric.KindString, false).includes(e.trusted) {
		add("%s", shortened(why))
	}
	if field("while_down") == "true" {
		add("while sockwatch was not running")
	}
	switch p.Tag("expected") {
	case "no":
		add("not expected")
	case "forbidden":
		add("forbidden by rule %s", isolate(field("rule")))
	}
	return strings.Join(parts, "; ")
}

func orNone(exposure string) string {
	if exposure == "" {
		return noExposure
	}
	return exposure
}

// maxReason is how many characters of a reason are shown without opening its details.
const maxReason = 200

// shortened returns the beginning of a long reason. Facts has all of it.
func shortened(why string) string {
	r := []rune(why)
	if len(r) <= maxReason {
		return why
	}
	return strings.TrimSpace(string(r[:maxReason])) + "…"
}

// duration formats seconds for people.
func duration(seconds float64) string {
	switch d := time.Duration(min(seconds, 1e9) * float64(time.Second)); {
	case d < time.Minute:
		return d.Round(time.Millisecond).String()
	case d < 48*time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	default:
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	}
}

// maxFacts is how many listeners of one entry are named.
const maxFacts = 100

// A fact is one name and value.
type fact struct{ Name, Value, Help string }

// Facts returns more about the event, or the listeners of a group.
func (e *entry) Facts() (facts []fact) {
	if !e.isGroup() {
		return pointFacts(e.first(), e.trusted, nil)
	}
	for i, ev := range e.events {
		if i == maxFacts {
			return append(facts, fact{Name: "and", Value: fmt.Sprintf("%d more", len(e.events)-i)})
		}
		facts = append(facts, fact{Name: hostPort(ev.point.Tag("address"), ev.point.Tag("port")), Value: ev.point.Tag("process")})
	}
	return facts
}

// pointFacts returns the tags and fields of a point that a reader may see, by name.
func pointFacts(p *metric.Point, trusted bool, descs []metric.Desc) []fact {
	facts := make([]fact, 0, len(p.Tags)+len(p.Fields))
	for _, t := range p.Tags {
		if visibility(t.Key, metric.KindString, true).includes(trusted) {
			facts = append(facts, fact{Name: t.Key, Value: t.Value})
		}
	}
	for _, f := range p.Fields {
		if !visibility(f.Key, f.Value.Kind(), false).includes(trusted) {
			continue
		}
		value, help := f.Value.String(), ""
		if strings.HasSuffix(f.Key, "_time_seconds") {
			if t := fieldTime(p, f.Key); !t.IsZero() {
				value = clock(t)
			}
		}
		if i := slices.IndexFunc(descs, func(d metric.Desc) bool { return d.Name == p.Name && d.Field == f.Key }); i >= 0 {
			help = descs[i].Help
		}
		facts = append(facts, fact{f.Key, value, help})
	}
	slices.SortFunc(facts, func(a, b fact) int { return strings.Compare(a.Name, b.Name) })
	return facts
}
