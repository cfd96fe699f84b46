package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"sockwatch/agent"
	"sockwatch/agent/config"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
	"sockwatch/inputs/tcplisten"
)

type watchCommand struct {
	selection
	configFlags
	Namespaces bool            `help:"Also watch the host's other network namespaces."`
	Interval   plugin.Duration `default:"1s" placeholder:"INTERVAL" help:"How often to look: what lives shorter may be missed. At least 100ms."`
	Settle     plugin.Duration `default:"0s" placeholder:"DURATION" help:"Print closed only if a listener is gone for so long; one that is back before has restarted."`
	Since      plugin.Duration `placeholder:"DURATION" help:"First print the changes of this time, such as 24h, from the history of the running agent. The configuration says where that is."`
	JSON       bool            `name:"json" help:"Print one JSON object per change instead."`
}

// Validate checks the flags. Kong calls it.
func (c *watchCommand) Validate() error {
	if c.Interval < plugin.Duration(minRedraw) {
		return fmt.Errorf("--interval: %q is shorter than %v", c.Interval, time.Duration(minRedraw))
	}
	return nil
}

// Run prints changes until a signal.
func (c *watchCommand) Run(p *program) error {
	ctx, stop := untilSignal()
	defer stop()
	var past *pastChanges
	if c.Since > 0 {
		var err error
		if past, err = c.findPast(ctx, p); err != nil {
			return notInterrupted(ctx, err)
		}
	}
	w, err := c.newChangeWatcher(p)
	if err != nil {
		return err
	}
	defer w.gatherer.Close()
	first, err := w.gatherer.Gather(ctx)
	if err != nil {
		return notInterrupted(ctx, err)
	}
	if past != nil {
		if err := w.printPast(past, first.Time); err != nil {
			return err
		}
	}
	w.sayWhatIsWatched(first)
	return w.watch(ctx)
}

// A changeWatcher prints the changes of this host's listeners.
type changeWatcher struct {
	command  *watchCommand
	program  *program
	gatherer *agent.Gatherer
	printer  changePrinter
	warned   *warnings

	warnings int    // how many of them are printed
	partial  string // what the last look could not see
	failing  bool   // the last look failed
}

// A changePrinter prints changes. t is the time of those without one.
type changePrinter interface {
	print(t time.Time, changes []metric.Point) error
}

// watchConfig is the configuration of a watch. The history stays in memory.
const watchConfig = `
[agent]
  omit_hostname = true
  log_level = "error"
[[inputs.tcp_listen]]
  max_listeners = 1000000
  namespaces = %t
  scan_interval = %q
  settle = %q
  remember = %q
  namepass = ["tcp_listen", "tcp_listen_event"]
[[outputs.stdout]]
`

func (c *watchCommand) newChangeWatcher(p *program) (*changeWatcher, error) {
	p.inputsOnly = true
	w := &changeWatcher{command: c, program: p, warned: &warnings{}}
	text := fmt.Sprintf(watchConfig, c.Namespaces, c.Interval.String(), c.Settle.String(), plugin.MaxDuration.String())
	a, err := p.buildLogging([]config.File{{Name: "watch", Text: text}}, slog.New(w.warned))
	if err != nil {
		return nil, err
	}
	gatherers, err := a.Gatherers()
	if err != nil {
		return nil, err
	}
	w.gatherer = gatherers[0]
	if c.JSON {
		w.printer, err = p.newPointPrinter("json")
	} else {
		w.printer = p.newLinePrinter()
	}
	return w, err
}

// minGather is how often to gather at least: what is no difference in the list of
// sockets, such as another owner, is found by a gather alone.
const minGather = time.Second

// watch gathers whenever the list of sockets differs, and prints what has changed, until
// ctx is done or stdout fails.
func (w *changeWatcher) watch(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	differs := make(chan struct{}, 1)
	var scans sync.WaitGroup
	scans.Go(func() {
		w.gatherer.Watch(ctx, func() {
			select {
			case differs <- struct{}{}:
			default:
			}
		})
	})
	defer scans.Wait()
	defer cancel()
	ticks := time.NewTicker(max(time.Duration(w.command.Interval), minGather))
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-differs:
		case <-ticks.C:
		}
		b, err := w.gatherer.Gather(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			w.sayFailed(err)
			continue
		}
		w.sayWhatIsMissing(b)
		if err := w.print(b.Time, b.Events); err != nil {
			return err
		}
		if b.EventsStored != nil {
			b.EventsStored()
		}
	}
}

// print prints those of the changes that are selected.
func (w *changeWatcher) print(t time.Time, changes []metric.Point) error {
	var selected []metric.Point
	for i := range changes {
		if e := &changes[i]; e.Name == tcplisten.PointEvent && w.command.mayMatchChange(e) {
			selected = append(selected, *e)
		}
	}
	return w.printer.print(t, selected)
}

