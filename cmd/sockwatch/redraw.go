package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"sockwatch/agent/metric"
)

// A redrawInterval is the value of --watch. Without a value, "--watch" means
// "--watch=2s"; "--watch 5s" is accepted too. 0 means that the flag is not set.
type redrawInterval time.Duration

const (
	defaultRedraw = redrawInterval(2 * time.Second)
	minRedraw     = redrawInterval(100 * time.Millisecond)
)

// Decode parses the value after "--watch". Kong calls it.
func (i *redrawInterval) Decode(ctx *kong.DecodeContext) error {
	next := ctx.Scan.Peek()
	text := next.String()
	d, err := time.ParseDuration(text)
	switch {
	case next.Type != kong.FlagValueToken && (next.IsEOL() || err != nil):
		*i = defaultRedraw
		return nil
	case err != nil:
		return fmt.Errorf("%q is not an interval such as 2s", text)
	}
	ctx.Scan.Pop()
	if *i = redrawInterval(d); *i < minRedraw {
		return fmt.Errorf("%q is shorter than %v", text, time.Duration(minRedraw))
	}
	return nil
}

// IsBool says that the flag does not need a value. Kong calls it.
func (redrawInterval) IsBool() bool { return true }

// watch redraws the table on the terminal at every interval until a signal. It does not
// switch to the alternate screen or change the terminal's modes, so that there is nothing
// to restore. The last table stays visible, and the lines before it in the scrollback.
func (c *listCommand) watch(p *program) error {
	fd, ok := p.stdout.terminal()
	if kind, _ := p.getenv("TERM"); !ok || kind == "dumb" {
		return errors.New("--watch needs a terminal that can move its cursor: for single scans use \"sockwatch list\" or \"sockwatch list --json\"")
	}
	ctx, stop := untilSignal()
	defer stop()
	s, err := p.newScanner(c)
	if err != nil {
		return err
	}
	defer s.close()
	scan, err := s.scan(ctx)
	if err != nil {
		return notInterrupted(ctx, err)
	}
	resized, stopResized := onResize()
	defer stopResized()
	ticks := time.NewTicker(time.Duration(c.Watch))
	defer ticks.Stop()

	v := view{command: c}
	v.observe(scan)
	_, lines := p.terminalSize(fd)
	io.WriteString(p.stdout, strings.Repeat("\n", lines)) // scroll the present lines up, to keep them
	for ctx.Err() == nil && p.stdout.err == nil {
		columns, lines := p.terminalSize(fd)
		io.WriteString(p.stdout, v.frame(columns, lines))
		select {
		case <-ctx.Done():
		case <-resized:
		case <-ticks.C:
			if scan, err := s.scan(ctx); err != nil {
				v.failed = err
			} else {
				v.observe(scan)
			}
		}
	}
	io.WriteString(p.stdout, "\n")
	return nil // execute returns an error of stdout
}

// A view is the content that --watch shows: the last scan, and recently opened and closed
// endpoints.
type view struct {
	command *listCommand
	scan    *hostScan
	failed  error // the error of a later scan, or nil
	marked  map[string]mark
}

// A mark says that an endpoint opened or closed recently.
type mark struct {
	sign   string // "+" or "-"
	since  time.Time
	closed []metric.Point // its listeners, if it closed
}

// markFor is how long a mark is shown: at least in one frame.
const markFor = 10 * time.Second

// observe compares a scan with the previous one and marks the differences.
func (v *view) observe(scan *hostScan) {
	before := v.scan
	v.scan, v.failed = scan, nil
	if before == nil {
		v.marked = make(map[string]mark)
		return
	}
	for endpoint, m := range v.marked {
		if scan.time.Sub(m.since) >= markFor {
			delete(v.marked, endpoint)
		}
	}
	was, is := byEndpoint(before.listeners), byEndpoint(scan.listeners)
	for endpoint, listeners := range was {
		if _, stays := is[endpoint]; !stays {
			v.marked[endpoint] = mark{sign: "-", since: scan.time, closed: listeners}
		}
	}
	for endpoint := range is {
		if _, stood := was[endpoint]; !stood {
			v.marked[endpoint] = mark{sign: "+", since: scan.time}
		}
	}
}

