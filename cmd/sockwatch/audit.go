package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"sockwatch/agent"
	"sockwatch/inputs/tcplisten"
)

type expectCommand struct {
	configFlags
	Inline bool `help:"Print [[inputs.tcp_listen.expect]] for the configuration itself, instead of [[expect]] for a file that expect_file names."`
}

// Run prints rules for what listens now. It fails if they are not the whole baseline, so that
// an incomplete rule file is noticed.
func (c *expectCommand) Run(p *program) error {
	ctx, stop := untilSignal()
	defer stop()
	r := p.reader(c.configFlags)
	r.includer.skip = true // the shell has emptied the rule file that the output goes to
	inputs, err := p.listenerInputs(ctx, r)
	if err != nil {
		return err
	}
	defer p.printWarnings(inputs.warned)
	var errs []error
	for i, in := range inputs.all {
		draft, err := scanWithin(ctx, in, func(ctx context.Context) (*tcplisten.Draft, error) {
			return tcplisten.Suggest(ctx, in.Input, c.Inline)
		})
		if err != nil {
			return err
		}
		if i > 0 {
			io.WriteString(p.stdout, "\n")
		}
		if len(inputs.all) > 1 {
			fmt.Fprintf(p.stdout, "# Of inputs.%s:\n", in.Name)
		}
		if _, err := io.WriteString(p.stdout, draft.Rules); err != nil {
			return err
		}
		errs = append(errs, faultsOf(draft, in.Name)...)
		if len(draft.Unknown) > 0 && len(inputs.warned.all()) == 0 {
			errs = append(errs, errors.New("a security module may hide processes even from root; in a container, share the host's processes or set HOST_PROC"))
		}
	}
	return errors.Join(errs...)
}

// faultsOf returns what is missing from a draft.
func faultsOf(d *tcplisten.Draft, input string) (errs []error) {
	if n := len(d.Unknown); n > 0 {
		errs = append(errs, fmt.Errorf("inputs.%s: the rules of %s name no process, because the owner is unknown: %s",
			input, counted(n, "listener"), printable(strings.Join(d.Unknown, ", "))))
	}
	if d.Incomplete != "" {
		errs = append(errs, fmt.Errorf("inputs.%s: rules are missing, because the scan was incomplete: %s", input, printable(d.Incomplete)))
	}
	return errs
}

// live compares what listens with the rules of each input, and prints the outcome.
func (c *checkCommand) live(p *program) error {
	ctx, stop := untilSignal()
	defer stop()
	inputs, err := p.listenerInputs(ctx, p.reader(c.configFlags))
	if err != nil {
		return err
	}
	defer p.printWarnings(inputs.warned)
	var reports []*tcplisten.Report
	for _, in := range inputs.all {
		report, err := scanWithin(ctx, in, func(ctx context.Context) (*tcplisten.Report, error) {
			return tcplisten.Audit(ctx, in.Input)
		})
		if errors.Is(err, tcplisten.ErrNoRules) {
			continue
		}
		if err != nil {
			return err
		}
		reports = append(reports, report)
	}
	if len(reports) == 0 {
		return errors.New(inputs.files + `: inputs.tcp_listen has no rules to compare with: add [[inputs.tcp_listen.expect]] or expect_file; "sockwatch expect" prints a draft`)
	}
	return c.printReports(p, reports)
}

// errNotInOrder ends the program with exit code 1, without a message: the report has given
// the reason.
var errNotInOrder = errors.New("not in order")

// outcomeColumns is the width of the first column of a report.
const outcomeColumns = len("unexpected  ")

// printReports prints one report for each input that has rules. With --json, stderr has
// the summary.
func (c *checkCommand) printReports(p *program, reports []*tcplisten.Report) error {
	ok := true
	for i, r := range reports {
		var text string
		switch {
		case c.JSON:
			line, err := r.JSON()
			if err != nil {
				return err
			}
			text = string(line) + "\n"
			if !r.OK {
				fmt.Fprintf(p.stderr, "sockwatch: inputs.%s: %s\n", r.Input, printable(r.Summary()))
			}
		default:
			if len(reports) > 1 {
				text = strings.Repeat("\n", min(i, 1)) + "inputs." + r.Input + ":\n"
			}
			for line := range strings.Lines(r.Text()) {
				lines := wrapped(printable(strings.TrimSuffix(line, "\n")), p.width(), 0, outcomeColumns)
				text += strings.Join(lines, "\n"+strings.Repeat(" ", outcomeColumns)) + "\n"
			}
		}
		if _, err := io.WriteString(p.stdout, text); err != nil {
			return err
		}
		ok = ok && r.OK
	}
	if !ok {
		return errNotInOrder
	}
	return nil
}

// listenerInputs are the tcp_listen inputs of a configuration.
type listenerInputs struct {
	all    []*agent.Input
	files  string // that the configuration was read from
	warned *warnings
}

// listenerInputs reads a configuration and returns its tcp_listen inputs. Their
// warnings are collected.
func (p *program) listenerInputs(ctx context.Context, r *sourceReader) (*listenerInputs, error) {
	p.inputsOnly = true
	files, err := r.read(ctx)
	if err != nil {
		return nil, err
	}
	l := &listenerInputs{warned: &warnings{}}
	a, err := p.buildFrom(ctx, files, slog.New(l.warned), r.includer)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, file := range files {
		names = append(names, file.Name)
	}
	l.files = strings.Join(names, ", ")
	for _, in := range a.Inputs {
		if in.Plugin.Name == tcplisten.Plugin.Name {
			l.all = append(l.all, in)
		}
	}
	if len(l.all) == 0 {
		return nil, fmt.Errorf("%s: there is no [[inputs.tcp_listen]]", l.files)
	}
	return l, nil
}

// scanTimeout is how long one scan may take: the timeout of gathers does not apply to an
// audit.
const scanTimeout = time.Minute

// scanWithin calls scan, and returns early if it hangs or ctx ends. Errors name the input.
func scanWithin[T any](ctx context.Context, in *agent.Input, scan func(context.Context) (T, error)) (T, error) {
	return scanWithinTime(ctx, scanTimeout, in, scan)
}

func scanWithinTime[T any](ctx context.Context, timeout time.Duration, in *agent.Input, scan func(context.Context) (T, error)) (T, error) {
	scanCtx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	overdue, cancelOverdue := context.WithTimeout(ctx, timeout+timeout/10)
	defer cancelOverdue()
	found, err := within(overdue, make(chan struct{}, 1), func() (T, error) { return scan(scanCtx) })
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("the scan has not finished within %v", timeout)
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		err = errors.New("interrupted") // not exit code 0: the host was not found in order
	}
	if err != nil {
		err = fmt.Errorf("inputs.%s: %w", in.Name, err)
	}
	return found, err
}

// printWarnings prints the warnings of inputs.
func (p *program) printWarnings(w *warnings) {
	for _, message := range w.all() {
		fmt.Fprintf(p.stderr, "sockwatch: %s\n", printable(message))
	}
}

// counted returns "1 listener" or "3 listeners".
func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
