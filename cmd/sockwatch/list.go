package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"sockwatch/agent/config"
	"sockwatch/agent/metric"
)

type listCommand struct {
	JSON bool `name:"json" help:"Print one JSON object per listener instead."`
}

// listConfig is the configuration of one scan that leaves nothing out. The
// warnings of the input are printed below the table, in other words.
const listConfig = `
[agent]
  omit_hostname = true
  log_level = "error"
[[inputs.tcp_listen]]
  max_listeners = 1000000
  namepass = ["tcp_listen"]
[[outputs.stdout]]
  data_format = "%s"
`

func (c *listCommand) Run(p *program) error {
	a, err := p.build([]config.File{{Name: "list", Text: fmt.Sprintf(listConfig, "json")}})
	if err != nil {
		return err
	}
	p.log.set(a.Options.LogLevel, a.Options.LogFormat)
	batches, err := a.GatherOnce(context.Background())
	if err != nil {
		return err
	}
	scan := batches[0]
	listeners := slices.SortedFunc(slices.Values(scan.Points), byPort)
	if c.JSON {
		p.warnOfPartial(batches)
		return p.printPoints("json", scan.Time, listeners)
	}
	w := bufio.NewWriter(p.stdout)
	writeTable(w, listenerColumns(listeners, scan.Time), p.width())
	for _, line := range unseen(listeners, scan.Partial, mayReadProcesses()) {
		fmt.Fprint(w, folded(line, p.width()))
	}
	return w.Flush()
}

// warnOfPartial says on stderr what stdout does not show: that something is missing.
func (p *program) warnOfPartial(batches []*metric.Batch) {
	for _, b := range batches {
		if b.Partial != "" {
			fmt.Fprintf(p.stderr, "sockwatch: inputs.%s: the scan is not whole: %s\n", b.Source, printable(b.Partial))
		}
	}
}

// printPoints prints points as the stdout output does.
func (p *program) printPoints(format string, t time.Time, points []metric.Point) error {
	a, err := p.build([]config.File{{Name: "list", Text: fmt.Sprintf(listConfig, format)}})
	if err != nil {
		return err
	}
	w := bufio.NewWriter(p.stdout)
	var record []byte
	for i := range points {
		point := points[i]
		if point.Time.IsZero() {
			point.Time = t
		}
		if record, err = a.Push[0].Pusher.Encode(record[:0], &point); err != nil {
			return fmt.Errorf("%s: %w", point.Series(), err)
		}
		w.Write(record) // its error is Flush's
		if len(record) > 0 && record[len(record)-1] != '\n' {
			w.WriteByte('\n')
		}
	}
	return w.Flush()
}

func byPort(a, b metric.Point) int {
	port := func(p *metric.Point) int {
		n, _ := strconv.Atoi(p.Tag("port"))
		return n
	}
	return cmp.Or(port(&a)-port(&b), cmp.Compare(a.Tag("address"), b.Tag("address")), cmp.Compare(a.Series(), b.Series()))
}

// listenerColumns returns the table of the listeners of a scan.
func listenerColumns(listeners []metric.Point, scanned time.Time) []column {
	columns := []column{
		{title: "ADDRESS"}, {title: "EXPOSURE"}, {title: "PROCESS", shrink: true}, {title: "PID", right: true},
		{title: "USER", shrink: true}, {title: "UNIT", shrink: true}, {title: "QUEUE", right: true}, {title: "SINCE", right: true},
	}
	for i := range listeners {
		p := &listeners[i]
		for c, cell := range []string{
			address(p), p.Tag("exposure"), owner(p), pid(p), p.Tag("user"),
			cmp.Or(p.Tag("unit"), p.Tag("container"), p.Tag("pod")), queue(p), since(p, scanned),
		} {
			columns[c].cells = append(columns[c].cells, cell)
		}
	}
	return columns
}

// address returns ADDRESS:PORT as ss prints it: "*" for what takes both families.
func address(p *metric.Point) string {
	host := p.Tag("address")
	if rest, ok := strings.CutPrefix(host, "::"); ok && p.Tag("family") == "dual" && (rest == "" || rest[0] == '%') {
		return "*" + rest + ":" + p.Tag("port")
	}
	return net.JoinHostPort(host, p.Tag("port"))
}

// owner returns the owner's name, or why it is not known.
func owner(p *metric.Point) string {
	if name := p.Tag("process"); name != "" {
		return name
	}
	return "(" + cmp.Or(p.Tag("owner"), "unknown") + ")"
}

// pid returns the owner's pid, and how many other processes hold the socket.
func pid(p *metric.Point) string {
	v, ok := p.Field("pid")
	if !ok {
		return ""
	}
	s := v.String()
	if n, ok := p.Field("processes"); ok {
		if others, _ := n.Number(); others > 1 {
			s += fmt.Sprintf("+%.0f", others-1)
		}
	}
	return s
}

// queue returns BACKLOG/LIMIT, or what of it is known.
func queue(p *metric.Point) string {
	backlog, ok := p.Field("backlog")
	if !ok {
		return ""
	}
	if limit, ok := p.Field("backlog_limit"); ok {
		return backlog.String() + "/" + limit.String()
	}
	return backlog.String()
}

// since returns how long ago the owner started, or else the listener was first
// seen.
func since(p *metric.Point, now time.Time) string {
	for _, field := range []string{"process_start_time_seconds", "first_seen_time_seconds"} {
		if v, ok := p.Field(field); ok {
			seconds, _ := v.Number()
			return ago(now.Sub(time.UnixMicro(int64(seconds * 1e6))))
		}
	}
	return ""
}

// ago writes a time span in its two largest units: "3d4h", "12m30s".
func ago(d time.Duration) string {
	s := max(int64(d/time.Second), 0)
	switch {
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

// unseen says what a scan could not see, why, and what to do.
func unseen(listeners []metric.Point, partial string, capable bool) []string {
	unreadable := 0
	for i := range listeners {
		if listeners[i].Tag("owner") == "unreadable" {
			unreadable++
		}
	}
	var lines []string
	if unreadable > 0 {
		why := "sockwatch lacks CAP_SYS_PTRACE or CAP_DAC_READ_SEARCH. Run it as root of the host, or grant it both."
		if capable {
			why = "some processes are closed even to CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, as by a security module."
		}
		lines = append(lines, fmt.Sprintf("Owners unknown: %d of %d: %s", unreadable, len(listeners), why))
	}
	if partial != "" {
		lines = append(lines, "The scan is not whole: "+printable(partial)+".")
	}
	return lines
}
