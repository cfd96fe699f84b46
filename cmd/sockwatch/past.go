package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/inputs/tcplisten"
)

// pastChanges says where past changes are recorded.
type pastChanges struct {
	stateDir string
	inputs   []string
}

// packagedStateDir is the state directory that packages and systemd use. Only systemd sets
// $STATE_DIRECTORY.
const packagedStateDir = "/var/lib/sockwatch"

// findPast finds in the configuration where the running agent keeps its history.
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
	if past.stateDir == "" {
		if _, err := os.Stat(packagedStateDir); !errors.Is(err, fs.ErrNotExist) {
			past.stateDir = packagedStateDir
		}
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
func (w *changeWatcher) printPast(ctx context.Context, past *pastChanges, now time.Time) error {
	if past.stateDir == "" {
		w.say("no history: the configuration has no state_directory, and %s does not exist", packagedStateDir)
		return nil
	}
	if len(past.inputs) == 0 {
		w.say("no history: the configuration has no [[inputs.tcp_listen]]")
		return nil
	}
	since := now.Add(-time.Duration(w.command.Since))
	for _, input := range past.inputs {
		changes, err := past.read(ctx, input)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			w.say("no history: %s", historyError(err, past.stateDir, input))
			continue
		}
		changes, begins := changesSince(changes, since)
		selected := w.selected(changes)
		w.say("inputs.%s: %s since %s", input, counted(len(selected), "recorded change"), begins.Local().Format(time.RFC3339))
		if err := w.printer.print(now, selected); err != nil {
			return err
		}
	}
	return nil
}

// changesSince returns those of the recorded changes that happened since a time, and the time from
// which on they are complete. They are in the order in which they were reported: a listener
// that closed is reported later than it closed.
func changesSince(recorded []metric.Point, since time.Time) (changes []metric.Point, complete time.Time) {
	for _, p := range recorded {
		if !p.Time.Before(since) {
			changes = append(changes, p)
		}
	}
	if len(changes) == len(recorded) && len(recorded) > 0 && sequence(&recorded[0]) > 1 {
		return changes, recorded[0].Time // older ones are not kept
	}
	return changes, since
}

// read reads the history of an input. A mount that is stalled does not keep it.
func (past *pastChanges) read(ctx context.Context, input string) ([]metric.Point, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	changes, err := within(ctx, make(chan struct{}, 1), func() ([]metric.Point, error) {
		return tcplisten.RecentChanges(past.stateDir, input)
	})
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%s: not read within %v", past.stateDir, readTimeout)
	}
	return changes, err
}

// sequence returns the number of an event in its history.
func sequence(e *metric.Point) int64 {
	v, _ := e.Field("sequence")
	n, _ := v.Number()
	return int64(n)
}

// historyError returns why there is no history.
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
