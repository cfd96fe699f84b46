package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"sockwatch/agent"
	"sockwatch/agent/config"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

type listCommand struct {
	selection
	Sort       sortKey        `placeholder:"COLUMN" help:"Sort by this column, such as process, queue or since; --sort=-queue sorts in descending order. Default: port."`
	Wide       bool           `help:"Add the columns FAMILY, CONTAINER and EXE. Without --watch, do not cut lines to the width of the terminal."`
	Namespaces bool           `help:"Also list the host's other network namespaces, and add the column NETNS."`
	Watch      redrawInterval `xor:"form" help:"Redraw the table every 2 seconds, or as in --watch=5s, and mark listeners that opened (+) or closed (-)."`
	JSON       bool           `name:"json" xor:"form" help:"Print one JSON object per listener instead."`
}

// Run prints one scan or, with --watch, redraws the table until a signal.
func (c *listCommand) Run(p *program) error {
	c.warn(p)
	if c.Watch > 0 {
		return c.watch(p)
	}
	s, err := p.newScanner(c)
	if err != nil {
		return err
	}
	defer s.close()
	scan, err := s.scan(context.Background())
	if err != nil {
		return err
	}
	if c.JSON {
		return c.printJSON(p, scan)
	}
	limit := p.width()
	w := bufio.NewWriter(p.stdout)
	columns := c.table(scan.listeners, scan.time)
	if c.Wide {
		writeTable(w, columns, 0)
	} else {
		writeTable(w, columns, limit)
	}
	for _, line := range scan.notes() {
		fmt.Fprint(w, folded(line, limit))
	}
	return w.Flush()
}

// printJSON prints the listeners on stdout, and what is missing on stderr.
func (c *listCommand) printJSON(p *program, scan *hostScan) error {
	p.warnOfPartial([]*metric.Batch{scan.batch})
	for _, message := range scan.limits {
		fmt.Fprintf(p.stderr, "sockwatch: %s\n", printable(message))
	}
	if scan.unreadable > 0 {
		fmt.Fprintf(p.stderr, "sockwatch: owners unknown: %d of %d\n", scan.unreadable, scan.candidates)
	}
	return p.printPoints("json", scan.time, scan.listeners)
}

// warnOfPartial prints on stderr what is missing from the batches.
func (p *program) warnOfPartial(batches []*metric.Batch) {
	for _, b := range batches {
		if b.Partial != "" {
			fmt.Fprintf(p.stderr, "sockwatch: inputs.%s: the scan is incomplete: %s\n", b.Source, printable(b.Partial))
		}
	}
}

// A scanner scans this host for commands that do not need a configuration.
type scanner struct {
	command  *listCommand
	gatherer *agent.Gatherer
}

// scanConfig is the configuration of complete scans. What the input cannot see is printed
// below the table instead of logged.
const scanConfig = `
[agent]
  omit_hostname = true
  log_level = "error"
[[inputs.tcp_listen]]
  max_listeners = 1000000
  namespaces = %t
  namepass = ["tcp_listen"]
[[outputs.stdout]]
`

func (p *program) newScanner(c *listCommand) (*scanner, error) {
	g, err := p.gatherer("list", fmt.Sprintf(scanConfig, c.Namespaces), slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	return &scanner{command: c, gatherer: g}, nil
}

// gatherer returns the input of a configuration that is part of the program.
func (p *program) gatherer(name, text string, log *slog.Logger) (*agent.Gatherer, error) {
	p.inputsOnly = true
	a, err := p.buildLogging([]config.File{{Name: name, Text: text}}, log)
	if err != nil {
		return nil, err
	}
	gatherers, err := a.Gatherers()
	if err != nil {
		return nil, err
	}
	return gatherers[0], nil
}

func (s *scanner) close() { s.gatherer.Close() }

// A hostScan is the result of one scan of this host.
type hostScan struct {
	batch      *metric.Batch
	time       time.Time
	listeners  []metric.Point // selected and sorted
	candidates int            // how many listeners are selected, or may be
	unreadable int            // how many of these have an unreadable owner
	limits     []string       // what the input could not see, see plugin.LimitReporter
}

// scan scans once.
func (s *scanner) scan(ctx context.Context) (*hostScan, error) {
	b, err := s.gatherer.Gather(ctx)
	if err != nil {
		return nil, err
	}
	scan := &hostScan{batch: b, time: b.Time, limits: s.gatherer.Limits()}
	for i := range b.Points {
		p := &b.Points[i]
		if s.command.mayMatch(p) {
			scan.candidates++
			if ownerUnreadable(p) {
				scan.unreadable++
			}
		}
		if s.command.match(p) {
			scan.listeners = append(scan.listeners, *p)
		}
	}
	s.command.Sort.sort(scan.listeners)
	return scan, nil
}

// notes returns sentences to print below the table: what is missing, and why.
func (s *hostScan) notes() []string {
	var lines []string
	if s.unreadable > 0 {
		lines = append(lines, fmt.Sprintf("Owners unknown: %d of %d.", s.unreadable, s.candidates))
	}
	for _, message := range s.limits {
		lines = append(lines, "Warning: "+printable(message)+".")
	}
	if s.batch.Partial != "" {
		lines = append(lines, "The scan is incomplete: "+printable(s.batch.Partial)+".")
	}
	return lines
}

// A pointPrinter prints points as the stdout output does.
type pointPrinter struct {
	out    *dataWriter
	pusher plugin.Pusher
}

// newPointPrinter returns a pointPrinter for a data_format of the stdout output.
func (p *program) newPointPrinter(format string) (*pointPrinter, error) {
	text := fmt.Sprintf("[[inputs.tcp_listen]]\n[[outputs.stdout]]\ndata_format = %q\n", format)
	a, err := p.build([]config.File{{Name: "output", Text: text}})
	if err != nil {
		return nil, err
	}
	return &pointPrinter{p.stdout, a.Push[0].Pusher}, nil
}

// atomicBytes is what a pipe takes in one piece or not at all (PIPE_BUF, pipe(7)).
const atomicBytes = 4096

// print prints points. Points without a time get t. Points that the format cannot
// represent are omitted and named in the error. Each write holds whole lines, as many as
// a pipe takes in one piece: the end of the program does not tear a line that is shorter
// than that.
func (pp *pointPrinter) print(t time.Time, points []metric.Point) error {
	var lines []byte
	var errs []error
	write := func(b []byte) {
		if len(b) > 0 && pp.out.err == nil {
			_, err := pp.out.Write(b)
			errs = append(errs, err)
		}
	}
	for i := range points {
		point := points[i]
		if point.Time.IsZero() {
			point.Time = t
		}
		whole := len(lines)
		record, err := pp.pusher.Encode(lines, &point)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", point.Series(), err))
			continue
		}
		if lines = record; len(lines) > whole && lines[len(lines)-1] != '\n' {
			lines = append(lines, '\n')
		}
		if len(lines) > atomicBytes {
			write(lines[:whole])
			lines = append(lines[:0], lines[whole:]...)
		}
	}
	write(lines)
	return errors.Join(errs...)
}

// printPoints prints points in a format. Points without a time get t.
func (p *program) printPoints(format string, t time.Time, points []metric.Point) error {
	pp, err := p.newPointPrinter(format)
	if err != nil {
		return err
	}
	return pp.print(t, points)
}
