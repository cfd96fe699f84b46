package main

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"sockwatch/agent/metric"
)

// A listColumn is one column of the list of listeners.
type listColumn struct {
	key    string // of --sort
	title  string
	cell   func(p *metric.Point, now time.Time) string
	order  order
	right  bool                      // aligned to the right
	shrink bool                      // may be cut to fit the terminal
	shown  func(c *listCommand) bool // reports whether to show the column; nil: always
}

// An order says how to sort a column: by a number, by a comparison or, if neither is set,
// by the text of its cells. Listeners without the number come last.
type order struct {
	number  func(*metric.Point) (float64, bool)
	compare func(a, b *metric.Point) int
}

// listColumns returns all columns, from left to right.
func listColumns() []listColumn {
	tag := func(key string) func(*metric.Point, time.Time) string {
		return func(p *metric.Point, _ time.Time) string { return p.Tag(key) }
	}
	ignoringTime := func(f func(*metric.Point) string) func(*metric.Point, time.Time) string {
		return func(p *metric.Point, _ time.Time) string { return f(p) }
	}
	wide := func(c *listCommand) bool { return c.Wide }
	return []listColumn{
		{key: "netns", title: "NETNS", cell: tag("netns"), shrink: true, shown: func(c *listCommand) bool { return c.Namespaces }},
		{key: "address", title: "ADDRESS", cell: ignoringTime(address), order: order{compare: byAddress}},
		{key: "family", title: "FAMILY", cell: tag("family"), shown: wide},
		{key: "exposure", title: "EXPOSURE", cell: tag("exposure"), order: order{compare: byExposure}},
		{key: "process", title: "PROCESS", cell: ignoringTime(owner), shrink: true},
		{key: "pid", title: "PID", cell: ignoringTime(pid), order: order{number: field("pid")}, right: true},
		{key: "user", title: "USER", cell: tag("user"), shrink: true},
		{key: "unit", title: "UNIT", cell: ignoringTime(unit), shrink: true},
		{key: "container", title: "CONTAINER", cell: ignoringTime(container), shrink: true, shown: wide},
		{key: "queue", title: "QUEUE", cell: ignoringTime(queue), order: order{number: field("backlog")}, right: true},
		{key: "since", title: "SINCE", cell: since, order: order{number: sinceNumber}, right: true},
		{key: "exe", title: "EXE", cell: ignoringTime(exe), shrink: true, shown: wide},
	}
}

// table returns the table of the listeners of a scan.
func (c *listCommand) table(listeners []metric.Point, scanned time.Time) []column {
	var columns []column
	for _, l := range listColumns() {
		if l.shown != nil && !l.shown(c) {
			continue
		}
		col := column{title: l.title, right: l.right, shrink: l.shrink}
		for i := range listeners {
			col.cells = append(col.cells, l.cell(&listeners[i], scanned))
		}
		columns = append(columns, col)
	}
	return columns
}

// A sortKey is the value of --sort: a column, or "-" and a column for descending order.
// The zero value sorts by port.
type sortKey struct {
	by         order
	descending bool
}

func (k *sortKey) UnmarshalText(text []byte) error {
	key, descending := strings.CutPrefix(strings.ToLower(string(text)), "-") // the table shows titles in upper case
	by := order{compare: byPort}
	if key != "port" {
		columns := listColumns()
		i := slices.IndexFunc(columns, func(l listColumn) bool { return l.key == key })
		if i < 0 {
			return unknown("column", key, k.choices())
		}
		by = columns[i].order
		if cell := columns[i].cell; by.number == nil && by.compare == nil {
			by.compare = func(a, b *metric.Point) int { return strings.Compare(cell(a, time.Time{}), cell(b, time.Time{})) }
		}
	}
	*k = sortKey{by, descending}
	return nil
}

func (sortKey) choices() []string {
	keys := []string{"port"}
	for _, l := range listColumns() {
		keys = append(keys, l.key)
	}
	return keys
}

