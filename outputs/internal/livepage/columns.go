package livepage

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// A column of the table. Its entry in columns is all that it needs. Only a column that has a
// width of its own, or is hidden while it is empty, is named in style.css, too.
type column struct {
	Name  string // class of its head and cells, and its value of the parameter sort
	Text  string // of its head
	label string // before its cells on a narrow screen, where they have no head; "": none
	cell  string // template of a cell: of a row, or empty
	key   func(*row) sortKey
}

// columns returns the columns of the table, in order. Cells get tags and fields by row.Get,
// which has only what everyone may see.
func columns() []column {
	return []column{
		{Name: "address", Text: "Address", key: byAddress,
			cell: `<a href="/listener/{{.ID}}">{{.Address}}</a>{{with .Get "netns"}} <span class="netns">{{.}}</span>{{end}}`},
		{Name: "exposure", Text: "Reachable from", key: byRank("exposure", exposures[:]),
			cell: `{{with .Get "exposure"}}<span class="tag exposure-{{.}}">{{.}}</span>{{end}}`},
		{Name: "process", Text: "Process", key: byText("process"),
			cell: `{{with .Get "process"}}<bdi>{{.}}</bdi>{{with $.Get "pid"}} <span class="pid">{{.}}</span>{{end}}{{else}}{{if eq (.Get "owner") "unreadable"}}<a class="unknown" href="/health#limits">{{.NoProcess}}</a>{{else}}<span class="unknown">{{.NoProcess}}</span>{{end}}{{end}}`},
		{Name: "user", Text: "User", label: "user", key: byText("user"), cell: `{{.Get "user"}}`},
		{Name: "where", Text: "Unit or container", key: func(r *row) sortKey { return textKey(r.Where()) }, cell: `{{.Where}}`},
		{Name: "queue", Text: "Accept queue", label: "queue", key: func(r *row) sortKey { return sortKey{number: -r.Queue().fill()} },
			cell: `{{with .Queue}}<meter min="0" max="{{.Full}}" low="{{.Share 50}}" high="{{.Share 90}}" optimum="0" value="{{.Waiting}}" aria-label="accept queue"></meter> <span>{{.Waiting}}/{{.Limit}}</span>{{end}}`},
		{Name: "established", Text: "Established", label: "established", key: byNumber("established"), cell: `{{.Get "established"}}`},
		{Name: "since", Text: "Since", label: "since", key: func(r *row) sortKey { return sortKey{number: -unix(r.since())} },
			cell: `{{if not .Since.IsZero}}{{template "time" .Since}}{{else if not .Started.IsZero}}<span class="started" title="start of the process: it was already listening when sockwatch first ran">{{template "time" .Started}}</span> <span class="hidden">start of the process</span>{{end}}`},
		{Name: "expected", Text: "Expected", label: "expected", key: byRank("expected", verdicts[:]),
			cell: `{{with .Get "expected"}}<span class="tag expected-{{.}}">{{.}}</span>{{end}}{{with .Get "rule"}} <span class="rule">{{.}}</span>{{end}}`},
	}
}

// cellsTemplate returns the template "cells": those of one row.
func cellsTemplate() string {
	var b strings.Builder
	b.WriteString(`{{define "cells"}}`)
	for _, c := range columns() {
		fmt.Fprintf(&b, "<td class=%q", c.Name)
		if c.label != "" {
			fmt.Fprintf(&b, " data-label=%q", c.label)
		}
		fmt.Fprintf(&b, ">%s</td>\n", c.cell)
	}
	b.WriteString(`{{end}}`)
	return b.String()
}

// exposures are the values of the tag exposure, widest first.
var exposures = [...]string{"public", "private", "link_local", "loopback", noExposure}

// verdicts are the values of the field expected, worst first.
var verdicts = [...]string{"forbidden", "no", "undecided", "yes", ""}

// A sortKey is the place of a row in the order of a column: first by number, then by text.
type sortKey struct {
	number float64
	text   string
}

func (k sortKey) compare(l sortKey) int {
	return cmp.Or(cmp.Compare(k.number, l.number), strings.Compare(k.text, l.text))
}

// byAddress orders by port and address.
func byAddress(r *row) sortKey { return sortKey{text: r.order} }

// byText orders by a tag or field.
func byText(key string) func(*row) sortKey {
	return func(r *row) sortKey { return textKey(r.Get(key)) }
}

// textKey returns the sortKey of a text. An empty one comes last.
func textKey(s string) sortKey {
	if s == "" {
		return sortKey{number: 1}
	}
	return sortKey{text: s}
}

// byNumber orders by a field, largest first. A row without it comes last.
func byNumber(key string) func(*row) sortKey {
	return func(r *row) sortKey {
		n, err := strconv.ParseFloat(r.Get(key), 64)
		if err != nil {
			n = math.Inf(-1)
		}
		return sortKey{number: -n}
	}
}

// byRank orders by a tag or field with few values, in the order of these.
func byRank(key string, values []string) func(*row) sortKey {
	return func(r *row) sortKey { return sortKey{number: float64(slices.Index(values, r.Get(key)))} }
}

// defaultSort is the column by which the table is sorted without the parameter sort.
const defaultSort = "address"

// isSort reports whether the parameter sort is valid.
func isSort(s string) bool {
	name := strings.TrimPrefix(s, "-")
	return slices.ContainsFunc(columns(), func(c column) bool { return c.Name == name })
}

// sortRows sorts rows, which are in the order of ports and addresses. Equal ones stay in
// that order.
func sortRows(rows []*row, sort string) {
	name, descending := strings.CutPrefix(sort, "-")
	i := slices.IndexFunc(columns(), func(c column) bool { return c.Name == name })
	if i < 0 || sort == defaultSort {
		return
	}
	type keyed struct {
		sortKey
		row *row
	}
	key, list := columns()[i].key, make([]keyed, len(rows))
	for i, r := range rows {
		list[i] = keyed{key(r), r}
	}
	slices.SortStableFunc(list, func(a, b keyed) int {
		if descending {
			return b.compare(a.sortKey)
		}
		return a.compare(b.sortKey)
	})
	for i, k := range list {
		rows[i] = k.row
	}
}