func (w *changeWatcher) say(format string, args ...any) {
	fmt.Fprintf(w.program.stderr, "sockwatch: %s\n", printable(fmt.Sprintf(format, args...)))
}

// sayWhatIsWatched describes the listeners before the first change.
func (w *changeWatcher) sayWhatIsWatched(first *metric.Batch) {
	all, selected, public, unknown := 0, 0, 0, 0
	for i := range first.Points {
		p := &first.Points[i]
		all++
		if !w.command.mayMatchChange(p) {
			continue
		}
		selected++
		if exposure(p) == "public" {
			public++
		}
		if ownerUnknown(p) {
			unknown++
		}
	}
	count := counted(all, "listener")
	if selected < all {
		count = fmt.Sprintf("%d of %s", selected, count)
	}
	w.say("watching %s, %d public, every %v; Ctrl-C ends", count, public, w.command.Interval)
	w.sayWhatIsMissing(first)
	if unknown > 0 {
		w.say("owners unknown: %d of %d", unknown, selected)
	}
}

// sayWhatIsMissing says once what looks cannot see.
func (w *changeWatcher) sayWhatIsMissing(b *metric.Batch) {
	if w.failing {
		w.failing = false
		w.say("looking works again")
	}
	if b.Partial != w.partial && b.Partial != "" {
		w.say("the look is incomplete: %s", b.Partial)
	}
	w.partial = b.Partial
	all := w.warned.all()
	for _, message := range all[w.warnings:] {
		w.say("%s", message)
	}
	w.warnings = len(all)
}

func (w *changeWatcher) sayFailed(err error) {
	if !w.failing {
		w.failing = true
		w.say("%v; trying again", err)
	}
}

// pastChanges is where the changes of the past are.
type pastChanges struct {
	stateDir string
	inputs   []string
}

// packagedStateDir is the state directory that packages and systemd use. Only systemd sets
// $STATE_DIRECTORY.
const packagedStateDir = "/var/lib/sockwatch"

// findPast asks the configuration where the running agent keeps its history.
func (c *watchCommand) findPast(ctx context.Context, p *program) (*pastChanges, error) {
	p.inputsOnly = true
	r := p.reader(c.configFlags)
	files, err := r.read(ctx)
	if err != nil {
		return nil, err
	}
	a, err := p.buildFrom(ctx, files, slog.New(slog.DiscardHandler), r.includer)
	if err != nil {
		return nil, err
	}
	past := &pastChanges{stateDir: a.Options.StateDirectory}
	if info, err := os.Stat(packagedStateDir); past.stateDir == "" && err == nil && info.IsDir() {
		past.stateDir = packagedStateDir
	}
	for _, in := range a.Inputs {
		if in.Plugin.Name == tcplisten.Plugin.Name {
			past.inputs = append(past.inputs, in.Name)
		}
	}
	return past, nil
}

// printPast prints the changes since the time that --since names, and says if there may
// have been others. What cannot be read does not keep from watching.
func (w *changeWatcher) printPast(past *pastChanges, now time.Time) error {
	if past.stateDir == "" {
		w.say("no history: the configuration has no state_directory")
		return nil
	}
	if len(past.inputs) == 0 {
		w.say("no history: the configuration has no [[inputs.tcp_listen]]")
		return nil
	}
	since := now.Add(-time.Duration(w.command.Since))
	for _, input := range past.inputs {
		changes, err := tcplisten.RecentChanges(past.stateDir, input)
		if err != nil {
			w.say("no history: %s", historyError(err, past.stateDir, input))
			continue
		}
		first := slices.IndexFunc(changes, func(p metric.Point) bool { return !p.Time.Before(since) })
		if first < 0 {
			first = len(changes)
		}
		begins := since
		if first == 0 && len(changes) > 0 && changes[0].Tag("event") != "" && sequence(&changes[0]) > 1 {
			begins = changes[0].Time // older ones are not kept
		}
		w.say("inputs.%s: %s since %s", input, counted(len(changes)-first, "change"), begins.Local().Format(time.DateTime))
		if err := w.print(now, changes[first:]); err != nil {
			return err
		}
	}
	return nil
}

// sequence returns the number of an event in its history.
func sequence(e *metric.Point) int64 {
	v, _ := e.Field("sequence")
	n, _ := v.Number()
	return int64(n)
}

// historyError says why there is no history.
func historyError(err error, stateDir, input string) string {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf("%v: run as root, or as the user of the agent", err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Sprintf("%s holds none of inputs.%s: the agent has not run with this configuration", stateDir, input)
	default:
		return err.Error()
	}
}

// ownerUnknown reports whether it is not known who owns a listener.
func ownerUnknown(p *metric.Point) bool { return p.Tag("process") == "" && p.Tag("owner") != "none" }

