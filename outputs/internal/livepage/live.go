package livepage

import (
	"cmp"
	"context"
	"fmt"
	"hash/maphash"
	"net/http"
	"net/url"
	"sync"
	"time"

	"sockwatch/outputs/internal/respond"
)

const (
	maxStreams     = 8
	streamRetry    = time.Second // until a browser connects again
	streamFullWait = "30"        // seconds after which a refused browser may try again
)

// Times of a stream.
type streamTimes struct {
	life  time.Duration // after it the browser has to connect, and to authenticate, again
	pace  time.Duration // minimum time between two messages
	alive time.Duration // maximum time between two messages
	write time.Duration // for a reader to take one message
}

var defaultStreamTimes = streamTimes{life: 15 * time.Minute, pace: 200 * time.Millisecond, alive: 15 * time.Second, write: respond.WriteTimeout}

// stream answers /stream with server-sent events, until the reader leaves or the page ends.
//
// The first message has everything that the page of the same query shows. Each further one
// has what has changed, or is a heartbeat if there was a gather and nothing has changed. A
// reader that names the version that it already has, in the header Last-Event-ID or the
// parameter have, gets a heartbeat first. A stream never starts a gather.
func (p *Page) stream(w http.ResponseWriter, r *http.Request) {
	key := newViewKey(r.URL.Query(), p.opts.Trusted(r))
	if !p.live.enter(key) {
		p.opts.Refused(RefusedBusy)
		w.Header().Set("Retry-After", streamFullWait)
		http.Error(w, fmt.Sprintf("too many live pages: %d are open", maxStreams), http.StatusServiceUnavailable)
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
	ctx, cancel := context.WithTimeout(r.Context(), p.live.times.life)
	defer cancel()
	out := messageWriter{w, http.NewResponseController(w), p.live.times.write}
	reader := reader{claims: cmp.Or(r.Header.Get("Last-Event-ID"), r.URL.Query().Get("have"))}
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
		if !p.live.wait(ctx, nil, p.live.times.pace) {
			return
		}
		for !isClosed(changed) {
			if !p.live.wait(ctx, changed, p.live.times.alive) {
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
	timeout time.Duration
}

// write writes a message and waits until the kernel has it. A reader that does not read is
// disconnected after the timeout.
func (m messageWriter) write(message []byte) error {
	if len(message) == 0 {
		return nil
	}
	_ = m.control.SetWriteDeadline(time.Now().Add(m.timeout))
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

// live is the state that the streams of a page share. It is empty while there is no reader.
type live struct {
	times streamTimes
	ended chan struct{} // closed by end
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
	return &live{times: defaultStreamTimes, ended: make(chan struct{}), seed: maphash.MakeSeed(), shared: map[viewKey]*shared{}}
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