// sort sorts listeners, and equal ones by port.
func (k sortKey) sort(listeners []metric.Point) {
	slices.SortFunc(listeners, func(a, b metric.Point) int { return cmp.Or(k.compare(&a, &b), byPort(&a, &b)) })
}

func (k sortKey) compare(a, b *metric.Point) int {
	c := 0
	switch {
	case k.by.number != nil:
		x, knownA := k.by.number(a)
		y, knownB := k.by.number(b)
		switch {
		case !knownA && !knownB:
			return 0
		case !knownA:
			return 1
		case !knownB:
			return -1
		}
		c = cmp.Compare(x, y)
	case k.by.compare != nil:
		c = k.by.compare(a, b)
	}
	if k.descending {
		return -c
	}
	return c
}

func byPort(a, b *metric.Point) int {
	port := func(p *metric.Point) int {
		n, _ := strconv.Atoi(p.Tag("port"))
		return n
	}
	return cmp.Or(port(a)-port(b), strings.Compare(a.Tag("address"), b.Tag("address")), strings.Compare(a.Series(), b.Series()))
}

func byAddress(a, b *metric.Point) int {
	parse := func(p *metric.Point) netip.Addr {
		host, _, _ := strings.Cut(p.Tag("address"), "%") // the device of an IPv4 address, too
		ip, _ := netip.ParseAddr(host)
		return ip
	}
	return parse(a).Compare(parse(b))
}

// byExposure sorts wider classes last.
func byExposure(a, b *metric.Point) int {
	return slices.Index(exposureClasses[:], exposure(b)) - slices.Index(exposureClasses[:], exposure(a))
}

// field returns a function that returns the number in a field.
func field(key string) func(*metric.Point) (float64, bool) {
	return func(p *metric.Point) (float64, bool) {
		v, ok := p.Field(key)
		if !ok {
			return 0, false
		}
		return v.Number()
	}
}

// sinceNumber returns a number that grows with the duration in the column SINCE.
func sinceNumber(p *metric.Point) (float64, bool) {
	began, ok := sinceSeconds(p)
	return -began, ok
}

// address returns ADDRESS:PORT as ss prints it: with "*" for a listener of both families.
func address(p *metric.Point) string {
	host := p.Tag("address")
	if rest, ok := strings.CutPrefix(host, "::"); ok && p.Tag("family") == "dual" && (rest == "" || rest[0] == '%') {
		return "*" + rest + ":" + p.Tag("port")
	}
	return net.JoinHostPort(host, p.Tag("port"))
}

// owner returns the owner's name, or why it is unknown.
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

// unit returns the unit of the owner, or else its container or pod. Units of a user's
// service manager are marked, because users can name them as they like, even
// "sshd.service".
func unit(p *metric.Point) string {
	if unit := p.Tag("user_unit"); unit != "" {
		return unit + " (user)"
	}
	return cmp.Or(p.Tag("unit"), container(p))
}

// container returns the container of the owner, or else its pod.
func container(p *metric.Point) string { return cmp.Or(p.Tag("container"), p.Tag("pod")) }

// exe returns the path of the owner's program.
func exe(p *metric.Point) string {
	v, ok := p.Field("exe")
	if !ok {
		return ""
	}
	if deleted, ok := p.Field("exe_deleted"); ok && deleted.AsBool() {
		return v.String() + " (deleted)"
	}
	return v.String()
}

// queue returns BACKLOG/LIMIT, or only BACKLOG if the limit is unknown.
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

// since returns how long ago the owner started or, if that is unknown, the listener was
// first seen.
func since(p *metric.Point, now time.Time) string {
	seconds, ok := sinceSeconds(p)
	if !ok {
		return ""
	}
	return ago(now.Sub(time.UnixMicro(int64(seconds * 1e6))))
}

// sinceSeconds returns the Unix time from which since counts.
func sinceSeconds(p *metric.Point) (float64, bool) {
	if seconds, ok := field("process_start_time_seconds")(p); ok {
		return seconds, true
	}
	return field("first_seen_time_seconds")(p)
}

// ago formats a duration in its two largest units: "3d4h", "12m30s".
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