// mayMatchChange reports whether a change of a listener is selected, by what the listener is
// or was, or may be if its owner were known.
func (s *selection) mayMatchChange(e *metric.Point) bool {
	if _, many := e.Field("count"); many { // stands for others, of which only the user is known
		return matchTags(&s.User, e, "user")
	}
	was, changed := before(e)
	return s.mayBe(e) || changed && s.mayBe(&was)
}

func (s *selection) mayBe(p *metric.Point) bool {
	return s.matchKnown(p) && (ownerUnknown(p) || s.matchOwner(p))
}

// previousOwnerKeys are the tags that an event has as fields too, with "previous_" before
// them, if another owner had the listener.
var previousOwnerKeys = [...]string{"process", "user", "unit", "user_unit", "container"}

// before returns the listener as it was before a change of its owner, address or
// exposure, and reports whether it was such a change.
func before(e *metric.Point) (metric.Point, bool) {
	keys := []string{}
	switch e.Tag("event") {
	case "owner_changed":
		keys = previousOwnerKeys[:]
	case "exposure_changed":
		keys = []string{"exposure"}
		if _, moved := e.Field("previous_address"); moved {
			keys = append(keys, "address")
		}
	default:
		return metric.Point{}, false
	}
	was := metric.Point{Name: e.Name}
	for _, t := range e.Tags {
		if !slices.Contains(keys, t.Key) {
			was.Tags = append(was.Tags, t)
		}
	}
	for _, key := range keys {
		if v, ok := e.Field("previous_" + key); ok && v.String() != "none" {
			was.Tags = append(was.Tags, metric.Tag{Key: key, Value: v.String()})
		}
	}
	if pid, ok := e.Field("previous_pid"); ok {
		was.Fields = append(was.Fields, metric.Field{Key: "pid", Value: pid})
	}
	metric.SortTags(was.Tags)
	return was, true
}

// A linePrinter prints changes as lines for people.
type linePrinter struct {
	program *program
	out     io.Writer
	screen  bool      // out is a terminal
	colour  bool      // it shows colours
	day     time.Time // of the last line, or when the command was started
}

func (p *program) newLinePrinter() *linePrinter {
	_, screen := p.stdout.terminal()
	noColour, _ := p.getenv("NO_COLOR")
	kind, _ := p.getenv("TERM")
	return &linePrinter{program: p, out: p.stdout, screen: screen, colour: screen && noColour == "" && kind != "dumb", day: time.Now()}
}

// print prints a line for each change. On a terminal, a date precedes those of another
// day than before, and long lines go on below the column of the owner.
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
		b.WriteString(l.coloured(e, changeLine(clock, e, width)))
	}
	if b.Len() == 0 {
		return nil
	}
	_, err := io.WriteString(l.out, b.String())
	return err
}

// coloured colours the name of the event in a line.
func (l *linePrinter) coloured(e *metric.Point, line string) string {
	event := e.Tag("event")
	if !l.colour {
		return line
	}
	colour := "\x1b[33m" // yellow: another owner or exposure
	switch event {
	case "opened", "returned":
		colour = "\x1b[32m" // green
	case "closed":
		colour = "\x1b[31m" // red
	case "restarted":
		colour = "\x1b[36m" // cyan
	}
	return strings.Replace(line, event, colour+event+plainLetters, 1)
}

// The columns of a line, from the end of the time on.
const (
	columnEvent    = 2
	columnAddress  = columnEvent + len("owner_changed") + 2
	columnExposure = columnAddress + len("192.168.100.100:65535") + 2
	columnOwner    = columnExposure + len("loopback") + 2
)

// changeLine returns a change as one line or, if that is longer than a terminal of that
// width, as several: time, event, address, exposure, owner, and what was before. A cell
// that is too long moves the next ones, as far as they are not aligned again.
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
	indent := start + columnOwner
	rest := folded(printable(detail(e)), 0)
	if width > 0 && used+2+cells(rest)-1 > width {
		if indent > width/2 {
			indent = start + columnEvent
			rest = "\n" + strings.Repeat(" ", indent) + indented(rest, width-indent, indent)
			b.WriteString(rest)
			return b.String()
		}
		rest = indented(rest, width-max(indent, used+2), indent)
	}
	b.WriteString(strings.Repeat(" ", max(indent-used, 2)) + rest)
	return b.String()
}

// indented folds text to a width; its second and further lines are indented.
func indented(text string, width, indent int) string {
	lines := strings.TrimSuffix(folded(text, max(width, 1)), "\n")
	return strings.ReplaceAll(lines, "\n", "\n"+strings.Repeat(" ", indent)) + "\n"
}

// detail returns whose a listener is, and what was before the change.
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
