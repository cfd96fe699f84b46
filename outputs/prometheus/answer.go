package prometheus

import (
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"
)

// An answer is a complete response with status 200.
type answer struct {
	header map[string]string
	body   []byte
}

// An httpError is an error that is shown to the client, with its status.
type httpError struct {
	status int
	text   string
}

// Error returns the text for the client.
func (e *httpError) Error() string { return e.text }

var (
	errNothingGathered = &httpError{http.StatusServiceUnavailable, "nothing has been gathered yet"}
	errNotAcceptable   = &httpError{http.StatusNotAcceptable, "every format or encoding of this page is refused"}
	errInternal        = &httpError{http.StatusInternalServerError, "internal error; the log of sockwatch has the reason"}
)

// withSlot makes an answer and writes it. At most maxRequests answers are made at the
// same time; further requests are refused. No slot is held while the client reads, so
// slow clients keep nobody else waiting.
func (e *endpoint) withSlot(w http.ResponseWriter, r *http.Request, do func() (*answer, error)) {
	select {
	case e.slots <- struct{}{}:
	default:
		e.own.refused.Inc()
		serviceUnavailable(w, fmt.Sprintf("%d requests are being answered", maxRequests))
		return
	}
	a, err := e.protected(r, do)
	<-e.slots
	if err != nil {
		writeError(w, err)
		return
	}
	for name, value := range a.header {
		w.Header().Set(name, value)
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
	extendWriteDeadline(w)
	expire := func() { _ = http.NewResponseController(w).SetWriteDeadline(time.Now()) }
	defer e.unread.begin(a.body, expire)()
	_, _ = w.Write(a.body) // an error means that the client is gone
}

// protected calls do, and turns a panic into an error.
func (e *endpoint) protected(r *http.Request, do func() (*answer, error)) (a *answer, err error) {
	defer func() {
		if v := recover(); v != nil {
			e.env.Log.Error("panic while answering", "path", r.URL.Path, "panic", v, "stack", string(debug.Stack()))
			err = errInternal
		}
	}()
	return do()
}

func writeError(w http.ResponseWriter, err error) {
	known := errInternal
	errors.As(err, &known)
	if known.status == http.StatusServiceUnavailable {
		serviceUnavailable(w, known.text)
		return
	}
	http.Error(w, known.text, known.status)
}

func serviceUnavailable(w http.ResponseWriter, text string) {
	w.Header().Set("Retry-After", "1")
	http.Error(w, text, http.StatusServiceUnavailable)
}

// extendWriteDeadline gives the client writeTimeout to read the answer. If the deadline
// cannot be set, the server's own, longer timeout applies.
func extendWriteDeadline(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
}
