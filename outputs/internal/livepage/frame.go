package livepage

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"html/template"
	"slices"
	"strconv"
	"time"
)

// A frame is everything on the page of one query that can change.
type frame struct {
	gathered time.Time // the latest gather
	*content
}

// A content is what a frame shows, rendered.
type content struct {
	version string // hash of the rest
	rows    []fragment
	events  []fragment
	parts   []fragment // those that are replaced as a whole
	whole   bool       // every listener of the host is among the rows
	shown   []*row     // rows, before they were rendered
	of      *snapshot
}

// A fragment is one HTML element, with its id.
type fragment struct {
	id   string
	html template.HTML
}

// frame renders a view.
func (p *Page) frame(v *view) (frame, error) {
	s := p.snapshot()
	c := &content{
		rows: make([]fragment, 0, len(v.Rows)), events: make([]fragment, 0, len(v.Entries)), parts: make([]fragment, 0, len(parts)),
		whole: len(v.Rows) == len(s.rows) && len(s.batches) > 0 && len(p.failed()) == 0 && len(s.limited()) == 0,
		shown: v.Rows, of: s,
	}
	for _, r := range v.Rows {
		html, err := p.row(r)
		if err != nil {
			return frame{}, err
		}
		c.rows = append(c.rows, fragment{"r-" + r.ID, html})
	}
	for _, e := range v.Entries {
		html, err := p.render("event", e)
		if err != nil {
			return frame{}, err
		}
		c.events = append(c.events, fragment{"e-" + e.ID(), html})
	}
	for _, name := range parts {
		html, err := p.part(name, v)
		if err != nil {
			return frame{}, err
		}
		c.parts = append(c.parts, fragment{name, html})
	}
	return frame{s.gathered(), c}, nil
}

// closedSince returns the ids of the elements of before's rows that are no longer there
// because nothing listens there any more. A listener that has another owner now is another
// row, but not closed; nor is one whose source has no batch, or one that may be beyond the limit of
// its source.
func (c *content) closedSince(before *content) (ids []string) {
	var endpoints map[endpoint]bool
	limited := c.of.limited()
	for _, r := range before.shown {
		if c.of.byID[r.ID] != nil || c.of.sources[r.Source] == nil || limited[r.Source] {
			continue
		}
		if endpoints == nil {
			endpoints = map[endpoint]bool{}
			for _, r := range c.of.rows {
				endpoints[r.endpoint()] = true
			}
		}
		if !endpoints[r.endpoint()] {
			ids = append(ids, "r-"+r.ID)
		}
	}
	return ids
}

// An endpoint is where a row listens.
type endpoint struct{ netns, address string }

func (r *row) endpoint() endpoint { return endpoint{r.Get("netns"), r.Address} }

// gathered returns when the latest listeners were gathered; without listeners, the latest
// points.
func (s *snapshot) gathered() (latest time.Time) {
	for _, b := range s.batches {
		if (len(s.rows) == 0 || len(s.sources[b.Source].rows) > 0) && b.Time.After(latest) {
			latest = b.Time
		}
	}
	return latest
}

func (c *content) equals(d *content) bool {
	return slices.Equal(c.rows, d.rows) && slices.Equal(c.events, d.events) && slices.Equal(c.parts, d.parts)
}

// hash returns the version of the content.
func (c *content) hash(seed maphash.Seed) string {
	var h maphash.Hash
	h.SetSeed(seed)
	for _, list := range [][]fragment{c.rows, c.events, c.parts} {
		for _, f := range list {
			maphash.WriteComparable(&h, f)
		}
		h.WriteByte(0)
	}
	return strconv.FormatUint(h.Sum64(), 16)
}

// A reader is what the page at the other end of a stream shows.
type reader struct {
	claims string // the version that it said it has
	frame         // what it was sent; without content: nothing yet
}

// An update is the data of a message that makes a page show another frame. What has not
// changed is nil.
type update struct {
	Gathered time.Time         `json:"gathered"`
	Full     bool              `json:"full,omitempty"`   // Rows and Events have everything
	Whole    bool              `json:"whole,omitempty"`  // every listener of the host has a row
	Closed   []string          `json:"closed,omitempty"` // rows that have gone because their listeners have
	Rows     *listUpdate       `json:"rows,omitempty"`
	Events   *listUpdate       `json:"events,omitempty"`
	Parts    map[string]string `json:"parts,omitempty"` // new HTML of elements, by id
}

// A listUpdate is the change of a list of elements.
type listUpdate struct {
	Order []string          `json:"order"` // the ids of all elements; null: as before
	Items map[string]string `json:"items"` // the HTML of those that are new or have changed, by id
}

// advance returns the message that brings the reader from what it has to the next frame, or
// nil if it has that frame already.
func (r *reader) advance(next frame) []byte {
	before := r.frame
	r.frame = next
	switch {
	case before.content == nil && r.claims != next.version:
		return appendUpdate(&update{
			Gathered: next.gathered, Full: true, Whole: next.whole,
			Rows: diff(nil, next.rows), Events: diff(nil, next.events), Parts: changedParts(nil, next.parts),
		}, next.version)
	case before.content != nil && before.content != next.content:
		return appendUpdate(&update{
			Gathered: next.gathered, Whole: next.whole, Closed: next.closedSince(before.content),
			Rows: diff(before.rows, next.rows), Events: diff(before.events, next.events), Parts: changedParts(before.parts, next.parts),
		}, next.version)
	case before.gathered.Equal(next.gathered):
		return nil
	default:
		return r.heartbeat()
	}
}

// heartbeat returns the message that says that nothing has changed until the last gather.
func (r *reader) heartbeat() []byte {
	return fmt.Appendf(nil, "event: heartbeat\ndata: %s\n\n", r.gathered.UTC().Format(time.RFC3339))
}

// appendUpdate returns an update as a message.
func appendUpdate(u *update, version string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "id: %s\nevent: update\nretry: %d\ndata: ", version, streamRetry.Milliseconds())
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(u); err != nil { // strings, numbers and a time can always be encoded
		panic(err)
	}
	b.WriteByte('\n') // after the newline of Encode
	return b.Bytes()
}

// diff returns what has changed from one list to the next, or nil. Before the first list, a
// reader has nil.
func diff(before, next []fragment) *listUpdate {
	if before != nil && slices.Equal(before, next) {
		return nil
	}
	had := make(map[string]template.HTML, len(before))
	for _, f := range before {
		had[f.id] = f.html
	}
	u := &listUpdate{Order: make([]string, 0, len(next)), Items: map[string]string{}}
	for _, f := range next {
		u.Order = append(u.Order, f.id)
		if html, ok := had[f.id]; !ok || html != f.html {
			u.Items[f.id] = string(f.html)
		}
	}
	if before != nil && slices.EqualFunc(before, next, func(a, b fragment) bool { return a.id == b.id }) {
		u.Order = nil
	}
	return u
}

// changedParts returns the parts that have changed.
func changedParts(before, next []fragment) map[string]string {
	changed := map[string]string{}
	for i, f := range next {
		if before == nil || before[i] != f {
			changed[f.id] = string(f.html)
		}
	}
	return changed
}

// failed returns the names of the sources whose last gather failed.
func (p *Page) failed() (names []string) {
	for _, s := range p.board.Sources() {
		if s.Err != nil {
			names = append(names, s.Name)
		}
	}
	return names
}
