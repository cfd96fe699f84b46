package livepage

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// A column of the table. Its name is also the class of its cells.
type column struct {
	Name, Text string
	compare    func(a, b *row) int // nil: by port and address
}

// columns are the columns of the table, in order.
func columns() []column {
	return []column{
		{Name: "address", Text: "Address"},
		{Name: "exposure", Text: "Reachable from", compare: func(a, b *row) int {
			return cmp.Compare(slices.Index(exposures[:], a.Exposure), slices.Index(exposures[:], b.Exposure))
		}},
		{Name: "process", Text: "Process", compare: byText(func(r *row) string { return r.Process })},
		{Name: "user", Text: "User", compare: byText(func(r *row) string { return r.User })},
		{Name: "where", Text: "Unit or container", compare: byText(func(r *row) string { return r.Where })},
		{Name: "queue", Text: "Accept queue", compare: func(a, b *row) int { return cmp.Compare(b.fill(), a.fill()) }},
		{Name: "established", Text: "Established", compare: func(a, b *row) int { return cmp.Compare(b.established(), a.established()) }},
		{Name: "since", Text: "Since", compare: func(a, b *row) int { return b.since().Compare(a.since()) }},
		{Name: "expected", Text: "Expected", compare: func(a, b *row) int {
			return cmp.Compare(slices.Index(verdicts[:], a.Expected), slices.Index(verdicts[:], b.Expected))
		}},
	}
}

// exposures are the values of the tag exposure, widest first.
var exposures = [...]string{"public", "private", "link_local", "loopback", noExposure}

// verdicts are the values of the field expected, worst first.
var verdicts = [...]string{"forbidden", "no", "undecided", "yes", ""}

// byText compares rows by a text. An empty one comes last.
func byText(text func(*row) string) func(a, b *row) int {
	return func(a, b *row) int {
		x, y := text(a), text(b)
		if (x == "") != (y == "") {
			return cmp.Compare(len(y), len(x))
		}
		return strings.Compare(x, y)
	}
}

// fill returns how full the accept queue is.
func (r *row) fill() float64 {
	if r.QueueLimit == 0 {
		return -1
	}
	return float64(r.Queue) / float64(r.QueueLimit)
}

func (r *row) established() float64 {
	n, err := strconv.ParseFloat(r.Established, 64)
	if err != nil {
		return -1
	}
	return n
}

// isSort reports whether the parameter sort is valid.
func isSort(s string) bool {
	name := strings.TrimPrefix(s, "-")
	return slices.ContainsFunc(columns(), func(c column) bool { return c.Name == name })
}

// sortRows sorts rows, which are in the order of ports and addresses. Equal ones stay in
// that order.
func sortRows(rows []*row, sort string) {
	name, descending := strings.CutPrefix(sort, "-")
	for _, c := range columns() {
		switch {
		case c.Name != name || name == "":
		case c.compare != nil && descending:
			slices.SortStableFunc(rows, func(a, b *row) int { return c.compare(b, a) })
		case c.compare != nil:
			slices.SortStableFunc(rows, c.compare)
		case descending:
			slices.Reverse(rows)
		}
	}
}
