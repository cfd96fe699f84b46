package livepage

import (
	"encoding/base64"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/outputs/internal/format"
	"sockwatch/outputs/internal/respond"
)

// apiRows is how many elements one response has at most.
const apiRows = 5000

var errNothingGathered = respond.Errorf(http.StatusServiceUnavailable, "nothing has been gathered yet")

// apiListeners answers with the listeners that a query selects, by port and address. The
// cursor is the last listener of the previous response, so that none is missing or repeated
// if others open and close meanwhile.
func (p *Page) apiListeners(r *http.Request, trusted bool) (*respond.Response, error) {
	after, err := base64.RawURLEncoding.DecodeString(r.URL.Query().Get("cursor"))
	if err != nil {
		return nil, respond.Errorf(http.StatusBadRequest, "the cursor is not one from a Link header")
	}
	snap := p.snapshot()
	if err := p.complete(snap); err != nil {
		return nil, err
	}
	q, err := p.apiQuery(r, snap, trusted, "q", "cursor")
	if err != nil {
		return nil, err
	}
	times, beyond := map[string]time.Time{}, uint64(0)
	for _, b := range snap.batches {
		times[b.Source] = b.Time
		beyond += snap.beyond(b.Source)
	}
	first, _ := slices.BinarySearchFunc(snap.rows, string(after)+"\x00", func(r *row, order string) int { return strings.Compare(r.order, order) })
	array, header := newArray(trusted), map[string]string{}
	if beyond > 0 {
		header["X-Missing-Listeners"] = strconv.FormatUint(beyond, 10)
	}
	var last *row
	for _, row := range snap.rows[first:] {
		if !q.matches(&row.searchable, trusted) {
			continue
		}
		if array.n == apiRows {
			header["Link"] = nextLink(r, last.order)
			break
		}
		if err := array.add(row.point, times[row.Source]); err != nil {
			return nil, err
		}
		last = row
	}
	return array.response(header), nil
}

// complete returns an error if the listeners of a source are not known: a list without them
// would look as if they had been closed.
func (p *Page) complete(snap *snapshot) error {
	if len(snap.batches) == 0 {
		return errNothingGathered
	}
	for _, s := range p.board.Sources() {
		if listsListeners(s) && (s.Err != nil || snap.sources[s.Name] == nil) {
			return respond.Errorf(http.StatusServiceUnavailable, "the listeners of %s are not known: %s", s.Name, whyMissing(s))
		}
	}
	return nil
}

// apiEvents answers with the events that a query selects, earliest first. There are never
// more than apiRows. Those from before the start are known after the first gather.
func (p *Page) apiEvents(r *http.Request, trusted bool) (*respond.Response, error) {
	snap, events := p.snapshot(), p.timeline().events
	if len(events) == 0 {
		if err := p.complete(snap); err != nil {
			return nil, err
		}
	}
	q, err := p.apiQuery(r, snap, trusted, "q")
	if err != nil {
		return nil, err
	}
	array := newArray(trusted)
	for _, e := range slices.Backward(events) {
		if !q.matches(&e.searchable, trusted) {
			continue
		}
		if err := array.add(e.point, e.point.Time); err != nil {
			return nil, err
		}
	}
	return array.response(map[string]string{}), nil
}

// apiQuery parses the query of a script, whose parameters are known. What the page would ignore
// with a message is an error, because a script would not see the message.
func (p *Page) apiQuery(r *http.Request, snap *snapshot, trusted bool, known ...string) (query, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return query{}, respond.Errorf(http.StatusBadRequest, "%v", err)
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if !slices.Contains(known, key) {
			return query{}, respond.Errorf(http.StatusBadRequest, "unknown parameter %.100q (known: %s)", key, strings.Join(known, ", "))
		}
		if len(values[key]) > 1 {
			return query{}, respond.Errorf(http.StatusBadRequest, "the parameter %s is given %d times: write all terms into one", key, len(values[key]))
		}
	}
	q := parseQuery(values)
	q = q.restrict(snap.knownKeys(p.timeline(), p.board.Sources()), trusted)
	if len(q.problems) > 0 {
		var reasons []string
		for _, problem := range q.problems {
			reasons = append(reasons, problem.reason)
		}
		return q, respond.Errorf(http.StatusBadRequest, "%s", strings.Join(reasons, "\n"))
	}
	return q, nil
}

// nextLink returns the Link header for what comes after a listener.
func nextLink(r *http.Request, order string) string {
	values := r.URL.Query()
	values.Set("cursor", base64.RawURLEncoding.EncodeToString([]byte(order)))
	return "<" + r.URL.Path + "?" + values.Encode() + `>; rel="next"`
}

// An array is a JSON array of points in the line format of the outputs stdout and file.
type array struct {
	trusted bool
	format  *format.JSON
	b       []byte
	n       int
}

func newArray(trusted bool) *array {
	return &array{trusted: trusted, format: format.NewJSON("rfc3339"), b: []byte("[")}
}

// add adds what the reader may see of a point. t is its time, unless it has one.
func (a *array) add(p *metric.Point, t time.Time) error {
	visible := metric.Point{Name: p.Name, Time: p.Time, Tags: make([]metric.Tag, 0, len(p.Tags)), Fields: make([]metric.Field, 0, len(p.Fields))}
	if p.Time.IsZero() {
		visible.Time = t
	}
	for _, tag := range p.Tags {
		if visibility(tag.Key, metric.KindString, true).includes(a.trusted) {
			visible.Tags = append(visible.Tags, tag)
		}
	}
	for _, f := range p.Fields {
		if visibility(f.Key, f.Value.Kind(), false).includes(a.trusted) {
			visible.Fields = append(visible.Fields, f)
		}
	}
	if a.n++; a.n > 1 {
		a.b = append(a.b, ',')
	}
	var err error
	a.b, err = a.format.Encode(append(a.b, '\n'), &visible)
	return err
}

func (a *array) response(header map[string]string) *respond.Response {
	header["Content-Type"] = "application/json"
	return &respond.Response{Header: header, Body: append(a.b, "\n]\n"...)}
}
