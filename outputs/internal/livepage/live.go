package livepage

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"sockwatch/agent/metric"
)

// Limits of the streams that keep open pages current.
const (
	maxStreams     = 8
	streamPace     = 200 * time.Millisecond // at least, between two messages of a stream
	streamAlive    = 15 * time.Second       // at most, between two messages of a stream
	streamTimeout  = 10 * time.Second       // for a reader to take one message
	streamRetry    = 2 * time.Second        // until a browser connects again
	streamFullWait = "30"                   // seconds after which a refused browser may try again
)

// stream answers /stream with server-sent events, until the reader leaves or the page ends.
//
// The first message has everything that the page of the same query shows. Each further one
// has what has changed, or is a heartbeat if there was a gather and nothing has changed. A
// reader that names the version that it already has, in the header Last-Event-ID or the
// parameter have, gets a heartbeat first. A stream never starts a gather.
func (p *Page) stream(w http.ResponseWriter, r *http.Request) {
	key := newViewKey(r.URL.Query(), p.opts.Trusted(r))
	if !p.live.enter(key) {
		w.Header().Set("Retry-After", streamFullWait)
		http.Error(w, fmt.Sprintf("live updates are full: %d pages are open", maxStreams), http.StatusServiceUnavailable)
		return
	}
	defer p.live.leave(key)
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx then passes each message on at once
	if r.Method == http.MethodHead {
		return
	}
	out := messageWriter{w, http.NewResponseController(w)}
	// The server's timeout for reading a request would end the stream.
	_ = out.control.SetReadDeadline(time.Time{})
	reader := reader{version: cmp.Or(r.Header.Get("Last-Event-ID"), r.URL.Query().Get("have"))}
	for {
		changed := p.board.Changed()
		next, err := p.live.frame(p, key, changed)
		if err != nil {
			p.opts.Log.Error("cannot render the live page, closing its stream", "error", err)
			return
		}
		if out.write(reader.advance(next)) != nil {
			return
		}
		// Sources publish at almost the same time: one message is for all of them.
		if !p.live.wait(r.Context(), nil, streamPace) {
			return
		}
		for !isClosed(changed) {
			if !p.live.wait(r.Context(), changed, streamAlive) {
				return
			}
			if !isClosed(changed) && out.write(reader.heartbeat()) != nil {
				return
			}
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// End ends all streams, now and in future, so that the server can stop.
func (p *Page) End() { p.live.end() }

// A messageWriter writes messages, each with a deadline.
type messageWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

// write writes a message and waits until the kernel has it. A reader that does not read is
// cut off after streamTimeout.
func (m messageWriter) write(message []byte) error {
	if len(message) == 0 {
		return nil
	}
	_ = m.control.SetWriteDeadline(time.Now().Add(streamTimeout))
	if _, err := m.w.Write(message); err != nil {
		return err
	}
	if err := m.control.Flush(); err != nil {
		return err
	}
	// In HTTP/2 a deadline ends a stream even if nothing is being written.
	return m.control.SetWriteDeadline(time.Time{})
}

// A viewKey is what decides what a reader sees. Streams with the same key share frames.
type viewKey struct {
	query   string // the parameters of the page, encoded
	trusted bool
}

func newViewKey(values url.Values, trusted bool) viewKey {
	known := url.Values{}
	for _, name := range []string{"q", "sort", "from"} {
		if values.Has(name) {
			known.Set(name, values.Get(name))
		}
	}
	return viewKey{known.Encode(), trusted}
}

// live is the state that the streams of a page share. It is empty as long as nobody looks.
type live struct {
	ended chan struct{}
	seed  maphash.Seed

	mu     sync.Mutex
	ending bool
	open   int
	shared map[viewKey]*shared
}

// shared is the latest frame of the streams with one key.
type shared struct {
	streams    int
	latest     frame
	generation <-chan struct{} // the channel of Board.Changed before latest was made
}

func newLive() *live {
	return &live{ended: make(chan struct{}), seed: maphash.MakeSeed(), shared: map[viewKey]*shared{}}
}

// enter counts a stream. It reports false if there are too many.
func (l *live) enter(key viewKey) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == maxStreams {
		return false
	}
	l.open++
	if l.shared[key] == nil {
		l.shared[key] = &shared{}
	}
	l.shared[key].streams++
	return true
}

func (l *live) leave(key viewKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if l.shared[key].streams--; l.shared[key].streams == 0 {
		delete(l.shared, key)
	}
}

func (l *live) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ending {
		l.ending = true
		close(l.ended)
	}
}

// wait waits until c is closed or d has passed. It reports false if the stream must end.
func (l *live) wait(ctx context.Context, c <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-c:
		return true
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	case <-l.ended:
		return false
	}
}

// frame returns the current frame of a key. Each generation of the board is rendered once
// for all streams with the key.
func (l *live) frame(p *Page, key viewKey, generation <-chan struct{}) (frame, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.shared[key]
	if s.generation == generation {
		return s.latest, nil
	}
	values, err := url.ParseQuery(key.query)
	if err != nil {
		return frame{}, err
	}
	next, err := p.frame(p.view(parseQuery(values), key.trusted))
	if err != nil {
		return frame{}, err
	}
	if s.latest.content == nil || !s.latest.equals(next.content) {
		next.version = next.hash(l.seed)
	} else {
		next.content = s.latest.content
	}
	s.latest, s.generation = next, generation
	return next, nil
}

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
	c := &content{shown: v.Rows, of: s, whole: len(v.Rows) == len(s.rows) && len(p.failed()) == 0}
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
// row, but not closed; nor is one whose source has no batch.
func (c *content) closedSince(before *content) (ids []string) {
	var endpoints map[endpoint]bool
	for _, r := range before.shown {
		if c.of.byID[r.ID] != nil || !c.of.has(r.Source) {
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

func (r *row) endpoint() endpoint { return endpoint{r.Netns, r.Address} }

// gathered returns when the latest of the batches with listeners was gathered; if there is
// none, the latest of all.
func (s *snapshot) gathered() (latest time.Time) {
	for _, b := range s.batches {
		if b.Time.After(latest) {
			latest = b.Time
		}
	}
	return latest
}

// has reports whether a source has a batch.
func (s *snapshot) has(source string) bool {
	return slices.ContainsFunc(s.batches, func(b *metric.Batch) bool { return b.Source == source })
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
	version string // before the first message: what it says that it has
	frame
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
	case before.content == nil && r.version != next.version:
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

// diff returns what has changed from one list to the next, or nil.
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
