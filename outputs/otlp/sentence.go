package otlp

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
	"unicode"

	"sockwatch/agent/metric"
)

// sentence returns an event as one line to read. A change of a listener reads as `sockwatch
// watch` prints it: event, address, exposure, owner, and what was before.
func sentence(event *metric.Point) string {
	kind, name := event.Tag("event"), event.Tag("name")
	text := ""
	switch count, many := event.Field("count"); {
	case kind == "":
		text = event.Series()
	case many:
		text = fmt.Sprintf("%s %v more of user %s", kind, count, event.Tag("user"))
	case event.Tag("port") != "":
		text = strings.Join([]string{kind, address(event), exposure(event), owner(event)}, " ")
	case name != "":
		text = kind + " rule " + name
	default:
		text = kind + " " + event.Series()
	}
	return printable(strings.Join(append([]string{text}, details(event)...), "; "))
}

// details returns what else there is to say about an event.
func details(event *metric.Point) (parts []string) {
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	text := func(key string) string {
		v, ok := event.Field(key)
		if !ok {
			return ""
		}
		return v.String()
	}
	previous := before(event)
	switch event.Tag("event") {
	case "owner_changed":
		add("was %s", owner(previous))
	case "exposure_changed":
		if text("previous_address") != "" {
			add("was %s at %s", exposure(previous), address(previous))
		} else {
			add("was %s: the addresses of the host have changed", exposure(previous))
		}
	case "restarted":
		if pid := text("previous_pid"); pid != "" && pid != text("pid") {
			add("was pid %s", pid)
		}
	}
	if down := seconds(event, "down_seconds"); down > 0 {
		add("down %s", briefly(down))
	}
	if text("exe_changed") == "true" {
		add("runs %s, was %s", text("exe"), text("previous_exe"))
	} else if text("exe_deleted") == "true" {
		add("runs %s, which is deleted", text("exe"))
	}
	if age := seconds(event, "age_seconds"); age > 0 {
		add("open for %s", inTwoUnits(age))
	}
	if lasted := seconds(event, "lasted_seconds"); lasted > 0 {
		add("lasted %s", briefly(lasted))
	}
	if text("while_down") == "true" {
		add("while the agent was down")
	}
	switch cmp.Or(event.Tag("expected"), text("verdict")) {
	case "no":
		add("not expected")
	case "forbidden":
		add("forbidden by rule %s", cmp.Or(text("rule"), event.Tag("name")))
	}
	if _, ruled := event.Field("verdict"); (ruled || event.Tag("event") == "failed") && text("why") != "" {
		add("%s", text("why"))
	}
	return parts
}

// before returns a listener as it was before a change of its owner, address or exposure.
func before(event *metric.Point) *metric.Point {
	keys := []string{"process", "user", "unit", "user_unit", "container"}
	if event.Tag("event") == "exposure_changed" {
		keys = []string{"exposure"}
		if _, moved := event.Field("previous_address"); moved {
			keys = append(keys, "address")
		}
	}
	was := metric.Point{Name: event.Name}
	for _, t := range event.Tags {
		if !slices.Contains(keys, t.Key) {
			was.Tags = append(was.Tags, t)
		}
	}
	for _, key := range keys {
		if v, ok := event.Field("previous_" + key); ok && v.String() != "none" {
			was.Tags = append(was.Tags, metric.Tag{Key: key, Value: v.String()})
		}
	}
	if pid, ok := event.Field("previous_pid"); ok {
		was.Fields = []metric.Field{{Key: "pid", Value: pid}}
	}
	return &was
}

// owner returns the owner of a listener: process, pid, user, unit or container, and namespace.
func owner(p *metric.Point) string {
	s := p.Tag("process")
	if s == "" {
		s = "(" + cmp.Or(p.Tag("owner"), "unknown") + ")"
	}
	if pid, ok := p.Field("pid"); ok {
		s += "[" + pid.String() + "]"
	}
	unit := cmp.Or(p.Tag("unit"), p.Tag("container"), p.Tag("pod"))
	if user := p.Tag("user_unit"); user != "" {
		unit = user + " (user)"
	}
	for _, more := range []string{p.Tag("user"), unit} {
		if more != "" {
			s += " " + more
		}
	}
	if netns := p.Tag("netns"); netns != "" {
		s += " in netns " + netns
	}
	return s
}

// address returns ADDRESS:PORT as ss prints it: with "*" for a listener of both families.
func address(p *metric.Point) string {
	host := p.Tag("address")
	if rest, ok := strings.CutPrefix(host, "::"); ok && p.Tag("family") == "dual" && (rest == "" || rest[0] == '%') {
		return "*" + rest + ":" + p.Tag("port")
	}
	return net.JoinHostPort(host, p.Tag("port"))
}

func exposure(p *metric.Point) string { return cmp.Or(p.Tag("exposure"), "none") }

// seconds returns a field as a duration.
func seconds(p *metric.Point, key string) time.Duration {
	v, _ := p.Field(key)
	n, _ := v.Number()
	return time.Duration(n * float64(time.Second))
}

// briefly formats a duration, with a decimal if it is short.
func briefly(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return inTwoUnits(d)
}

// inTwoUnits formats a duration in its two largest units: "3d4h", "12m30s".
func inTwoUnits(d time.Duration) string {
	switch s := int64(d / time.Second); {
	case s >= 86400:
		return fmt.Sprintf("%dd%dh", s/86400, s/3600%24)
	case s >= 3600:
		return fmt.Sprintf("%dh%dm", s/3600, s/60%60)
	case s >= 60:
		return fmt.Sprintf("%dm%ds", s/60, s%60)
	default:
		return fmt.Sprintf("%ds", s)
	}
}

// printable escapes what could move a terminal's cursor.
func printable(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		for _, c := range []byte(string(r)) {
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String()
}
