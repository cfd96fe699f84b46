package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"sockwatch/agent"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
	"sockwatch/inputs/tcplisten"
)

type watchCommand struct {
	selection
	configFlags
	Namespaces bool            `help:"Also watch the host's other network namespaces."`
	Interval   plugin.Duration `default:"1s" placeholder:"INTERVAL" help:"How often to scan, at least 100ms. Listeners that live for less may be missed. Default: 1s."`
	Settle     plugin.Duration `default:"0s" placeholder:"DURATION" help:"How long a listener must be gone before it is printed as closed. A listener that is back sooner was restarted. Default: 0s."`
	Since      plugin.Duration `placeholder:"DURATION" help:"First print the changes of the last DURATION, such as 24h, from the agent's history. The configuration says where it is."`
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
	c.warn(p)
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
		if err := w.printPast(ctx, past, first.Time); err != nil {
			return err
		}
	}
	w.reportWatched(first)
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
	partial  string // what the last scan could not see
	failing  bool   // the last scan failed
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
	w := &changeWatcher{command: c, program: p, warned: &warnings{}}
	text := fmt.Sprintf(watchConfig, c.Namespaces, c.Interval.String(), c.Settle.String(), plugin.MaxDuration.String())
	var err error
	if w.gatherer, err = p.gatherer("watch", text, slog.New(w.warned)); err != nil {
		return nil, err
	}
	if c.JSON {
		w.printer, err = p.newPointPrinter("json")
	} else {
		w.printer = p.newLinePrinter()
	}
	return w, err
}

// minGather is how often to gather at least: a change that does not show in the list of
// sockets, such as another owner, is found only by a gather.
const minGather = time.Second

// watch gathers whenever the list of sockets has changed, and prints the changes, until
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
		w.reportMissing(b)
		if err := w.printer.print(b.Time, w.selected(b.Events)); err != nil {
			return err
		}
		if b.EventsStored != nil {
			b.EventsStored()
		}
	}
}

// selected returns those of the events that are changes of selected listeners.
func (w *changeWatcher) selected(events []metric.Point) (changes []metric.Point) {
	for i := range events {
		if e := &events[i]; e.Name == tcplisten.PointEvent && w.command.mayMatchChange(e) {
			changes = append(changes, *e)
		}
	}
	return changes
}

func (w *changeWatcher) say(format string, args ...any) {
	fmt.Fprintf(w.program.stderr, "sockwatch: %s\n", printable(fmt.Sprintf(format, args...)))
}

// reportWatched describes the listeners before the first change.
func (w *changeWatcher) reportWatched(first *metric.Batch) {
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
	w.reportMissing(first)
	if unknown > 0 {
		w.say("owners unknown: %d of %d", unknown, selected)
	}
}

// reportMissing reports once what scans cannot see.
func (w *changeWatcher) reportMissing(b *metric.Batch) {
	if w.failing {
		w.failing = false
		w.say("scanning works again")
	}
	if b.Partial != w.partial && b.Partial != "" {
		w.say("the scan is incomplete: %s", b.Partial)
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

// warnings is a slog.Handler that collects the messages of warnings, so that a command
// can print them with its output.
type warnings struct {
	mu       sync.Mutex
	messages []string
}

// all returns the messages so far.
func (w *warnings) all() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.messages)
}

func (w *warnings) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }
func (w *warnings) WithAttrs([]slog.Attr) slog.Handler               { return w }
func (w *warnings) WithGroup(string) slog.Handler                    { return w }

func (w *warnings) Handle(_ context.Context, r slog.Record) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Contains(w.messages, r.Message) {
		w.messages = append(w.messages, r.Message)
	}
	return nil
}