// byEndpoint groups listeners by network namespace, address and port. So an endpoint that
// changes its owner has neither opened nor closed.
func byEndpoint(listeners []metric.Point) map[string][]metric.Point {
	all := make(map[string][]metric.Point)
	for _, p := range listeners {
		all[endpoint(&p)] = append(all[endpoint(&p)], p)
	}
	return all
}

func endpoint(p *metric.Point) string {
	return p.Tag("netns") + "\x00" + p.Tag("address") + "\x00" + p.Tag("port")
}

// The control sequences in a frame (ECMA-48).
const (
	cursorHome   = "\x1b[H"
	clearLine    = "\x1b[K" // from the cursor to the end of the line
	clearBelow   = "\x1b[J" // from the cursor to the end of the screen
	bold, faint  = "\x1b[1m", "\x1b[2m"
	plainLetters = "\x1b[0m"
)

// frame returns the text and control sequences that draw the view over a terminal of the
// given size (0: unknown).
func (v *view) frame(columns, lines int) string {
	if columns == 0 {
		columns = 80
	}
	if lines == 0 {
		lines = 24
	}
	head, rows, notes := v.text(columns)
	if room := max(lines-len(head), 1); len(rows)+len(notes) > room {
		notes = notes[:min(len(notes), max(room-1, 0), 3)]
		if room -= len(notes); len(rows) > room {
			hidden := len(rows) - (room - 1)
			rows = append(rows[:room-1:room-1], cut(fmt.Sprintf("… %d more: narrow the list with flags such as --port or --process", hidden), columns))
		}
	}
	all := slices.Concat(head, rows, notes)
	return cursorHome + strings.Join(all[:min(len(all), lines)], clearLine+"\r\n") + clearLine + clearBelow
}

// text returns the lines of a frame: the head, a row for each listener, and notes.
func (v *view) text(columns int) (head, rows, notes []string) {
	listeners := slices.Clone(v.scan.listeners)
	for _, m := range v.marked {
		listeners = append(listeners, m.closed...)
	}
	v.command.Sort.sort(listeners)
	signs := column{title: " "}
	for i := range listeners {
		signs.cells = append(signs.cells, v.marked[endpoint(&listeners[i])].sign)
	}
	table := v.command.table(listeners, v.scan.time)
	lines := tableLines(append([]column{signs}, table...), columns)
	for i, line := range lines[1:] {
		switch signs.cells[i] {
		case "+":
			line = bold + line + plainLetters
		case "-":
			line = faint + line + plainLetters
		}
		rows = append(rows, line)
	}
	count := fmt.Sprintf("%d listeners", len(v.scan.listeners))
	if len(v.scan.listeners) == 1 {
		count = "1 listener"
	}
	title := fmt.Sprintf("%s  %s, scanned every %v; Ctrl-C ends", v.scan.time.Format(time.TimeOnly), count, time.Duration(v.command.Watch))
	head = []string{cut(title, columns), "", lines[0]}
	sentences := v.scan.notes()
	if v.failed != nil {
		sentences = append([]string{"The last scan failed: " + printable(v.failed.Error()) + "."}, sentences...)
	}
	for _, sentence := range sentences {
		notes = append(notes, strings.Split(strings.TrimSuffix(folded(sentence, columns), "\n"), "\n")...)
	}
	for i := range notes {
		notes[i] = cut(notes[i], columns)
	}
	return head, rows, notes
}

// onResize returns a channel that holds a token after the terminal has been resized.
func onResize() (<-chan os.Signal, func()) {
	c := make(chan os.Signal, 1)
	return c, notifyResize(c)
}
