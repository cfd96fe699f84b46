// Package respond writes the responses of an HTTP endpoint within limits, so that clients
// cannot exhaust the program: the responses being made are limited in number, and those
// that clients have not read yet are limited in bytes and in time.
package respond

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"
)

// WriteTimeout is how long a client may take to read a response.
const WriteTimeout = 30 * time.Second

// A Response is a complete response. Its body is not empty and must not be changed.
type Response struct {
	Status int // 0: 200
	Header map[string]string
	Body   []byte
}

// An Error is an error that is shown to the client, with its status.
type Error struct {
	Status int
	Text   string
}

// Errorf returns an Error.
func Errorf(status int, format string, args ...any) *Error {
	return &Error{status, fmt.Sprintf(format, args...)}
}

// Error returns the text for the client.
func (e *Error) Error() string { return e.Text }

var errInternal = &Error{http.StatusInternalServerError, "internal error; the log of sockwatch has the reason"}

// Options are the limits of a Responder.
type Options struct {
	Log         *slog.Logger
	MaxRequests int    // responses being made at the same time
	MaxUnread   int    // bytes of responses that clients have not read yet
	Refused     func() // called for each request beyond MaxRequests
}

// A Responder makes and writes responses within limits. Make one with New.
type Responder struct {
	opts   Options
	slots  chan struct{} // one for each response being made
	unread *unread
}

// New returns a Responder.
func New(o Options) *Responder {
	return &Responder{opts: o, slots: make(chan struct{}, o.MaxRequests), unread: newUnread(o.MaxUnread)}
}

// Respond makes a response and writes it. At most MaxRequests responses are made at the
// same time; further requests are refused. No slot is held while the client reads, so
// slow clients keep nobody else waiting.
func (rs *Responder) Respond(w http.ResponseWriter, r *http.Request, do func() (*Response, error)) {
	select {
	case rs.slots <- struct{}{}:
	default:
		rs.opts.Refused()
		ServiceUnavailable(w, fmt.Sprintf("%d requests are being answered", rs.opts.MaxRequests))
		return
	}
	resp, err := rs.protected(r, do)
	<-rs.slots
	if err != nil {
		WriteError(w, err)
		return
	}
	for name, value := range resp.Header {
		w.Header().Set(name, value)
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(resp.Body)))
	if resp.Status != 0 {
		w.WriteHeader(resp.Status)
	}
	extendWriteDeadline(w)
	expire := func() { _ = http.NewResponseController(w).SetWriteDeadline(time.Now()) }
	defer rs.unread.begin(resp.Body, expire)()
	_, _ = w.Write(resp.Body) // an error means that the client is gone
}

// protected calls do, and turns a panic into an error.
func (rs *Responder) protected(r *http.Request, do func() (*Response, error)) (resp *Response, err error) {
	defer func() {
		if v := recover(); v != nil {
			rs.opts.Log.Error("panic while answering", "path", r.URL.Path, "panic", v, "stack", string(debug.Stack()))
			err = errInternal
		}
	}()
	resp, err = do()
	if known := (*Error)(nil); err != nil && !errors.As(err, &known) {
		rs.opts.Log.Error("request failed, answering 500", "path", r.URL.Path, "error", err)
	}
	return resp, err
}

// WriteError answers with an Error. Another error is not shown to the client.
func WriteError(w http.ResponseWriter, err error) {
	known := errInternal
	errors.As(err, &known)
	if known.Status == http.StatusServiceUnavailable {
		ServiceUnavailable(w, known.Text)
		return
	}
	http.Error(w, known.Text, known.Status)
}

// ServiceUnavailable answers 503 for a temporary reason.
func ServiceUnavailable(w http.ResponseWriter, text string) {
	w.Header().Set("Retry-After", "1")
	http.Error(w, text, http.StatusServiceUnavailable)
}

// extendWriteDeadline gives the client WriteTimeout to read the response. If the deadline
// cannot be set, the server's own, longer timeout applies.
func extendWriteDeadline(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(WriteTimeout))
}
