package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"sockwatch/agent/metric"
)

// A linePrinter prints changes as lines for people.
type linePrinter struct {
	program *program
	out     io.Writer
	screen  bool      // out is a terminal
	color   bool      // it shows colors
	day     time.Time // of the last line, or when the command was started
}

func (p *program) newLinePrinter() *linePrinter {
	_, screen := p.stdout.terminal()
	noColor, _ := p.getenv("NO_COLOR")
	kind, _ := p.getenv("TERM")
	return &linePrinter{program: p, out: p.stdout, screen: screen, color: screen && noColor == "" && kind != "dumb", day: time.Now()}
}

// print prints a line for each change. On a terminal, a date precedes the first change of a
// new day, and long lines continue below the column of the address.
func (l *linePrinter) print(t time.Time, changes []metric.Point) error {
	width := 0
	if l.screen {
		width = l.program.width()
	}
	var b strings.Builder
	for i := range changes {
		e := &changes[i]
		at := e.Time
		if at.IsZero() {
			at = t
		}
		at = at.Local()
		if l.screen && at.Format(time.DateOnly) != l.day.Format(time.DateOnly) {
			b.WriteString(at.Format("Monday, 2006-01-02") + "\n")
		}
		l.day = at
		clock := at.Format(time.RFC3339)
		if l.screen {
			clock = at.Format(time.TimeOnly)
		}
		b.WriteString(l.colored(e, changeLine(clock, e, width)))
	}
	if b.Len() == 0 {
		return nil
	}
	_, err := io.WriteString(l.out, b.String())
	return err
}

// colored colors the name of the event in a line.
func (l *linePrinter) colored(e *metric.Point, line string) string {
	event := e.Tag("event")
	if !l.color {
		return line
	}
	color := "\x1b[33m" // yellow: another owner or exposure
	switch event {
	case "opened", "returned":
		color = "\x1b[32m" // green
	case "closed":
		color = "\x1b[31m" // red
	case "restarted":
		color = "\x1b[36m" // cyan
	}
	return strings.Replace(line, event, color+event+plainLetters, 1)
}

// The columns of a line, from the end of the time on.
const (
	columnEvent    = 2
	columnAddress  = columnEvent + len("owner_changed") + 2
	columnExposure = columnAddress + len("192.168.100.100:65535") + 2
	columnOwner    = columnExposure + len("loopback") + 2
)

// changeLine returns a change as one line or, if that is longer than a terminal of that
// width, as several: time, event, address, exposure, owner, and the previous state. A cell
// that is too long takes room from the gap behind the next one. Width 0 means no limit.
func changeLine(clock string, e *metric.Point, width int) string {
	var b strings.Builder
	used := 0
	add := func(column int, cell string) {
		if used > 0 {
			gap := max(column-used, 2)
			b.WriteString(strings.Repeat(" ", gap))
			used += gap
		}
		cell = printable(cell)
		b.WriteString(cell)
		used += cells(cell)
	}
	start := len(clock)
	add(0, clock)
	add(start+columnEvent, e.Tag("event"))
	if _, many := e.Field("count"); many {
		add(start+columnAddress, "")
	} else {
		add(start+columnAddress, address(e))
		add(start+columnExposure, exposure(e))
	}
	begin := max(start+columnOwner, used+2)
	b.WriteString(strings.Repeat(" ", begin-used))
	for i, line := range wrapped(printable(detail(e)), width, begin, start+columnAddress) {
		if i > 0 {
			b.WriteString(strings.Repeat(" ", start+columnAddress))
		}
		b.WriteString(line + "\n")
	}
	return b.String()
}

// wrapped breaks a sentence into lines that end at a width. The first line begins at one
// column, the others at another. 0 means no limit.
func wrapped(text string, width, first, others int) []string {
	lines := []string{""}
	begin := first
	for word := range strings.SplitSeq(text, " ") {
		line := &lines[len(lines)-1]
		switch {
		case *line == "":
			*line = word
		case width > 0 && begin+cells(*line)+1+cells(word) > width:
			begin = others
			lines = append(lines, word)
		default:
			*line += " " + word
		}
	}
	return lines
}

// detail returns the owner of a listener, and the previous state.
func detail(e *metric.Point) string {
	if v, ok := e.Field("count"); ok {
		return fmt.Sprintf("%s more of user %s", v.String(), e.Tag("user"))
	}
	parts := []string{holder(e)}
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	text := func(key string) string {
		v, ok := e.Field(key)
		if !ok {
			return ""
		}
		return v.String()
	}
	switch was, _ := before(e); e.Tag("event") {
	case "owner_changed":
		add("was %s", holder(&was))
	case "exposure_changed":
		if text("previous_address") != "" {
			add("was %s at %s", exposure(&was), address(&was))
		} else {
			add("was %s: the addresses of the host have changed", exposure(&was))
		}
	case "restarted":
		if pid := text("previous_pid"); pid != "" && pid != text("pid") {
			add("was pid %s", pid)
		}
	}
	if down := seconds(e, "down_seconds"); down > 0 {
		add("down %s", shortly(down))
	}
	if text("exe_changed") == "true" {
		add("runs %s, was %s", text("exe"), text("previous_exe"))
	} else if text("exe_deleted") == "true" {
		add("runs %s, which is deleted", text("exe"))
	}
	if age := seconds(e, "age_seconds"); age > 0 {
		add("open for %s", ago(age))
	}
	if text("while_down") == "true" {
		add("while the agent was down")
	}
	switch e.Tag("expected") {
	case "no":
		add("not expected")
	case "forbidden":
		add("forbidden by rule %s", text("rule"))
	}
	return strings.Join(parts, "; ")
}

// holder returns the owner of a listener: process, pid, user, unit and namespace.
func holder(p *metric.Point) string {
	s := owner(p)
	if v, ok := p.Field("pid"); ok {
		s += "[" + v.String() + "]"
	}
	for _, more := range []string{p.Tag("user"), unit(p)} {
		if more != "" {
			s += " " + more
		}
	}
	if netns := p.Tag("netns"); netns != "" {
		s += " in netns " + netns
	}
	return s
}

// seconds returns a field as a duration.
func seconds(p *metric.Point, key string) time.Duration {
	n, _ := field(key)(p)
	return time.Duration(n * float64(time.Second))
}

// shortly formats a duration, with a decimal if it is short.
func shortly(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return ago(d)
}
